"""The first look at a GPU: settles, layer by layer, who applies the normalisation (design: the
convolution or a pass of its own).

    python -m fastgan.bench.gpu --stages look
        as a stage, with a budget
    TRITON_INTERPRET=1 python -m fastgan.bench.experiments.first_gpu_look --toy  the code of every
    row at toy size, on any CPU

Questions, in order of worth: what the machine can do (ceilings); how fast cuDNN's convolutions are
on the layers that count; what the statistics, apply and gradient passes cost; and whether the fused
convolutions (moments in the epilogue, normalisation and activation on load, gradient formed on
load) beat a plain convolution with passes. Layers: DCGAN-64 G L2-L4 and D L2-L4, batch 128 and
1024, bf16, channels_last.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fastgan.bench.gpu import StageRow
from fastgan.bench.store import Store
from fastgan.kernels.conv.dgrad import conv_dgrad
from fastgan.kernels.conv.forward import conv_forward
from fastgan.kernels.conv.moments import form_gradient, merge_moments
from fastgan.kernels.conv.spec import ConvSpec, Fusion
from fastgan.kernels.conv.wgrad import conv_wgrad
from fastgan.kernels.norm import backward as norm_backward
from fastgan.kernels.norm import forward as norm
from fastgan.kernels.norm import moments
from fastgan.verify.check import one_line
from fastgan.verify.differences import relative_l2
from fastgan.verify.timing import ceilings, gpu_state, measure, rotations

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYERS = {  # name: (transposed, channels in, channels out, side in)
    "G L2": (True, 512, 256, 4),
    "G L3": (True, 256, 128, 8),
    "G L4": (True, 128, 64, 16),
    "D L2": (False, 64, 128, 32),
    "D L3": (False, 128, 256, 16),
    "D L4": (False, 256, 512, 8),
}
WRONG = (
    6e-3  # relative L2 against fp32: a configuration beyond it is a wrong answer, not a fast one
)
EPS = 1e-5


class Layer:
    """Rotating inputs of one k4 s2 p1 layer, and every call that is timed on them."""

    def __init__(self, name: str, batch: int, toy: bool) -> None:
        transposed, ci, co, side = LAYERS[name]
        if toy:
            ci, co, side, batch = 12, 18, 4, 2
        self.spec = ConvSpec(transposed, (4, 4), (2, 2), (1, 1))
        out = self.spec.output_size(side, side)
        self.size = (side, side)
        self.dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
        generator = torch.Generator(DEVICE).manual_seed(0)
        normal = lambda *shape, dtype=torch.float32: torch.randn(
            shape, generator=generator, device=DEVICE, dtype=dtype
        )
        draw = lambda *shape: normal(*shape, dtype=self.dtype).contiguous(
            memory_format=torch.channels_last
        )
        elements = batch * (ci * side**2 + co * out[0] * out[1])
        self.sets = 1 if toy else rotations(elements * self.dtype.itemsize, at_most=8)
        self.x = [draw(batch, ci, side, side) for _ in range(self.sets)]
        self.dy = [draw(batch, co, *out) for _ in range(self.sets)]
        self.y = [draw(batch, co, *out) for _ in range(self.sets)]
        self.w = draw(*((ci, co) if transposed else (co, ci)), 4, 4) * 0.05
        vector = lambda c, mean: normal(c) * 0.2 + mean
        self.s, self.t, self.a, self.b = (
            vector(ci, 1.0),
            vector(ci, 0.0),
            vector(co, 0.0) * 1e-2,
            vector(co, 0.0) * 1e-2,
        )
        self.gamma, self.beta = vector(co, 1.0), vector(co, 0.0)
        self.flops = self.spec.flops(batch, side, side, ci, co)
        self.large = (
            batch * co * out[0] * out[1] * self.dtype.itemsize
        )  # bytes of y: what the passes read and write

    def rows(self, value: Tensor) -> Tensor:
        """The [ROWS, C] view of an activation, as the norm kernels take it."""
        return value.permute(0, 2, 3, 1).reshape(-1, value.shape[1])

    def cudnn(self) -> dict[str, Callable[[int], Any]]:
        """ATen's convolution and its two gradients."""
        tail = ([2, 2], [1, 1], [1, 1], self.spec.transposed, [0, 0], 1)
        back = lambda i, mask: torch.ops.aten.convolution_backward(
            self.dy[i], self.x[i], self.w, None, *tail, mask
        )
        return {
            "fprop": lambda i: torch.ops.aten.convolution(self.x[i], self.w, None, *tail),
            "dgrad": lambda i: back(i, [True, False, False])[0],
            "wgrad": lambda i: back(i, [False, True, False])[1],
        }

    def fused(self) -> dict[str, tuple[str, Callable[[int, Any], Any]]]:
        """name -> (tuning name, call of input set and configuration); each returns its main result
        first."""
        plain, act = Fusion(), Fusion(act_in="relu")
        load: dict[str, Any] = {"s": self.s, "t": self.t}
        two = lambda i: {"y": self.y[i], "a": self.a, "b": self.b}
        forward = lambda i, how, cfg, **kw: conv_forward(
            self.x[i], self.w, self.spec, how, config=cfg, **kw
        )
        dgrad = lambda i, how, cfg, **kw: conv_dgrad(
            self.dy[i], self.w, self.spec, self.size, how, config=cfg, **kw
        )
        wgrad = lambda i, how, cfg, **kw: conv_wgrad(
            self.x[i], self.dy[i], self.spec, how, config=cfg, **kw
        )
        return {
            "forward": ("conv_forward", lambda i, c: forward(i, plain, c)),
            "forward +moments": ("conv_forward", lambda i, c: forward(i, plain, c, moments=True)),
            "forward +moments +prologue": (
                "conv_forward_prologue",
                lambda i, c: forward(i, act, c, moments=True, **load),
            ),
            "dgrad": ("conv_dgrad", lambda i, c: dgrad(i, plain, c)),
            "dgrad +epilogue": ("conv_dgrad", lambda i, c: dgrad(i, act, c, x=self.x[i], **load)),
            "dgrad two +epilogue": (
                "conv_dgrad_two",
                lambda i, c: dgrad(i, act, c, x=self.x[i], **load, **two(i)),
            ),
            "wgrad 0": ("conv_wgrad", lambda i, c: wgrad(i, plain, c)),
            "wgrad 1": ("conv_wgrad_z", lambda i, c: wgrad(i, act, c, **load)),
            "wgrad 2": ("conv_wgrad_z_g", lambda i, c: wgrad(i, act, c, **load, **two(i))),
        }

    def passes(self) -> dict[str, tuple[int, Callable[[int], Any]]]:
        """name -> (bytes an ideal pass moves, call)."""
        stats = moments.moments(self.rows(self.y[0]), 1)
        mean, var = stats[0, 0], stats[1, 0]
        apply = lambda i: norm.apply(
            self.rows(self.y[i]), self.gamma, self.beta, mean, var, EPS, "relu", 0.0
        )
        norm_back = lambda i: norm_backward.train_backward(
            self.rows(self.dy[i]),
            self.rows(self.y[i]),
            self.gamma,
            self.beta,
            stats,
            EPS,
            "relu",
            0.0,
        )
        dmean, dvar = self.a[None], self.b[None]
        return {
            "statistics pass": (self.large, lambda i: moments.moments(self.rows(self.y[i]), 1)),
            "apply pass": (2 * self.large, apply),
            "norm backward": (5 * self.large, norm_back),
            "g pass": (
                3 * self.large,
                lambda i: form_gradient(self.dy[i], self.y[i], mean[None], dmean, dvar)[0],
            ),
        }

    def gold(self, kind: str) -> Tensor:
        """The result of a fused call on input set 0 in fp32 without TF32."""
        before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
        try:
            x, w, dy = self.x[0].float(), self.w.float(), self.dy[0].float()
            vec = lambda v: v[None, :, None, None]
            if "prologue" in kind or kind in ("wgrad 1", "wgrad 2"):
                x = torch.relu(x * vec(self.s) + vec(self.t)).to(self.dtype).float()
            if kind in ("dgrad two +epilogue", "wgrad 2"):
                dy = (dy + vec(self.a) + vec(self.b) * self.y[0].float()).to(self.dtype).float()
            tail = ([2, 2], [1, 1], [1, 1], self.spec.transposed, [0, 0], 1)
            if "forward" in kind:
                return torch.ops.aten.convolution(x, w, None, *tail)
            dx, dw, _ = torch.ops.aten.convolution_backward(
                dy, x, w, None, *tail, [True, True, False]
            )
            if "wgrad" in kind:
                return dw
            if "epilogue" in kind:
                dx = dx * (self.x[0].float() * vec(self.s) + vec(self.t) > 0) * vec(self.s)
            return dx
        finally:
            torch.backends.cudnn.allow_tf32 = before


