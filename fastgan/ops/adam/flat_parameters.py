"""A network's parameters in one flat, 128-byte-padded fp32 buffer: one launch to update them, one
call to reduce them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError
from fastgan.kernels.adam import ALIGN


class Gradients(NamedTuple):
    """Gradients where autograd left them, as the kernel finds them.

    tensors: those that are read. pieces: (pieces, 4) int32 rows (offset in the flat buffers,
    elements, offset in the parameter, parameter), the first three in units of ALIGN elements.
    places: (parameters, 2) int64 rows (address or 0 for none, bytes of an element: 4 is fp32, 2
    bf16). block: the most elements of a piece.
    """

    tensors: list[Tensor]
    pieces: Tensor
    places: Tensor
    block: int


class FlatParameters:
    """A network's parameters as views of one flat fp32 buffer, each padded with zeros to 128 bytes.

    parameters: an nn.Module, (name, parameter) pairs, or parameters; all fp32 on one device. 4-D
    weights lie channels_last inside the buffer unless `channels_last=False`. Values are kept; the
    Parameters stay the same objects. FastganError for none, another type or two devices.

    data, grad: fp32 (numel,) with numel a multiple of 32; names, parameters, grad_views: lists in
        buffer order.
    """

    def __init__(
        self,
        parameters: nn.Module | Iterable[tuple[str, Tensor]] | Iterable[Tensor],
        *,
        channels_last: bool = True,
    ) -> None:
        items = list(
            parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters
        )
        named = [
            item if isinstance(item, tuple) else (f"parameter {i}", item)
            for i, item in enumerate(items)
        ]
        if not named:
            raise FastganError("no parameters to flatten")
        self.names = [name for name, _ in named]
        self.parameters = [p for _, p in named]
        device = self.parameters[0].device
        for name, p in named:
            if p.dtype != torch.float32 or p.device != device:
                raise FastganError(
                    f"{name} is {p.dtype} on {p.device}: flat parameters are float32 on one device "
                    f"({device})"
                )
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
        """`flat` (numel,) of any type as tensors shaped and laid out like the parameters, sharing
        its memory."""
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
        """FastganError naming the first parameter that is no view of `data` any more (after
        `.to()`, `.half()`, new `.data`)."""
        for name, p, (pointer, stride) in zip(self.names, self.parameters, self._where):
            if p.data_ptr() != pointer or p.stride() != stride or p.dtype != torch.float32:
                raise FastganError(
                    f"{name} no longer lies in its flat buffer (moved or cast to {p.dtype} on "
                    f"{p.device}): "
                    "move the network first, then build FlatParameters and the optimiser"
                )

    @torch.no_grad()
    def collect_grads_(self, grads: Sequence[Tensor | None] | None = None) -> Tensor:
        """Copy gradients (default: each parameter's .grad) into `grad` and return it: one
        multi-tensor launch.

        A missing gradient counts as zero.
        """
        source = self._given(grads)
        for view, g in zip(self.grad_views, source):
            if g is None:
                view.zero_()
        self._copy([(v, g) for v, g in zip(self.grad_views, source) if g is not None])
        return self.grad

    def _given(self, grads: Sequence[Tensor | None] | None) -> Sequence[Tensor | None]:
        """The gradients given, or the parameters' own. Raises FastganError for another count."""
        source = [p.grad for p in self.parameters] if grads is None else grads
        if len(source) != len(self.parameters):
            raise FastganError(f"{len(source)} gradients for {len(self.parameters)} parameters")
        return source

    @staticmethod
    def _copy(pairs: list[tuple[Tensor, Tensor]]) -> None:
        moved = [(v, g) for v, g in pairs if g.data_ptr() != v.data_ptr()]
        if moved:
            torch._foreach_copy_([v for v, _ in moved], [g for _, g in moved])

    @torch.no_grad()
    def find_grads(
        self, grads: Sequence[Tensor | None] | None = None
    ) -> tuple[list[Tensor], list[tuple[int, int]]]:
        """The gradients without copying them: (tensors, rows of Gradients.places).

        Only what the kernel can't walk (another type or layout than the parameter's, a size that is
        no multiple of ALIGN) is copied into `grad` first.
        """
        source = self._given(grads)
        pairs, tensors, rows = [], [], []
        for p, view, g in zip(self.parameters, self.grad_views, source):
            if g is None:
                rows.append((0, 4))
                continue
            if not _walkable(g, p):
                pairs.append((view, g))
                g = view
            tensors.append(g)
            rows.append((g.data_ptr(), g.element_size()))
        self._copy(pairs)
        return tensors, rows

    def pieces(self, block: int) -> Tensor:
        """Gradients.pieces: each piece lies in one parameter, its padding included."""
        rows = []
        for index, (p, offset) in enumerate(zip(self.parameters, self.offsets)):
            size = -(-p.numel() // ALIGN) * ALIGN
            for at in range(0, size, block):
                rows.append(
                    ((offset + at) // ALIGN, min(block, size - at) // ALIGN, at // ALIGN, index)
                )
        return torch.tensor(rows, dtype=torch.int32, device=self.data.device)


def _walkable(g: Tensor, p: Tensor) -> bool:
    """Whether the elements of g lie as those of p, a whole number of vectors."""
    same = g.shape == p.shape and all(
        a == b for size, a, b in zip(p.shape, g.stride(), p.stride()) if size > 1
    )
    kind = g.dtype in (torch.float32, torch.bfloat16) and g.device == p.device
    return same and kind and g.numel() % ALIGN == 0 and g.data_ptr() % 16 == 0
