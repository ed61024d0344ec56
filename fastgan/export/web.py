"""A page that runs a generator in the browser, opened from disk: the network and its weights, as
16-bit floats, lie in it beside a small engine for the few operators it needs."""

from __future__ import annotations

import base64
import operator
import warnings
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx

from fastgan import files
from fastgan.errors import FastganError
from fastgan.export.tracing import Traced, aten, layer_of, refuse_complex, trace
from fastgan.reports.document import asset, document, json_text
from fastgan.trainer.reuse.restoring import OpenRun, open_run

LARGEST = 24_000_000
"""Weights of one page: 48 MB before base64."""

UNARY = {
    aten.relu.default: "relu",
    aten.tanh.default: "tanh",
    aten.sigmoid.default: "sigmoid",
    aten.silu.default: "silu",
    aten.rsqrt.default: "rsqrt",
    aten.square.default: "square",
    aten.sqrt.default: "sqrt",
    aten.exp.default: "exp",
    aten.neg.default: "neg",
    aten.softplus.default: "softplus",
}
BINARY = {
    aten.add.Tensor: "add",
    aten.sub.Tensor: "sub",
    aten.mul.Tensor: "mul",
    aten.div.Tensor: "div",
    aten.eq.Tensor: "eq",
}
POOLS = {
    aten.adaptive_avg_pool2d.default: "average",
    aten.avg_pool2d.default: "average",
    aten.max_pool2d.default: "most",
}
SAME = (
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.default,
    aten.to.dtype,
    aten.unflatten.int,
    aten.flatten.using_ints,
)
"""Operators that leave all numbers where they are."""

VIEWS = (
    aten.transpose.int,
    aten.permute.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.expand.default,
)
PARTS = (aten.split_with_sizes.default, aten.split.Tensor, aten.chunk.default, aten.unbind.int)
"""Operators that pick numbers by strides; those of PARTS give several views."""


def export_web(run: str | Path, out: Path, *, trust: bool = False) -> tuple[Traced, int]:
    """Write the page; returns what it holds and the largest difference, in 255ths, between what
    PyTorch makes of its rounded weights and of the run's own.

    The page itself compares what it makes with PyTorch's pixels, and says so. trust: as for `load`.
    Raises FastganError, naming the layer, where the page has no word for one.
    """
    files.refuse_existing(out)
    opened = open_run(run, device="cpu", trust=trust)
    opened.objective.medium.only_images("--format web")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exporters, about their own future
        traced = trace(opened, batch=1)
    refuse_complex(traced, "a page")
    program, weights = _program(traced, opened)
    with torch.no_grad():
        wanted = _levels(traced.whole(*traced.inputs.values()))
        _round(traced.module)
        difference = int((_levels(traced.module(*traced.inputs.values())) - wanted).abs().max())
    program["expected"] = base64.b64encode(wanted.to(torch.uint8).numpy().tobytes()).decode()
    page = _page(Path(run).name or "generator", program, weights)
    with files.explained(f"can't write {out}"):
        out.parent.mkdir(parents=True, exist_ok=True)
    files.replace(out, page.encode(errors="backslashreplace"))
    return traced, difference


def _levels(images: Tensor) -> Tensor:
    return images[0].add(1).mul(127.5).round().clamp(0, 255).int()


def _round(module: fx.GraphModule) -> None:
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(buffer.half().float())


