"""Chains of [upsample] -> convolution -> [average pool] -> [norm] -> [activation] inside one nn.Sequential, run as fused calls.

Between a convolution with BatchNorm and the convolution after it lies an *edge*: somebody has to apply the normalisation. Four
ways, decided per edge by the tuning table's "conv_edge" rows (or `edge=`), never by guess; without a row the first one is taken:

    separate       convolution | statistics | normalise + activate                       (the norm's own passes)
    moments        convolution with moments in its epilogue | normalise + activate
    on_load        moments in the epilogue; the next convolution transforms on load
    on_load+g      and its backward forms g on load as well

(y, s, t) live only inside one forward call. On each call the container looks again at its children: types, hooks, replaced
forwards, training flags; whatever is not plain runs child by child.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module

from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels._common import DTYPE_NAMES
from fastgan.kernels.conv_spec import ConvSpec, Fusion, pair
from fastgan.nn import norm as norms
from fastgan.nn.conv import Conv2d, ConvTranspose2d
from fastgan.ops.conv import conv2d, conv_transpose2d
from fastgan.ops.conv_fold import fold_average, fold_upsample
from fastgan.ops.conv_fused import OUTPUT_ACTIVATIONS, cast_type, fused, precision_of, unsupported
from fastgan.ops.norm import affine, affine_act, batch_norm, update_running_stats

CONVOLUTIONS = (nn.Conv2d, Conv2d, nn.ConvTranspose2d, ConvTranspose2d)
NORMS = (nn.BatchNorm2d, norms.BatchNorm2d)
ACTIVATIONS: dict[type, str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
}
EDGES = ("separate", "moments", "on_load", "on_load+g")

# Readings and writings of one edge's tensor in a training step, (forward, backward), convolutions included;
# docs/fused-convolution.md.
TRAFFIC = {"one by one": (7, 12), "separate": (5, 9), "moments": (4, 10), "on_load": (2, 8), "on_load+g": (2, 7)}


@dataclass(frozen=True)
class Segment:
    """Children start..stop-1: a convolution at `conv` with what belongs to it (-1: absent). fold: "", "upsample" or "average"."""

    start: int
    stop: int
    conv: int
    norm: int = -1
    act: int = -1
    fold: str = ""


@dataclass(frozen=True)
class Edge:
    """What was decided between two convolutions. saved: bytes of memory traffic a training step spares against child-by-child."""

    producer: str
    consumer: str
    choice: str
    why: str
    saved: int = 0

    def __str__(self) -> str:
        return f"{self.producer} -> {self.consumer}: {self.choice} ({self.why}), {self.saved / 1e6:.1f} MB less traffic a step"


def _doubles(m: nn.Module) -> bool:
    known = isinstance(m, nn.Upsample) and type(m) in (nn.Upsample, nn.UpsamplingNearest2d) and m.mode == "nearest"
    return known and m.size is None and m.scale_factor in (2, 2.0, (2, 2), (2.0, 2.0))


def _halves(m: nn.Module) -> bool:
    if type(m) is not nn.AvgPool2d or m.ceil_mode or m.divisor_override is not None:
        return False
    return pair(m.kernel_size) == (2, 2) and pair(m.stride) == (2, 2) and pair(m.padding) == (0, 0)


def _dense(m: Any) -> bool:
    """A convolution the fused operator covers."""
    return (
        type(m) in CONVOLUTIONS
        and m.groups == 1
        and m.dilation == (1, 1)
        and m.padding_mode == "zeros"
        and not isinstance(m.padding, str)
    )


def _foldable(m: Any) -> bool:
    return _dense(m) and not m.transposed and (m.kernel_size, m.stride, m.padding) == ((3, 3), (1, 1), (1, 1))


def segments(children: Sequence[nn.Module]) -> list[Segment | int]:
    """The children in order: fused segments, and the index of each child that runs by itself."""
    found: list[Segment | int] = []
    at, count = 0, len(children)
    while at < count:
        fold = "upsample" if at + 1 < count and _doubles(children[at]) and _foldable(children[at + 1]) else ""
        conv = at + bool(fold)
        if not _dense(children[conv]):
            found.append(at)
            at += 1
            continue
        end = conv + 1
        if not fold and end < count and _foldable(children[conv]) and _halves(children[end]):
            fold, end = "average", end + 1
        # a norm with an activation of its own runs by itself
        norm = end if end < count and type(children[end]) in NORMS and getattr(children[end], "activation", None) is None else -1
        end += norm >= 0
        act = end if end < count and type(children[end]) in ACTIVATIONS else -1
        end += act >= 0
        found.append(Segment(at, end, conv, norm, act, fold))
        at = end
    return found


def _activation(m: nn.Module | None) -> tuple[str, float]:
    return ("identity", 0.01) if m is None else (ACTIVATIONS[type(m)], float(getattr(m, "negative_slope", 0.01)))


def _weight(conv: Any, fold: str) -> tuple[Tensor, ConvSpec]:
    """The (possibly folded) weight in fp32 and the geometry it has."""
    if fold == "upsample":
        return fold_upsample(conv.weight), ConvSpec(True, (4, 4), (2, 2), (1, 1))
    if fold == "average":
        return fold_average(conv.weight), ConvSpec(False, (4, 4), (2, 2), (1, 1))
    extra = pair(conv.output_padding) if conv.transposed else (0, 0)
    return conv.weight, ConvSpec(conv.transposed, pair(conv.kernel_size), pair(conv.stride), pair(conv.padding), extra)


def _plain(x: Tensor, w: Tensor, spec: ConvSpec, bias: Tensor | None, act: tuple[str, float], impl: str) -> Tensor:
    w = w if torch.is_autocast_enabled(x.device.type) else w.to(x.dtype)
    if spec.transposed:
        return conv_transpose2d(
            x, w, bias, spec.stride, spec.padding, spec.output_padding, activation=act[0], slope=act[1], impl=impl
        )
    return conv2d(x, w, bias, spec.stride, spec.padding, activation=act[0], slope=act[1], impl=impl)


def _name(spec: ConvSpec) -> str:
    return "conv_transpose_moments" if spec.transposed else "conv_moments"


class FusedConvSequential(nn.Sequential):
    """nn.Sequential whose convolution chains run fused; same children, parameters and keys.

    edge: one of EDGES for every edge, or None for the tuning table's choice (without an entry "separate"). impl: engine of the
    convolutions. After a call `report()` lists every edge.
    """

    edge: str | None = None
    impl: str = "auto"

    @classmethod
    def adopt(cls, module: nn.Sequential, edge: str | None = None, impl: str = "auto") -> FusedConvSequential:
        """`module`, exactly an nn.Sequential, itself made into this class. FastganError for a subclass or an unknown edge."""
        if type(module) is not nn.Sequential:
            raise FastganError(f"only nn.Sequential itself becomes {cls.__name__}, not {type(module).__name__}")
        if edge is not None and edge not in EDGES:
            raise FastganError(f'edge="{edge}": choose one of {", ".join(EDGES)}')
        module.__class__ = cls
        adopted: Any = module
        adopted.edge, adopted.impl = edge, impl
        return adopted

    def report(self) -> list[Edge]:
        """The edges of the last forward call, in order; empty before one, or when it ran child by child."""
        return list(self.__dict__.get("_edges", ()))

    def forward(self, input: Any) -> Any:
        children = list(self._modules.values())
        edges = self.__dict__["_edges"] = []
        # in-place activations of a 3-D input, half-precision tricks and the like are for the children themselves
        if not isinstance(input, Tensor) or input.dim() != 4 or _module._has_any_global_hook():
            return super().forward(input)
        types = [type(c) for c in children]
        plan = self.__dict__.get("_plan")
        # the same objects in the same classes: a replaced child may have another geometry
        if plan is None or plan[0] != types or not all(a is b for a, b in zip(plan[1], children)):
            plan = self.__dict__["_plan"] = (types, children, segments(children))  # type: ignore[arg-type]
        items, x = plan[2], input
        pending: tuple[Tensor, Tensor, str, float] | None = None
        for i, item in enumerate(items):
            if isinstance(item, int):
                x = children[item](x)  # type: ignore[misc]
                continue
            if (
                not all(self._is_plain(children[at]) for at in range(item.start, item.stop))
                or not isinstance(x, Tensor)
                or x.dim() != 4
            ):
                for at in range(item.start, item.stop):
                    x = children[at](x)  # type: ignore[misc]
                continue
            after = items[i + 1] if i + 1 < len(items) else None
            takes = isinstance(after, Segment) and all(self._is_plain(children[at]) for at in range(after.start, after.stop))
            x, pending = self._segment(
                x, children, item, after.conv if takes and isinstance(after, Segment) else -1, pending, edges
            )
        return x

    @staticmethod
    def _is_plain(m: Any) -> bool:
        return not (
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks or "forward" in m.__dict__
        )

    def _segment(
        self,
        x: Tensor,
        children: list[Any],
        item: Segment,
        consumer: int,
        pending: tuple[Tensor, Tensor, str, float] | None,
        edges: list[Edge],
    ) -> tuple[Tensor, tuple[Tensor, Tensor, str, float] | None]:
        conv, norm = children[item.conv], children[item.norm] if item.norm >= 0 else None
        act, slope = _activation(children[item.act] if item.act >= 0 else None)
        w, spec = _weight(conv, item.fold)
        s, t, act_in, slope_in = pending or (None, None, "identity", 0.0)
        if norm is None:
            if pending is None:
                return _plain(x, w, spec, conv.bias, (act, slope), self.impl), None
            groups = s.shape[0] if s is not None and s.dim() == 2 else 1
            out = act if act in OUTPUT_ACTIVATIONS else "identity"
            how = Fusion(act_in, slope_in, out, slope, groups, precision_of(x))
            y = fused(_name(spec), x, w, spec, how, s, t, conv.bias, moments=False, impl=self._engine(x, how))[0]
            return y if out == act else affine_act(y, None, None, activation=act, slope=slope), None
        by_batch = norm.training or norm.running_mean is None
        groups = norms.current_groups() if by_batch and type(norm) is not nn.BatchNorm2d else 1
        size = spec.output_size(x.shape[2], x.shape[3])
        rows = x.shape[0] // groups * size[0] * size[1]
        choice, why = self._choose(x, spec, conv, consumer, rows)
        saved = (
            x.shape[0]
            * conv.out_channels
            * size[0]
            * size[1]
            * x.element_size()
            * (sum(TRAFFIC["one by one"]) - sum(TRAFFIC[choice]))
        )
        names = list(self._modules)
        edges.append(Edge(names[item.conv], names[consumer] if consumer >= 0 else "the end", choice, why, saved))
        if choice == "separate":
            if pending is None:
                y = _plain(x, w, spec, conv.bias, ("identity", 0.0), self.impl)
            else:
                how = Fusion(
                    act_in, slope_in, groups=s.shape[0] if s is not None and s.dim() == 2 else 1, precision=precision_of(x)
                )
                y = fused(_name(spec), x, w, spec, how, s, t, conv.bias, moments=False, impl=self._engine(x, how))[0]
            return self._norm(y, norm, by_batch, groups, act, slope), None
        how = Fusion(act_in, slope_in, groups=groups, precision=precision_of(x))
        y, mean, var = fused(
            _name(spec),
            x,
            w,
            spec,
            how,
            s,
            t,
            conv.bias,
            moments=by_batch,
            g_on_load=choice == "on_load+g",
            impl=self._engine(x, how),
        )
        if mean is not None and var is not None:
            if norm.training and norm.track_running_stats and norm.running_mean is not None:
                stats = [(mean.detach(), var.detach())]
                tracked = [norm.num_batches_tracked] if norm.num_batches_tracked is not None else []
                update_running_stats([norm.running_mean], [norm.running_var], tracked, stats, [rows], [norm.momentum])
            one = groups == 1
            s, t = affine(mean[0] if one else mean, var[0] if one else var, norm.weight, norm.bias, norm.eps)
        else:
            s, t = affine(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
        if choice == "moments":
            return affine_act(y, s, t, activation=act, slope=slope), None
        return y, (s, t, act, slope)

    def _engine(self, x: Tensor, how: Fusion) -> str:
        """Where an edge was chosen that only the fused kernels have, they are the engine wherever they can run."""
        kernels = self.impl == "auto" and x.is_cuda and unsupported(cast_type(x), how.act_out, how.slope_out) is None
        return "triton" if kernels else self.impl

    def _choose(self, x: Tensor, spec: ConvSpec, conv: Any, consumer: int, rows: int) -> tuple[str, str]:
        """(choice, reason) for the edge that this convolution opens."""
        if rows == 1:
            return "separate", "one value a channel: the norm itself raises"
        wanted, why = self.edge, "asked for"
        if wanted is None:
            shape = {
                "rows": x.shape[0] * x.shape[2] * x.shape[3],
                "ci": conv.in_channels,
                "co": conv.out_channels,
                "k": spec.kernel[0],
                "stride": spec.stride[0],
            }
            wanted = tuning.engine("conv_edge", DTYPE_NAMES.get(cast_type(x), str(x.dtype)), shape, x.device)
            why = "tuning table"
            if wanted not in EDGES:
                return "separate", "no tuning entry"
        if wanted.startswith("on_load") and consumer < 0:
            return "moments", "nothing to hand the normalisation on to"
        if x.dtype == torch.float64 and wanted != "separate" and self.edge is None:
            return "separate", "float64"
        return wanted, why

    @staticmethod
    def _norm(y: Tensor, norm: Any, by_batch: bool, groups: int, act: str, slope: float) -> Tensor:
        tracks = norm.training and norm.track_running_stats
        keep = not norm.training or norm.track_running_stats
        tracked = norm.num_batches_tracked if tracks else None
        momentum = 0.0 if norm.momentum is None and tracked is None else norm.momentum
        return batch_norm(
            y,
            norm.running_mean if keep else None,
            norm.running_var if keep else None,
            norm.weight,
            norm.bias,
            by_batch,
            momentum,
            norm.eps,
            activation=act,
            slope=slope,
            groups=groups,
            num_batches_tracked=tracked,
        )
