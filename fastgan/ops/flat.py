"""A network's parameters in one flat, 128-byte-padded fp32 buffer: one launch to update them, one call to reduce them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError

ALIGN = 32  # fp32 elements in 128 bytes: a parameter never shares a cache line or a 16-byte vector with its neighbour


class FlatParameters:
    """A network's parameters as views of one flat fp32 buffer, each padded with zeros to 128 bytes.

    parameters: an nn.Module, (name, parameter) pairs, or parameters; all fp32 on one device. 4-D weights lie channels_last
    inside the buffer unless `channels_last=False`. Values are kept; the Parameters stay the same objects. FastganError for none,
    another type or two devices.

    data, grad: fp32 (numel,) with numel a multiple of 32; names, parameters, grad_views: lists in buffer order.
    """

    def __init__(
        self, parameters: nn.Module | Iterable[tuple[str, Tensor]] | Iterable[Tensor], *, channels_last: bool = True
    ) -> None:
        items = list(parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters)
        named = [item if isinstance(item, tuple) else (f"parameter {i}", item) for i, item in enumerate(items)]
        if not named:
            raise FastganError("no parameters to flatten")
        self.names = [name for name, _ in named]
        self.parameters = [p for _, p in named]
        device = self.parameters[0].device
        for name, p in named:
            if p.dtype != torch.float32 or p.device != device:
                raise FastganError(f"{name} is {p.dtype} on {p.device}: flat parameters are float32 on one device ({device})")
        if len({id(p) for p in self.parameters}) < len(named):
            raise FastganError("a parameter is listed twice: name each once")
        self._channels_last = channels_last
        self.offsets: list[int] = []
        total = 0
        for p in self.parameters:
            self.offsets.append(total)
            total += -(-p.numel() // ALIGN) * ALIGN
        self.data = torch.zeros(total, device=device)
        self.grad = torch.zeros(total, device=device)
        self.grad_views = self.views(self.grad)
        with torch.no_grad():
            for p, view in zip(self.parameters, self.views(self.data)):
                view.copy_(p)
                p.data = view
        self._where = [(p.data_ptr(), p.stride()) for p in self.parameters]

    def views(self, flat: Tensor) -> list[Tensor]:
        """`flat` (numel,) of any type as tensors shaped and laid out like the parameters, sharing its memory."""
        out = []
        for p, offset in zip(self.parameters, self.offsets):
            part = flat[offset : offset + p.numel()]
            if p.dim() == 4 and self._channels_last:
                n, c, h, w = p.shape
                out.append(part.view(n, h, w, c).permute(0, 3, 1, 2))
            else:
                out.append(part.view(p.shape))
        return out

    def check(self) -> None:
        """FastganError naming the first parameter that is no view of `data` any more (after `.to()`, `.half()`, new `.data`)."""
        for name, p, (pointer, stride) in zip(self.names, self.parameters, self._where):
            if p.data_ptr() != pointer or p.stride() != stride or p.dtype != torch.float32:
                raise FastganError(
                    f"{name} no longer lies in its flat buffer (moved or cast to {p.dtype} on {p.device}): "
                    "move the network first, then build FlatParameters and the optimiser"
                )

    @torch.no_grad()
    def collect_grads_(self, grads: Sequence[Tensor | None] | None = None) -> Tensor:
        """Copy gradients (default: each parameter's .grad) into `grad` and return it: one multi-tensor launch.

        A missing gradient counts as zero.
        """
        source = [p.grad for p in self.parameters] if grads is None else grads
        if len(source) != len(self.parameters):
            raise FastganError(f"{len(source)} gradients for {len(self.parameters)} parameters")
        pairs = [(v, g) for v, g in zip(self.grad_views, source) if g is not None and g.data_ptr() != v.data_ptr()]
        for view, g in zip(self.grad_views, source):
            if g is None:
                view.zero_()
        if pairs:
            torch._foreach_copy_([v for v, _ in pairs], [g for _, g in pairs])
        return self.grad