def time_sets(sets: int, call: Callable[[int], Any]) -> float:
    """Milliseconds of a call over rotating input sets."""
    return measure([lambda i=i: call(i) for i in range(sets)], samples=7, sample_ms=4.0).ms


def cudnn_row(name: str, batch: int, toy: bool) -> dict[str, Any]:
    torch.backends.cudnn.benchmark = True
    layer = Layer(name, batch, toy)
    ms = {kind: time_sets(layer.sets, call) for kind, call in layer.cudnn().items()}
    tflops = {kind: layer.flops / v / 1e9 for kind, v in ms.items()}
    return {
        "ms": ms,
        "tflops": tflops,
        "shown": ", ".join(f"{k} {ms[k]:.4f} ms {tflops[k]:.0f} TFLOP/s" for k in ms),
    }


def pass_row(name: str, batch: int, toy: bool) -> dict[str, Any]:
    layer = Layer(name, batch, toy)
    ms, rate = {}, {}
    for kind, (moved, call) in layer.passes().items():
        ms[kind] = time_sets(layer.sets, call)
        rate[kind] = moved / ms[kind] / 1e6
    return {
        "ms": ms,
        "gbs": rate,
        "shown": ", ".join(f"{k} {ms[k]:.4f} ms {rate[k]:.0f} GB/s" for k in ms),
    }


