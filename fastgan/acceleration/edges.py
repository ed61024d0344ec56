"""Chains of plain 2-D convolutions in a fused container: who applies the normalisation between two
of them.

Between a convolution with BatchNorm and the convolution after it lies an *edge*: somebody has to
apply the normalisation. Four ways, decided per edge by the tuning table's "conv_edge" rows or by
the container's `edge`; without either the first one is taken:

    separate       convolution | statistics | normalise + activate  (the norm's passes)
    moments        convolution with moments in its epilogue | normalise + activate
    on_load        moments in the epilogue; the next convolution transforms on load
    on_load+g      and its backward forms g on load as well

What is handed on, (scale, shift, activation), lives only inside one forward of the container.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastgan.acceleration.patterns import activation_of
from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels.activations import row
from fastgan.kernels.common import DTYPE_NAMES
from fastgan.kernels.conv.spec import ConvSpec, Fusion, pair
from fastgan.ops.conv.fold import fold_average, fold_upsample
from fastgan.ops.conv.functional import conv2d, conv_transpose2d
from fastgan.ops.conv.fused import cast_type, fused, precision_of, unsupported
from fastgan.ops.norm import modules as norms
from fastgan.ops.norm.handed_on import affine, affine_act, update_running_stats
from fastgan.ops.resample import doubles, halves

EDGES = ("separate", "moments", "on_load", "on_load+g")

# Readings and writings of one edge's tensor in a training step, (forward, backward), convolutions
# included; docs/internals/fused-convolution.md.
TRAFFIC = {
    "one by one": (7, 12),
    "separate": (5, 9),
    "moments": (4, 10),
    "on_load": (2, 8),
    "on_load+g": (2, 7),
}


@dataclass(frozen=True)
class Edge:
    """What was decided between two convolutions. saved: bytes of memory traffic a training step
    spares against child-by-child."""

    producer: str
    consumer: str
    choice: str
    why: str
    saved: int = 0

    def __str__(self) -> str:
        return (
            f"{self.producer} -> {self.consumer}: {self.choice} ({self.why}), "
            f"{self.saved / 1e6:.1f} MB less traffic a step"
        )


class Handed(NamedTuple):
    """A normalisation that the next convolution applies as it loads: act(x*scale + shift)."""

    scale: Tensor
    shift: Tensor
    activation: str
    slope: float

    @property
    def groups(self) -> int:
        return self.scale.shape[0] if self.scale.dim() == 2 else 1


def dense(m: Any) -> bool:
    """Whether a module is exactly a convolution that the fused operator covers."""
    return (
        type(m) in (nn.Conv2d, nn.ConvTranspose2d)
        and m.groups == 1
        and m.dilation == (1, 1)
        and m.padding_mode == "zeros"
        and not isinstance(m.padding, str)
    )


def foldable(m: Any) -> bool:
    """Whether nearest upsampling before, or average pooling behind, can become part of this
    convolution."""
    return (
        dense(m)
        and not m.transposed
        and (m.kernel_size, m.stride, m.padding) == ((3, 3), (1, 1), (1, 1))
    )


def chains(children: tuple[Any, ...], run: Run) -> bool:
    """Whether an undisturbed run is at this moment a chain of the kinds that :func:`advance`
    covers."""
    if run.layer < 0 or not dense(children[run.layer]) or children[run.layer]._forward_pre_hooks:
        return False
    if run.fold == "upsample" and not (
        foldable(children[run.layer]) and doubles(children[run.start])
    ):
        return False
    if run.fold == "average" and not (
        foldable(children[run.layer]) and halves(children[run.layer + 1])
    ):
        return False
    norm = children[run.norm] if run.norm >= 0 else None
    return norm is None or (type(norm) is norms.BatchNorm2d and norm.activation is None)


def folded_weight(conv: Any, fold: str) -> tuple[Tensor, ConvSpec]:
    """The (possibly folded) weight in fp32 and the geometry it has."""
    if fold == "upsample":
        return fold_upsample(conv.weight), ConvSpec(True, (4, 4), (2, 2), (1, 1))
    if fold == "average":
        return fold_average(conv.weight), ConvSpec(False, (4, 4), (2, 2), (1, 1))
    extra = pair(conv.output_padding) if conv.transposed else (0, 0)
    return conv.weight, ConvSpec(
        conv.transposed, pair(conv.kernel_size), pair(conv.stride), pair(conv.padding), extra
    )


def advance(
    x: Tensor,
    children: tuple[Any, ...],
    run: Run,
    handed: Handed | None,
    consumer: bool,
    edge: str | None,
    impl: str,
) -> tuple[Tensor, Handed | None, tuple[str, str, int] | None]:
    """x through one run. `handed`: what the run before left to apply; `consumer`: whether the next
        run would take it.

    Returns (y, what is left to apply to y, (choice, why, bytes saved) where the run has a norm).
    """
    conv, norm = children[run.layer], children[run.norm] if run.norm >= 0 else None
    act, slope = activation_of(children[run.act]) if run.act >= 0 else ("identity", 0.01)
    w, spec = folded_weight(conv, run.fold)
    if norm is None:
        if handed is None:
            return _plain(x, w, spec, conv.bias, act, slope, impl), None, None
        out = act if row(act).from_output is not None else "identity"
        y = _fused(x, w, spec, conv.bias, handed, impl, act_out=out, slope_out=slope)[0]
        return (
            y if out == act else affine_act(y, None, None, activation=act, slope=slope),
            None,
            None,
        )
    by_batch = norm.training or norm.running_mean is None
    groups = norms.current_groups() if by_batch else 1
    size = spec.output_size(x.shape[2], x.shape[3])
    rows = x.shape[0] // groups * size[0] * size[1]
    choice, why = _choose(x, spec, conv, consumer, rows, edge)
    written = x.shape[0] * conv.out_channels * size[0] * size[1] * x.element_size()
    told = choice, why, written * (sum(TRAFFIC["one by one"]) - sum(TRAFFIC[choice]))
    if choice == "separate":
        if handed is None:
            y = _plain(x, w, spec, conv.bias, "identity", 0.01, impl)
        else:
            y = _fused(x, w, spec, conv.bias, handed, impl)[0]
        return norm.forward(y) if run.act < 0 else norm.forward(y, act, slope), None, told
    y, mean, var = _fused(
        x,
        w,
        spec,
        conv.bias,
        handed,
        impl,
        groups=groups,
        moments=by_batch,
        g_on_load=choice == "on_load+g",
    )
    if mean is not None and var is not None:
        if norm.training and norm.track_running_stats and norm.running_mean is not None:
            stats = [(mean.detach(), var.detach())]
            tracked = [norm.num_batches_tracked] if norm.num_batches_tracked is not None else []
            update_running_stats(
                [norm.running_mean], [norm.running_var], tracked, stats, [rows], [norm.momentum]
            )
        if groups == 1:
            mean, var = mean[0], var[0]
    else:
        mean, var = norm.running_mean, norm.running_var
    scale, shift = affine(mean, var, norm.weight, norm.bias, norm.eps)
    if choice == "moments":
        return affine_act(y, scale, shift, activation=act, slope=slope), None, told
    return y, Handed(scale, shift, act, slope), told


def _plain(
    x: Tensor, w: Tensor, spec: ConvSpec, bias: Tensor | None, act: str, slope: float, impl: str
) -> Tensor:
    w = w if torch.is_autocast_enabled(x.device.type) else w.to(x.dtype)
    if spec.transposed:
        return conv_transpose2d(
            x,
            w,
            bias,
            spec.stride,
            spec.padding,
            spec.output_padding,
            activation=act,
            slope=slope,
            impl=impl,
        )
    return conv2d(x, w, bias, spec.stride, spec.padding, activation=act, slope=slope, impl=impl)


def _fused(
    x: Tensor,
    w: Tensor,
    spec: ConvSpec,
    bias: Tensor | None,
    handed: Handed | None,
    impl: str,
    act_out: str = "identity",
    slope_out: float = 0.0,
    groups: int = 1,
    moments: bool = False,
    g_on_load: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    s, t, act_in, slope_in = handed or (None, None, "identity", 0.0)
    groups = groups if handed is None else max(groups, handed.groups)
    how = Fusion(act_in, slope_in, act_out, slope_out, groups, precision_of(x))
    # where an edge was chosen that only the fused kernels have, they are the engine wherever they
    # can run
    if impl == "auto" and x.is_cuda and unsupported(cast_type(x), act_out, slope_out) is None:
        impl = "triton"
    name = "conv_transpose_moments" if spec.transposed else "conv_moments"
    return fused(name, x, w, spec, how, s, t, bias, moments=moments, g_on_load=g_on_load, impl=impl)


def _choose(
    x: Tensor, spec: ConvSpec, conv: Any, consumer: bool, rows: int, edge: str | None
) -> tuple[str, str]:
    """(choice, reason) for the edge that this convolution opens."""
    if edge is not None and edge not in EDGES:
        raise FastganError(f'edge="{edge}": choose one of {", ".join(EDGES)}')
    if rows == 1:
        return "separate", "one value a channel: the norm itself raises"
    wanted, why = edge, "asked for"
    if wanted is None:
        shape = {
            "rows": x.shape[0] * x.shape[2] * x.shape[3],
            "ci": conv.in_channels,
            "co": conv.out_channels,
            "k": spec.kernel[0],
            "stride": spec.stride[0],
        }
        wanted = tuning.engine(
            "conv_edge", DTYPE_NAMES.get(cast_type(x), str(x.dtype)), shape, x.device
        )
        why = "tuning table"
        if wanted not in EDGES:
            return "separate", "no tuning entry"
        if x.dtype == torch.float64:
            return "separate", "float64"
    if wanted.startswith("on_load") and not consumer:
        return "moments", "nothing to hand the normalisation on to"
    return wanted, why


class Run(NamedTuple):
    """Children start..stop-1 of a container, and which of them is the layer, the norm and the
    activation (-1: none).

    Without any of the three they are no run: each is called by itself. fold: "upsample" (a child
    before the layer), "average" (a child behind it) or "".
    """

    start: int
    stop: int
    layer: int = -1
    norm: int = -1
    act: int = -1
    fold: str = ""

    @property
    def joins(self) -> bool:
        """Whether two or more of layer, resampling, norm and activation are in it."""
        return (self.layer >= 0) + (self.norm >= 0) + (self.act >= 0) + bool(self.fold) > 1
