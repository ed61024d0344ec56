"""Adam/AdamW with EMA over one flat, 128-byte-padded fp32 buffer: one launch a network, hyper-parameters in device memory.

Kingma & Ba 2015, algorithm 1, as torch.optim.Adam computes it; Loshchilov & Hutter 2019 for the decoupled decay. In order, per
element: unscale, decay, moments, bias correction, update, EMA, low-precision copy. A step whose `found_inf` is set leaves every
buffer as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels import adam as kernel
from fastgan.ops.dispatch import Dispatcher
from fastgan.ops.flat import FlatParameters, Gradients
from fastgan.ops.registry import Case, Kwargs, Op, Variant, register

# On a CPU, walk the buffers in pieces that stay in the second-level cache over the ten element-wise passes.
CPU_CHUNK = 1 << 16
SPARE = 64
"""Tables of gradients' addresses that are made at once, outside captures."""


def nonfinite(grad: Tensor) -> Tensor:
    """0-dim fp32: 1 where `grad` holds an infinity or NaN, else 0. Decided on the device."""
    return (~torch.linalg.vector_norm(grad, float("inf")).isfinite()).to(torch.float32)


def _device_scalar(value: float | Tensor, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.full((), value, dtype=torch.float64, device=like.device)


def _reference_(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    ema: Tensor | None,
    low: Tensor | None,
    step: Tensor,
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    eps: Tensor,
    weight_decay: Tensor | None,
    ema_decay: Tensor | None,
    scale: Tensor | None,
    found_inf: Tensor | None,
    decoupled: bool,
) -> None:
    skip = None if found_inf is None else found_inf != 0
    # Scalars in float64, rounded once to fp32: what torch.optim.Adam does with Python floats.
    lr, beta1, beta2 = lr.double(), beta1.double(), beta2.double()
    t = step.double() + 1
    weight1, weight2, keep2 = 1 - beta1, 1 - beta2, beta2
    minus_step_size = -(lr / (1 - beta1**t))
    root = (1 - beta2**t).sqrt().to(param.dtype)
    shrink = None if weight_decay is None or not decoupled else 1 - lr * weight_decay.double()
    ema_weight = None if ema_decay is None else 1 - ema_decay.double()
    inverse_scale = None if scale is None else scale.double().reciprocal().to(grad.dtype)
    if skip is not None:
        # A skipped step runs the same arithmetic with neutral scalars and zero gradients: every buffer keeps its bits.
        zero, one = torch.zeros_like(lr), torch.ones_like(lr)
        weight1, weight2, keep2 = weight1.where(~skip, zero), weight2.where(~skip, zero), keep2.where(~skip, one)
        minus_step_size = minus_step_size.where(~skip, zero)
        shrink = None if shrink is None else shrink.where(~skip, one)
        ema_weight = None if ema_weight is None else ema_weight.where(~skip, zero)
    dtype = param.dtype
    weight1, weight2, keep2 = weight1.to(dtype), weight2.to(dtype), keep2.to(dtype)
    minus_step_size, eps = minus_step_size.to(dtype), eps.to(dtype)
    size = param.numel()
    chunk = CPU_CHUNK if param.device.type == "cpu" else max(size, 1)
    for start in range(0, size, chunk):
        part = slice(start, start + chunk)
        p, g, m, v = param[part], grad[part], exp_avg[part], exp_avg_sq[part]
        if inverse_scale is not None:
            g = g * inverse_scale
        if skip is not None:
            g = torch.where(skip, 0.0, g)
        if weight_decay is not None:
            if shrink is not None:
                p.mul_(shrink.to(dtype))
            elif skip is None:
                g = torch.addcmul(g, p, weight_decay.to(dtype))
            else:
                g = torch.where(skip, 0.0, torch.addcmul(g, p, weight_decay.to(dtype)))
        m.lerp_(g, weight1)
        v.mul_(keep2).addcmul_(g * weight2, g)
        denominator = v.sqrt().div_(root).add_(eps)
        p.addcdiv_(m * minus_step_size, denominator)
        if ema is not None and ema_weight is not None:
            ema[part].lerp_(p, ema_weight.to(dtype))
        if low is not None:
            low[part].copy_(p if skip is None else torch.where(skip, low[part].to(p.dtype), p))
    step.add_(1 if skip is None else (~skip).to(step.dtype))


@torch.library.custom_op(
    "fastgan::adam_ema_", mutates_args=("param", "exp_avg", "exp_avg_sq", "ema", "low", "step", "ticket")
)
def _adam_ema_(
    param: Tensor,
    grads: Sequence[Tensor],
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    ema: Tensor | None,
    low: Tensor | None,
    step: Tensor,
    ticket: Tensor,
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    eps: Tensor,
    weight_decay: Tensor | None,
    ema_decay: Tensor | None,
    scale: Tensor | None,
    found_inf: Tensor | None,
    decoupled: bool,
    pieces: Tensor | None = None,
    places: Tensor | None = None,
    block: int = 0,
) -> None:
    kernel.adam_ema_(
        param, grads[0] if pieces is None else None, exp_avg, exp_avg_sq, ema, low, step, ticket, lr, beta1, beta2, eps,
        weight_decay, ema_decay, scale, found_inf, decoupled, pieces, places, block,
    )  # fmt: skip


@_adam_ema_.register_fake
def _(
    param: Tensor,
    grads: Sequence[Tensor],
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    ema: Tensor | None,
    low: Tensor | None,
    step: Tensor,
    ticket: Tensor,
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    eps: Tensor,
    weight_decay: Tensor | None,
    ema_decay: Tensor | None,
    scale: Tensor | None,
    found_inf: Tensor | None,
    decoupled: bool,
    pieces: Tensor | None = None,
    places: Tensor | None = None,
    block: int = 0,
) -> None:
    return None


def _unsupported(engine: str, dtype: torch.dtype, contiguous: bool) -> str | None:
    if engine != "triton":
        return None
    if dtype != torch.float32:
        return f"the kernel updates float32 master weights, not {dtype}"
    return None if contiguous else "the flat buffers must be contiguous"


_choose = Dispatcher("adam_ema", ("triton", "reference"), _unsupported)


@torch.no_grad()
def adam_ema_(
    param: Tensor,
    grad: Tensor | Gradients,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    ema: Tensor | None = None,
    low: Tensor | None = None,
    *,
    step: Tensor,
    lr: float | Tensor,
    beta1: float | Tensor,
    beta2: float | Tensor,
    eps: float | Tensor,
    weight_decay: float | Tensor | None = None,
    ema_decay: float | Tensor | None = None,
    scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    decoupled: bool = False,
    ticket: Tensor | None = None,
    impl: str = "auto",
) -> None:
    """One Adam (`decoupled`: AdamW) step in place on flat fp32 (numel,) buffers; `step` (0-dim, steps done) advances by one.

    `ema` (fp32) moves to `param` by 1 - ema_decay; `low` (bf16/fp16) receives the new `param`; `grad` is divided by `scale`, not
    changed; the kernel alone takes Gradients. Where `found_inf` is not 0 nothing changes, `step`, `ema` and `low` included.
    Scalars are 0-dim device tensors, best float64 (their bias corrections then round as PyTorch's); Python floats are
    baked into a captured graph.
    `weight_decay=None` skips the decay. `ticket` (int32 zero of shape (1,), zero again afterwards, one a stream) saves the kernel
    an allocation. Raises FastganError for buffers of unequal size, and ema without ema_decay.
    """
    contiguous = True
    flat_grad = grad if isinstance(grad, Tensor) else None
    for name, buffer in (("grad", flat_grad), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq), ("ema", ema), ("low", low)):
        if buffer is not None:
            contiguous = contiguous and buffer.is_contiguous()
            if buffer.shape != param.shape:
                raise FastganError(f"{name} has shape {tuple(buffer.shape)}, the flat parameters {tuple(param.shape)}")
    if (ema is None) != (ema_decay is None):
        raise FastganError("ema and ema_decay go together: give both or neither")
    rate, b1, b2, epsilon = (_device_scalar(x, param) for x in (lr, beta1, beta2, eps))
    decay = None if weight_decay is None else _device_scalar(weight_decay, param)
    keep = None if ema_decay is None else _device_scalar(ema_decay, param)
    if _choose(impl, param, contiguous and param.is_contiguous()) == "reference":
        if flat_grad is None:
            raise FastganError("Gradients are for the kernel: give the reference one flat gradient")
        _reference_(
            param, flat_grad, exp_avg, exp_avg_sq, ema, low, step, rate, b1, b2, epsilon, decay, keep, scale, found_inf, decoupled
        )
    else:
        ticket = param.new_zeros(1, dtype=torch.int32) if ticket is None else ticket
        grads, *where = grad if isinstance(grad, Gradients) else ([grad], None, None, 0)
        _adam_ema_(
            param, grads, exp_avg, exp_avg_sq, ema, low, step, ticket, rate, b1, b2, epsilon, decay, keep, scale, found_inf,
            decoupled, *where,
        )  # fmt: skip