def merge_row(name: str, batch: int, toy: bool) -> dict[str, Any]:
    layer = Layer(name, batch, toy)
    tiles = conv_forward(layer.x[0], layer.w, layer.spec, moments=True)[1]
    assert tiles is not None
    ms = time_sets(1, lambda i: merge_moments(*tiles))
    return {"ms": {"merge": ms}, "shown": f"{ms:.4f} ms"}


def settle() -> None:
    """Raises again where a failed launch took the context along: the stage then starts over behind
    this row."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def fused_row(name: str, batch: int, kind: str, toy: bool) -> dict[str, Any]:
    """Every candidate configuration of one fused call: checked against fp32, then timed."""
    from fastgan.verify.cases.conv_launches import CANDIDATES, WIDE

    layer = Layer(name, batch, toy)
    tuned, call = layer.fused()[kind]
    # without orders: a reduction over pixels has none
    wide = [c for c in WIDE if ("ORDER" in CANDIDATES[tuned][0]) == ("ORDER" in c)]
    configs: list[Any] = [None, *([] if toy else [*CANDIDATES[tuned], *wide])]
    gold = layer.gold(kind)
    tried = []
    for config in configs:
        entry: dict[str, Any] = {"config": dict(config) if config else "default"}
        try:
            result = call(0, config)
            entry["error"] = relative_l2(result[0] if isinstance(result, tuple) else result, gold)
            if entry["error"] < WRONG:
                entry["ms"] = time_sets(layer.sets, lambda i, config=config: call(i, config))
        except (
            Exception
        ) as e:  # Triton's own errors (out of resources, ptxas) derive from Exception alone
            settle()
            entry["failed"] = one_line(e)
        tried.append(entry)
    timed = [e for e in tried if "ms" in e]
    wrong = [e for e in tried if e.get("error", 0) >= WRONG]
    if not timed:
        return {"failed": f"no configuration is right: {tried}"[:300]}
    best = min(timed, key=lambda e: e["ms"])
    rate = layer.flops / best["ms"] / 1e9
    shown = (
        f"{best['ms']:.4f} ms {rate:.0f} TFLOP/s error {best['error']:.1e} {best['config']}, "
        f"{len(timed)} of {len(tried)} timed"
    )
    return {
        "ms": {kind: best["ms"]},
        "best": best,
        "tried": tried,
        "wrong": len(wrong),
        "shown": shown,
    }


def ceilings_row(toy: bool) -> dict[str, Any]:
    found = ceilings(toy)
    shown = (
        f"copy {found['copy_gbs']:.0f} GB/s read+write, bf16 matmul "
        f"{found['matmul_tflops']:.0f} TFLOP/s"
    )
    return {**found, "state": gpu_state(), "shown": shown}


KINDS = (
    *("forward", "forward +moments", "forward +moments +prologue"),
    *("dgrad", "dgrad +epilogue", "dgrad two +epilogue"),
    *("wgrad 0", "wgrad 1", "wgrad 2"),
)


def rows(toy: bool) -> Iterable[StageRow]:
    """Ceilings; cuDNN and the passes on every layer; then the fused convolutions, generator
    first."""
    yield StageRow("ceilings", lambda: ceilings_row(toy), 10, ours=False)
    batches = (2,) if toy else (128, 1024)
    names = ("G L2", "D L2") if toy else tuple(LAYERS)
    for batch in batches:
        for name in names:
            yield StageRow(
                f"{name} batch {batch} | cuDNN",
                lambda a=(name, batch, toy): cudnn_row(*a),
                10,
                ours=False,
            )
    for batch in batches:
        for name in names:
            yield StageRow(
                f"{name} batch {batch} | passes", lambda a=(name, batch, toy): pass_row(*a), 15
            )
    for batch in batches:
        for name in names:
            yield StageRow(
                f"{name} batch {batch} | merge", lambda a=(name, batch, toy): merge_row(*a), 8
            )
            for kind in KINDS:
                yield StageRow(
                    f"{name} batch {batch} | {kind}",
                    lambda a=(name, batch, kind, toy): fused_row(*a),
                    20,
                )


# what a layer's forward and backward cost, by who applies the normalisation; the first of each is
# the baseline
SUMS = {
    "forward": {
        "cuDNN, statistics, apply": ("fprop", "statistics pass", "apply pass"),
        "ours +moments, merge, apply": ("forward +moments", "merge", "apply pass"),
        "ours +moments +prologue, merge": ("forward +moments +prologue", "merge"),
    },
    "backward": {
        "norm backward, cuDNN": ("norm backward", "dgrad@cuDNN", "wgrad@cuDNN"),
        "g pass, dgrad +epilogue, cuDNN wgrad": ("g pass", "dgrad +epilogue", "wgrad@cuDNN"),
        "g pass, dgrad +epilogue, wgrad 0": ("g pass", "dgrad +epilogue", "wgrad 0"),
        "g pass, dgrad +epilogue, wgrad 1": ("g pass", "dgrad +epilogue", "wgrad 1"),
        "two-tensor dgrad +epilogue, wgrad 2": ("dgrad two +epilogue", "wgrad 2"),
    },
}


def summary(store: Store) -> None:
    """For each layer the sums that decide, against cuDNN with passes."""
    layers: dict[str, dict[str, float]] = {}
    for r in store.stage("look"):
        where, _, what = r["key"].partition(" | ")
        for kind, ms in r.get("ms", {}).items():
            layers.setdefault(where, {})[
                f"{kind}@cuDNN" if what == "cuDNN" and kind != "fprop" else kind
            ] = ms
    for where, ms in layers.items():
        print(f"\n{where}")
        for way, options in SUMS.items():
            base = math.nan
            for i, (title, parts) in enumerate(options.items()):
                if not all(p in ms for p in parts):
                    print(f"  {way:8} {title:46} not measured")
                    continue
                total = sum(ms[p] for p in parts)
                base = total if i == 0 else base
                print(
                    f"  {way:8} {title:46} {total:8.4f} ms  {base / total:5.2f}x   "
                    f"({' + '.join(f'{ms[p]:.4f}' for p in parts)})"
                )


def main() -> None:
    """Every row at once, without a store."""
    p = argparse.ArgumentParser(
        "python -m fastgan.bench.experiments.first_gpu_look",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--toy", action="store_true")
    for row in rows(p.parse_args().toy or DEVICE == "cpu"):
        values = row.run()
        print(f"{row.key}: {values.get('failed') or values.get('shown') or values}", flush=True)


if __name__ == "__main__":
    main()