def _program(traced: Traced, run: OpenRun) -> tuple[dict[str, Any], bytes]:
    """({"inputs", "nodes", "weights", ...}, all weights as little-endian float16)."""
    module = traced.module
    number: dict[fx.Node, int] = {}
    nodes: list[dict[str, Any]] = []
    weights, data = [], bytearray()
    result = None
    names = iter(traced.inputs)
    for node in module.graph.nodes:
        if node.op == "output":
            result = node.args[0][0] if isinstance(node.args[0], (tuple, list)) else node.args[0]
            continue
        if node.target in PARTS:
            continue  # each view is a node of its own
        number[node] = len(number)
        made: dict[str, Any]
        if node.op == "placeholder":
            name = next(names)
            made = {"op": "input", "name": name}
            shape = traced.inputs[name].shape
        elif node.op == "get_attr":
            value = module.get_buffer(str(node.target)).detach()
            shape = value.shape
            if not bool(value.float().half().isfinite().all()):
                raise FastganError(f"a weight of {run.path} is too large for 16 bits")
            made = {"op": "weight", "at": len(data) // 2}
            data += value.float().half().contiguous().numpy().astype("<f2").tobytes()
            weights.append(value.numel())
        else:
            made = _operator(node, number, run)
            shape = node.meta["val"].shape
        nodes.append({**made, "shape": [int(side) for side in shape]})
    if sum(weights) > LARGEST:
        raise FastganError(
            f"{sum(weights):,} weights are too many for a page: {LARGEST:,} at most; --format onnx "
            "takes them"
        )
    assert result is not None
    spec = run.objective.noise
    inputs = [
        {
            "name": name,
            "shape": list(value.shape),
            "kind": "label" if name == "label" else spec[name].kind,
            "low": getattr(spec.get(name), "low", 0),
            "high": getattr(spec.get(name), "high", 0),
            "classes": run.classes if name == "label" else getattr(spec.get(name), "classes", 0),
            "first": [round(float(number), 4) for number in value.flatten().tolist()],
        }
        for name, value in traced.inputs.items()
    ]
    # what the page starts from is what it is compared by: the same digits in both
    for given, (name, value) in zip(inputs, traced.inputs.items()):
        rounded = torch.tensor(given["first"]).view(value.shape).to(value.dtype)
        traced.inputs[name] = rounded
    return {"inputs": inputs, "nodes": nodes, "result": number[result]}, bytes(data)


def _operator(node: fx.Node, number: dict[fx.Node, int], run: OpenRun) -> dict[str, Any]:
    given: Any = node.args
    target: Any = node.target

    def at(i: int, default: Any = None) -> Any:
        return given[i] if len(given) > i else default

    def of(part: Any) -> Any:
        return number[part] if isinstance(part, fx.Node) else part

    if target in UNARY and all(default in (1, 20) for default in given[1:]):
        return {"op": UNARY[target], "in": [of(given[0])]}
    if target == aten.leaky_relu.default:
        return {"op": "leaky_relu", "in": [of(given[0])], "slope": at(1, 0.01)}
    if target in BINARY and node.kwargs.get("alpha", 1) == 1:
        return _binary(BINARY[target], given, of)
    if target in SAME:
        return {"op": "same", "in": [of(given[0])]}
    if target in VIEWS or (target == operator.getitem and given[0].target in PARTS):
        return _strided(node, of)
    if target == aten.mean.dim:
        x = given[0].meta["val"]
        return {"op": "mean", "in": [of(given[0])], "kept": [*x.mean(given[1], True).shape]}
    if target == aten.glu.default:
        return {"op": "glu", "in": [of(given[0])], "dim": at(1, -1)}
    if target == aten.lerp.Tensor:
        return {"op": "lerp", "in": [of(part) for part in given]}
    if target == aten.scaled_dot_product_attention.default and not any(given[3:]):
        scale = node.kwargs.get("scale") or given[0].meta["val"].shape[-1] ** -0.5
        if not node.kwargs.get("is_causal") and not node.kwargs.get("enable_gqa"):
            return {"op": "attention", "in": [of(part) for part in given[:3]], "scale": scale}
    if target in POOLS and (each := _tiles(node)):
        return {"op": POOLS[target], "in": [of(given[0])], "each": each}
    if target == aten.upsample_bilinear2d.vec and not given[2]:
        return {"op": "bilinear", "in": [of(given[0])]}
    if target == aten.cat.default:
        return {"op": "cat", "in": [of(part) for part in given[0]], "dim": at(1, 0)}
    if target == aten.embedding.default:
        return {"op": "embedding", "in": [of(given[0]), of(given[1])]}
    if target == aten.linear.default:
        return {"op": "linear", "in": [of(part) for part in given[:3] if part is not None]}
    layer = {
        aten.conv2d.default: ("conv", (3, 4, 5, 6)),
        aten.conv_transpose2d.input: ("conv_transpose", (3, 4, 7, 6)),
    }.get(target)
    if layer is not None and not isinstance(at(layer[1][1], 0), str):
        stride, padding, dilation, groups = (at(i) for i in layer[1])
        return {
            "op": layer[0],
            "in": [of(part) for part in given[:3] if part is not None],
            "stride": _pair(stride, 1),
            "padding": _pair(padding, 0),
            "dilation": _pair(dilation, 1),
            "groups": groups or 1,
        }
    if target == aten.upsample_nearest2d.vec:
        return {"op": "nearest", "in": [of(given[0])]}
    raise FastganError(
        f"layer {layer_of(node)} of {run.path} needs {_name(target)}, which the page "
        "has no word for: use --format onnx"
    )


def _strided(node: fx.Node, of: Callable[[Any], Any]) -> dict[str, Any]:
    """Where the numbers of a view lie in its input, as the operator itself finds them."""
    picked, call = None, node
    if node.target == operator.getitem:
        call, picked = cast(tuple[fx.Node, int], node.args)
    source = cast(fx.Node, call.args[0])
    shape = source.meta["val"].shape
    target: Any = call.target
    view = target(torch.arange(shape.numel()).view(shape), *call.args[1:], **call.kwargs)
    view = view if picked is None else view[picked]
    strides = list(view.stride())
    return {"op": "strided", "in": [of(source)], "strides": strides, "from": view.storage_offset()}


def _tiles(node: fx.Node) -> list[int] | None:
    """The sides of the tiles that a pooling puts side by side over the whole image; None where
    tiles overlap or leave something out."""
    given: Any = node.args
    (high, wide), (h, w) = given[0].meta["val"].shape[-2:], node.meta["val"].shape[-2:]
    each = [high // h, wide // w]
    if [h * each[0], w * each[1]] != [high, wide]:
        return None
    if node.target != aten.adaptive_avg_pool2d.default:
        stride = _pair(given[2] if len(given) > 2 and given[2] else given[1], 1)
        plain = all(part in ([0, 0], [1, 1], 0, 1, False, True, None) for part in given[3:])
        if _pair(given[1], 1) != each or stride != each or not plain:
            return None
    return each


def _name(target: Any) -> str:
    return str(target).removeprefix("aten.").split(".")[0]


def _binary(name: str, given: Any, of: Callable[[Any], Any]) -> dict[str, Any]:
    if isinstance(given[0], fx.Node) and isinstance(given[1], fx.Node):
        return {"op": name, "in": [of(given[0]), of(given[1])]}
    if isinstance(given[0], fx.Node):
        return {"op": name, "in": [of(given[0])], "right": float(given[1])}
    return {"op": name, "in": [of(given[1])], "left": float(given[0])}


def _pair(value: Any, default: int) -> list[int]:
    pair = [default] if value is None else [value] if isinstance(value, int) else list(value)
    return pair * 2 if len(pair) == 1 else pair


def _page(name: str, program: dict[str, Any], weights: bytes) -> str:
    body = f"""<h1>{escape(name)}</h1>
<main>
<canvas id="image" role="img" aria-label="the generated image"></canvas>
<div>
<p><button id="again">another</button> <button id="save">download PNG</button></p>
<div id="inputs"></div>
<p id="check" role="status"></p>
</div>
</main>
<script type="application/json" id="program">{json_text(program)}</script>
<script type="text/plain" id="weights">{base64.b64encode(weights).decode()}</script>"""
    return document(
        name,
        body,
        style=asset("fastgan.export", "web.css"),
        script=asset("fastgan.export", "web.js"),
        allows="img-src data: blob:",
    )