def adam_ema_reference_(**kwargs: Any) -> None:
    """`adam_ema_` in plain PyTorch."""
    adam_ema_(**kwargs, impl="reference")


class FlatAdam(torch.optim.Optimizer):
    """torch.optim.Adam/AdamW over a FlatParameters: the same hyper-parameters and state_dict (each loads the other's).

    ema_decay (float or 0-dim device tensor) keeps `ema`, a flat fp32 copy; low_precision (torch.bfloat16, float16) keeps `low`.
    Hyper-parameters live in `param_groups[0]`; `sync_hyper()` brings what changed on the host to the device (`step` does it too:
    call it by hand only before replaying a captured step). lr may be a 0-dim device tensor. One parameter group; amsgrad
    and maximize are refused; a parameter without gradient counts as zero gradient, where torch.optim.Adam would leave it out.
    """

    _step_supports_amp_scaling = True  # GradScaler hands over scale and found_inf, and reads nothing on the host

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
            raise FastganError(f"Adam needs eps, weight_decay >= 0 and 0 <= betas < 1, not {eps}, {weight_decay}, {betas}")
        defaults = dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=False, maximize=False, foreach=None, capturable=False,
            differentiable=False, fused=None, decoupled_weight_decay=decoupled_weight_decay,
        )  # fmt: skip
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
        # .data: each copy counts its own versions, so that one made anew does not make a backward through another stale
        self.copies = [] if self.low is None else [view.data for view in flat.views(self.low)]
        self._copied = [p._version for p in flat.parameters]
        block = kernel.settings(flat.data.numel(), flat.data)["BLOCK"]
        self._pieces = flat.pieces(block), block  # here, since a step that is captured may copy nothing from the host
        self._places = torch.zeros((len(flat.parameters), 2), dtype=torch.int64, device=flat.data.device)
        self._tables: list[Tensor] = []  # for captured steps: all of them, and those that none has taken
        self._free: list[Tensor] = []
        self._promised: list[tuple[Tensor, Tensor]] = []
        # lr, beta1, beta2, eps, weight_decay, ema_decay: float64, as PyTorch computes with Python floats.
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
        """A FlatAdam with the options of a torch Adam or AdamW that has done no step; its state_dicts name the same options.

        `replaces` is the name of that class.
        """
        group = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        decoupled = group["decoupled_weight_decay"]
        numbers = (group["lr"], group["betas"], group["eps"], group["weight_decay"])
        made = cls(flat, *numbers, decoupled_weight_decay=decoupled, low_precision=low_precision, impl=impl)
        made.defaults = dict(optimizer.defaults)
        made.param_groups[0] |= group
        made.replaces = type(optimizer).__name__
        return made

    def average_into(self, averages: Sequence[Tensor], decay: Tensor) -> None:
        """Keep these tensors (shaped like flat.parameters, in their order) as moving averages: they become views of `ema`.

        decay: 0-dim on the device, best float64; read at each step.
        """
        self.ema, self.ema_decay = torch.zeros_like(self.flat.data), decay
        for average, view in zip(averages, self.flat.views(self.ema), strict=True):
            view.copy_(average)
            average.data = view

    def _bind_state(self) -> None:
        for p, m, v in zip(self.flat.parameters, self.flat.views(self.exp_avg), self.flat.views(self.exp_avg_sq)):
            self.state[p] = {"step": self.steps, "exp_avg": m, "exp_avg_sq": v}

    def copy_of(self, index: int) -> Tensor:
        """The low-precision copy of flat.parameters[index], made anew where somebody wrote to the parameter since."""
        p, mine = self.flat.parameters[index], self.copies[index]
        if p._version != self._copied[index]:
            with torch.no_grad():
                mine.copy_(p)
            self._copied[index] = p._version
        return mine

    @torch.no_grad()
    def renew_copies(self) -> None:
        """Make the low-precision copy anew: after writes that no version counts (`p.data`, a broadcast)."""
        if self.low is not None:
            self.low.copy_(self.flat.data)
            torch.autograd.graph.increment_version(self.copies)
            self._copied = [p._version for p in self.flat.parameters]

    def sync_hyper(self) -> None:
        """Bring hyper-parameters, parameters written by hand and addresses of captured gradients to the device.

        Outside a captured region, before each replay.
        """
        for places, rows in self._promised:
            places.copy_(rows)
        self._promised = []
        if len(self._free) < SPARE // 2:
            self._tables.append(torch.zeros((SPARE, *self._places.shape), dtype=torch.int64, device=self._places.device))
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
        """One update from each parameter's .grad, or from `grads` in flat.parameters' order. FastganError if a view is broken.

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
        kernels = _choose(self.impl, self.flat.data, True) == "triton"
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
            ema_decay=None if self.ema is None else self.ema_decay if isinstance(self.ema_decay, Tensor) else ema_decay,
            scale=scale,
            found_inf=found_inf,
            decoupled=group["decoupled_weight_decay"],
            ticket=self._ticket,
            impl=self.impl,
        )
        # The parameters' own version counters do not see a write to the flat buffer: a stale backward must still raise.
        torch.autograd.graph.increment_version([*self.flat.parameters, *self.copies])
        self._copied = [p._version for p in self.flat.parameters]
        return loss

    def _find_grads(self, grads: Sequence[Tensor | None] | None, capturing: bool) -> Gradients:
        """Where the gradients lie. Within a capture a table of this step's own is taken, and filled later by `sync_hyper`."""
        tensors, found = self.flat.find_grads(grads)
        if capturing:
            if not self._free:
                raise FastganError(f"a captured step can update a network {SPARE // 2} times, not more")
            places = self._free.pop()
            self._promised.append((places, torch.tensor(found)))
        else:
            places = self._places
            # pinned: the host does not wait, which is asked of a step
            places.copy_(torch.tensor(found, pin_memory=places.is_cuda), non_blocking=True)
        return Gradients(tensors, self._pieces[0], places, self._pieces[1])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self.param_groups:
            raise FastganError("FlatAdam updates one flat buffer: use one FlatParameters and one FlatAdam a parameter group")
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """As torch.optim.Adam's: `step` is a tensor of its own for each parameter, since Adam advances each."""
        state = super().state_dict()
        state["state"] = {i: {**entry, "step": self.steps.clone()} for i, entry in state["state"].items()}
        return state

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load this class's or torch.optim.Adam/AdamW's state. FastganError for amsgrad, maximize or unequal step counts."""
        for group in state_dict["param_groups"]:
            if group.get("amsgrad") or group.get("maximize"):
                raise FastganError("FlatAdam has neither amsgrad nor maximize: this state was made with one of them")
        super().load_state_dict(state_dict)
        loaded = [self.state.get(p, {}) for p in self.flat.parameters]
        steps = {float(entry["step"]) for entry in loaded if entry}  # torch's has no entry for what never had a gradient
        if len(steps) > 1:
            raise FastganError(f"this Adam state counts {sorted(steps)} steps for different parameters: FlatAdam has one count")
        self.steps.fill_(steps.pop() if steps else 0.0)
        views = zip(loaded, self.flat.views(self.exp_avg), self.flat.views(self.exp_avg_sq))
        for entry, m, v in views:
            m.copy_(entry["exp_avg"]) if entry else m.zero_()
            v.copy_(entry["exp_avg_sq"]) if entry else v.zero_()
        self._bind_state()
        self.sync_hyper()


def _case(name: str, n: int, steps: float, *tags: str, decay: float | None = None, decoupled: bool = False,
          found: float | None = None, beta1: float = 0.5, ema: bool = True) -> Case:  # fmt: skip
    def make(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Kwargs:
        draw = lambda scale: torch.randn(n, generator=generator).mul_(scale).to(device)
        scalar = lambda value: None if value is None else torch.tensor(value, dtype=torch.float64, device=device)
        # One storage, so that a block that overruns one buffer damages the next instead of a guard that NaN would not change.
        exp_avg_sq, exp_avg, param, average = torch.stack([draw(0.01).square_(), draw(0.01), draw(0.02), draw(0.02)]).unbind()
        return {
            "param": param, "grad": draw(16.0), "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq,
            "ema": average if ema else None, "low": None if dtype == torch.float32 else param.to(dtype),
            "step": torch.tensor(steps, device=device), "lr": scalar(2e-4), "beta1": scalar(beta1), "beta2": scalar(0.999),
            "eps": scalar(1e-8), "weight_decay": scalar(decay), "decoupled": decoupled,
            "ema_decay": scalar(0.995) if ema else None, "scale": torch.tensor(128.0, device=device),
            "found_inf": None if found is None else torch.tensor(found, device=device),
            "ticket": torch.zeros(1, dtype=torch.int32, device=device),
        }  # fmt: skip

    return Case(name, make, set(tags))


def _bytes(kwargs: Kwargs, direction: str) -> int:
    tensors = [kwargs[name] for name in ("param", "exp_avg", "exp_avg_sq", "ema")]
    low = kwargs["low"]
    return kwargs["grad"].nbytes + sum(2 * t.nbytes for t in tensors if t is not None) + (0 if low is None else low.nbytes)


def _variants() -> list[Variant]:
    single = "param grad avg avg_sq ema step scale found"
    double = "lr beta1 beta2 eps decay ema_decay"
    signature = {f"{name}_ptr": "*fp32" for name in single.split()} | {f"{name}_ptr": "*fp64" for name in double.split()}
    signature |= {"low_ptr": "*bf16", "ticket_ptr": "*i32", "pieces_ptr": "*i32", "places_ptr": "*i64", "n": "i32"}
    full = {"HAS_EMA": True, "HAS_LOW": True, "HAS_SCALE": True, "HAS_FOUND": True, "UNIT": kernel.ALIGN}
    config = {k: v for k, v in kernel.DEFAULT.items() if k != "PROGRAMS"}
    aligned = [name for name in signature if signature[name][0] == "*"] + ["n"]
    return [
        Variant(
            f"adam_ema {name}",
            kernel._adam_ema_kernel,
            signature,
            {"DECAY": mode, "SCATTERED": scattered, **full},
            [{**config, "enable_fp_fusion": False}],
            aligned=aligned,
            tuned="adam_ema",
        )
        for mode, name, scattered in (
            (1, "Adam", False),
            (2, "AdamW", False),
            (0, "Adam, gradients where they lie", True),
            (2, "AdamW, gradients where they lie", True),
        )
    ]


register(
    Op(
        "adam_ema", adam_ema_, adam_ema_reference_,
        [
            _case("first step 992", 992, 0.0, "quick", "full"),
            _case("AdamW step 7 of 1056", 1056, 6.0, "quick", "full", decay=0.1, decoupled=True, found=0.0, beta1=0.9),
            _case("Adam decay step 1001 of 2080", 2080, 1000.0, "full", decay=0.1, beta1=0.0, ema=False),
            _case("skipped 160", 160, 3.0, "quick", "full", found=1.0, decay=0.1),
            _case("dcgan 3.58 M", 3_576_960, 100.0, "layer"),
            _case("pix2pix 54.4 M", 54_400_000, 100.0, "layer"),
        ],
        mutates=("param", "exp_avg", "exp_avg_sq", "ema", "low", "step"), bytes=_bytes, kernels=_variants,
        candidates={"adam_ema": [{"BLOCK": b, "PROGRAMS": p} for b in (512, 1024, 2048) for p in (1056, 2112, 65536)]},
    )
)  # fmt: skip
