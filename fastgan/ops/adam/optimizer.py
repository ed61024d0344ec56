"""FlatAdam: torch.optim.Adam and AdamW over one flat buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels import adam as kernel
from fastgan.ops.adam.flat_parameters import FlatParameters, Gradients
from fastgan.ops.adam.functional import SPARE, adam_ema_, choose_engine


def nonfinite(grad: Tensor) -> Tensor:
    """0-dim fp32: 1 where `grad` holds an infinity or NaN, else 0. Decided on the device."""
    return (~torch.linalg.vector_norm(grad, float("inf")).isfinite()).to(torch.float32)


class FlatAdam(torch.optim.Optimizer):
    """torch.optim.Adam/AdamW over a FlatParameters: the same hyper-parameters and state_dict (each
    loads the other's).

    ema_decay (float or 0-dim device tensor) keeps `ema`, a flat fp32 copy; low_precision
    (torch.bfloat16, float16) keeps `low`. Hyper-parameters live in `param_groups[0]`;
    `sync_hyper()` brings what changed on the host to the device (`step` does it too: call it by
    hand only before replaying a captured step). lr may be a 0-dim device tensor. One parameter
    group; amsgrad and maximize are refused; a parameter without gradient counts as zero gradient,
    where torch.optim.Adam would leave it out.
    """

    _step_supports_amp_scaling = (
        True  # GradScaler hands over scale and found_inf, and reads nothing on the host
    )

    def __init__(
        self,
        flat: FlatParameters,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled_weight_decay: bool = False,
        ema_decay: float | Tensor | None = None,
        low_precision: torch.dtype | None = None,
        impl: str = "auto",
    ) -> None:
        if not isinstance(lr, Tensor) and lr < 0:
            raise FastganError(f"lr must not be negative: {lr}")
        if eps < 0 or weight_decay < 0 or not all(0.0 <= b < 1.0 for b in betas):
            raise FastganError(
                f"Adam needs eps, weight_decay >= 0 and 0 <= betas < 1, not {eps}, {weight_decay}, "
                f"{betas}"
            )
        defaults = dict(
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=False,
            maximize=False,
            foreach=None,
            capturable=False,
            differentiable=False,
            fused=None,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        super().__init__(flat.parameters, defaults)
        self.flat = flat
        self.impl = impl
        self.exp_avg = torch.zeros_like(flat.data)
        self.exp_avg_sq = torch.zeros_like(flat.data)
        self.steps = torch.zeros((), device=flat.data.device)
        self._ticket = torch.zeros(1, dtype=torch.int32, device=flat.data.device)
        self.ema_decay = ema_decay
        self.ema = None if ema_decay is None else flat.data.clone()
        self.low = None if low_precision is None else flat.data.to(low_precision)
        # .data: each copy counts its own versions, so that one made anew does not make a backward
        # through another stale
        self.copies = [] if self.low is None else [view.data for view in flat.views(self.low)]
        self._copied = [p._version for p in flat.parameters]
        block = kernel.settings(flat.data.numel(), flat.data)["BLOCK"]
        self._pieces = (
            flat.pieces(block),
            block,
        )  # here, since a step that is captured may copy nothing from the host
        self._places = torch.zeros(
            (len(flat.parameters), 2), dtype=torch.int64, device=flat.data.device
        )
        self._tables: list[
            Tensor
        ] = []  # for captured steps: all of them, and those that none has taken
        self._free: list[Tensor] = []
        self._promised: list[tuple[Tensor, Tensor]] = []
        # lr, beta1, beta2, eps, weight_decay, ema_decay: float64, as PyTorch computes with Python
        # floats.
        self._hyper = torch.zeros(6, dtype=torch.float64, device=flat.data.device)
        self._synced: tuple[float, ...] | None = None
        self.replaces: str | None = None
        self._bind_state()
        self.sync_hyper()

    @classmethod
    def of(
        cls,
        optimizer: torch.optim.Optimizer,
        flat: FlatParameters,
        *,
        low_precision: torch.dtype | None = None,
        impl: str = "auto",
    ) -> FlatAdam:
        """A FlatAdam with the options of a torch Adam or AdamW that has done no step; its
        state_dicts name the same options.

        `replaces` is the name of that class.
        """
        group = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        decoupled = group["decoupled_weight_decay"]
        numbers = (group["lr"], group["betas"], group["eps"], group["weight_decay"])
        made = cls(
            flat, *numbers, decoupled_weight_decay=decoupled, low_precision=low_precision, impl=impl
        )
        made.defaults = dict(optimizer.defaults)
        made.param_groups[0] |= group
        made.replaces = type(optimizer).__name__
        return made

    def average_into(self, averages: Sequence[Tensor], decay: Tensor) -> None:
        """Keep these tensors (shaped like flat.parameters, in their order) as moving averages: they
        become views of `ema`.

        decay: 0-dim on the device, best float64; read at each step.
        """
        self.ema, self.ema_decay = torch.zeros_like(self.flat.data), decay
        for average, view in zip(averages, self.flat.views(self.ema), strict=True):
            view.copy_(average)
            average.data = view

    def _bind_state(self) -> None:
        for p, m, v in zip(
            self.flat.parameters, self.flat.views(self.exp_avg), self.flat.views(self.exp_avg_sq)
        ):
            self.state[p] = {"step": self.steps, "exp_avg": m, "exp_avg_sq": v}

    def copy_of(self, index: int) -> Tensor:
        """The low-precision copy of flat.parameters[index], made anew where somebody wrote to the
        parameter since."""
        p, mine = self.flat.parameters[index], self.copies[index]
        if p._version != self._copied[index]:
            with torch.no_grad():
                mine.copy_(p)
            self._copied[index] = p._version
        return mine

    @torch.no_grad()
    def renew_copies(self) -> None:
        """Make the low-precision copy anew: after writes that no version counts (`p.data`, a
        broadcast)."""
        if self.low is not None:
            self.low.copy_(self.flat.data)
            torch.autograd.graph.increment_version(self.copies)
            self._copied = [p._version for p in self.flat.parameters]

    def sync_hyper(self) -> None:
        """Bring hyper-parameters, parameters written by hand and addresses of captured gradients to
        the device.

        Outside a captured region, before each replay.
        """
        for places, rows in self._promised:
            places.copy_(rows)
        self._promised = []
        if len(self._free) < SPARE // 2:
            self._tables.append(
                torch.zeros(
                    (SPARE, *self._places.shape), dtype=torch.int64, device=self._places.device
                )
            )
            self._free += self._tables[-1].unbind()
        if self.low is not None and self._copied != [p._version for p in self.flat.parameters]:
            self.renew_copies()
        group, keep = self.param_groups[0], 0.0 if self.ema_decay is None else self.ema_decay
        values = (group["lr"], *group["betas"], group["eps"], group["weight_decay"], keep)
        host = tuple(0.0 if isinstance(x, Tensor) else float(x) for x in values)
        if host != self._synced:
            self._hyper.copy_(torch.tensor(host, dtype=torch.float64))
            self._synced = host

    @torch.no_grad()
    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Any] | None = None,
        *,
        grads: Sequence[Tensor | None] | None = None,
        scale: Tensor | None = None,
        found_inf: Tensor | None = None,
    ) -> Any:
        """One update from each parameter's .grad, or from `grads` in flat.parameters' order.
        FastganError if a view is broken.

        Under a GradScaler, scale and found_inf are the scaler's.
        """
        scale, found_inf = getattr(self, "grad_scale", scale), getattr(self, "found_inf", found_inf)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.flat.check()
        group = self.param_groups[0]
        capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
        if not capturing:
            self.sync_hyper()
        lr, beta1, beta2, eps, decay, ema_decay = self._hyper.unbind()
        kernels = choose_engine(self.impl, self.flat.data, True) == "triton"
        adam_ema_(
            self.flat.data,
            self._find_grads(grads, capturing) if kernels else self.flat.collect_grads_(grads),
            self.exp_avg,
            self.exp_avg_sq,
            self.ema,
            self.low,
            step=self.steps,
            lr=group["lr"] if isinstance(group["lr"], Tensor) else lr,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            weight_decay=decay if group["weight_decay"] != 0 else None,
            ema_decay=None
            if self.ema is None
            else self.ema_decay
            if isinstance(self.ema_decay, Tensor)
            else ema_decay,
            scale=scale,
            found_inf=found_inf,
            decoupled=group["decoupled_weight_decay"],
            ticket=self._ticket,
            impl=self.impl,
        )
        # The parameters' own version counters do not see a write to the flat buffer: a stale
        # backward must still raise.
        torch.autograd.graph.increment_version([*self.flat.parameters, *self.copies])
        self._copied = [p._version for p in self.flat.parameters]
        return loss

    def _find_grads(self, grads: Sequence[Tensor | None] | None, capturing: bool) -> Gradients:
        """Where the gradients lie. Within a capture a table of this step's own is taken, and filled
        later by `sync_hyper`."""
        tensors, found = self.flat.find_grads(grads)
        if capturing:
            if not self._free:
                raise FastganError(
                    f"a captured step can update a network {SPARE // 2} times, not more"
                )
            places = self._free.pop()
            self._promised.append((places, torch.tensor(found)))
        else:
            places = self._places
            # pinned: the host does not wait, which is asked of a step
            places.copy_(torch.tensor(found, pin_memory=places.is_cuda), non_blocking=True)
        return Gradients(tensors, self._pieces[0], places, self._pieces[1])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups:
            raise FastganError(
                "FlatAdam updates one flat buffer: use one FlatParameters and one FlatAdam a "
                "parameter group"
            )
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """As torch.optim.Adam's: `step` is a tensor of its own for each parameter, since Adam
        advances each."""
        state = super().state_dict()
        state["state"] = {
            i: {**entry, "step": self.steps.clone()} for i, entry in state["state"].items()
        }
        return state

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load this class's or torch.optim.Adam/AdamW's state. FastganError for amsgrad, maximize
        or unequal step counts."""
        for group in state_dict["param_groups"]:
            if group.get("amsgrad") or group.get("maximize"):
                raise FastganError(
                    "FlatAdam has neither amsgrad nor maximize: this state was made with one of "
                    "them"
                )
        super().load_state_dict(state_dict)
        loaded = [self.state.get(p, {}) for p in self.flat.parameters]
        steps = {
            float(entry["step"]) for entry in loaded if entry
        }  # torch's has no entry for what never had a gradient
        if len(steps) > 1:
            raise FastganError(
                f"this Adam state counts {sorted(steps)} steps for different parameters: FlatAdam "
                "has one count"
            )
        self.steps.fill_(steps.pop() if steps else 0.0)
        views = zip(loaded, self.flat.views(self.exp_avg), self.flat.views(self.exp_avg_sq))
        for entry, m, v in views:
            m.copy_(entry["exp_avg"]) if entry else m.zero_()
            v.copy_(entry["exp_avg_sq"]) if entry else v.zero_()
        self._bind_state()
        self.sync_hyper()
