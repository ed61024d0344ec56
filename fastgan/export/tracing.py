"""A run's generator as one graph of PyTorch operators, all folded that no input changes.

Spectral norm, equalised learning rates and the like are computed once; batch normalisation in eval
mode goes into the weights of the convolution, transposed convolution or linear layer before it, and
stays one scale and shift elsewhere.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from fastgan.errors import FastganError
from fastgan.objectives.base import Step
from fastgan.trainer.reuse.restoring import OpenRun, classes_in_turn

aten = torch.ops.aten
WEIGHTED = (aten.conv2d.default, aten.conv_transpose2d.input, aten.linear.default)
VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)
ASLEEP = ("aten.dropout", "aten.feature_dropout", "aten.scaled_dot_product_attention")
"""Operators that could draw random numbers, and do not in eval mode."""
NORM = aten._native_batch_norm_legit_no_training.default


@dataclass(frozen=True)
class Traced:
    """module: takes `inputs` by position, gives images (B, C, H, W), float32 in [-1, 1] or uint8.
    inputs: an example of each by name, (B, ...). folded: how many normalisations went into the
    layer before them. whole: the same images, from the networks as they were trained."""

    module: fx.GraphModule
    inputs: dict[str, Tensor]
    folded: int
    whole: nn.Module


class _Images(nn.Module):
    """What a run's objective makes of its random inputs and its class, by position."""

    def __init__(self, run: OpenRun, names: list[str], uint8: bool) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(run.nets)
        self.run, self.names, self.uint8 = run, names, uint8

    def forward(self, *given: Tensor) -> Tensor:
        named, run = dict(zip(self.names, given)), self.run
        batch = {name: named.pop(name) for name in ("label",) if name in named}
        step = Step(run.objective, run.nets, 0, batch=batch, noise=named, scalar=run.scalar)
        images = run.objective.sample(step).float()
        if self.uint8:
            images = images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        return images


def trace(
    run: OpenRun, *, batch: int | None = None, uint8: bool = False, labels: bool = True
) -> Traced:
    """The generator of an open run, on the CPU, folded.

    batch: the one batch size it will take; None for any. labels: whether to ask for a class where
    the run has any. Raises FastganError where the networks do
    not fit into a graph, naming why.
    """
    _refuse_given(run)
    count = batch or 2
    inputs = run.noise(count)
    if run.classes and labels:
        inputs["label"] = classes_in_turn(run.facts, count)
    for net in run.nets.values():
        net.eval().requires_grad_(False)
    whole = _Images(run, list(inputs), uint8).eval()
    try:
        program = _export(whole, inputs, batch is None).run_decompositions({})
        module = program.module(check_guards=False)
    except Exception as error:  # somebody's network, and torch.export's own errors of many kinds
        why = " ".join(str(error).split())[:200]
        raise FastganError(
            f"the generator of {run.path} can't be made a graph: {type(error).__name__}: {why}"
        ) from error
    assert isinstance(module, fx.GraphModule)
    _refuse_random(module, run)
    module = _constants(module)
    folded = _norms(module)
    _tidy(module)
    if "label" in inputs and not [*module.graph.find_nodes(op="placeholder")][-1].users:
        return trace(run, batch=batch, uint8=uint8, labels=False)
    return Traced(module, inputs, folded, whole)


def _refuse_given(run: OpenRun) -> None:
    """Say what is wrong with the run itself, and what asks for more than noise and a class."""
    kind = "texts" if run.texts(1, ()) else None
    try:
        run.images(1)
    except FastganError as error:
        if not isinstance(error.__cause__, KeyError):
            raise
        kind = "images"
    if kind is not None:
        raise FastganError(f"{run.path} makes images from {kind}: only --format folder takes it")


def _export(module: nn.Module, inputs: dict[str, Tensor], dynamic: bool) -> Any:
    size = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(
            module,
            tuple(inputs.values()),
            dynamic_shapes=(tuple({0: size} for _ in inputs),) if dynamic else None,
            strict=False,
        )


def exported(traced: Traced) -> torch.export.ExportedProgram:
    """The folded graph as a program of torch.export, for any batch."""
    names, size = list(traced.inputs), torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(
            traced.module,
            tuple(traced.inputs.values()),
            dynamic_shapes=tuple({0: size} for _ in names),
            strict=False,
        )


def layer_of(node: fx.Node) -> str:
    """The innermost layer that a node comes from, such as 'G.main.3 (Upsample)'."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return str(node.target)
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else kind.__name__
    return f"{path.removeprefix('nets.') or 'the objective'} ({kind.rpartition('.')[2]})"


def refuse_complex(traced: Traced, place: str) -> None:
    """Raises FastganError, naming the layer, where a graph computes with complex numbers, which
    Fourier transforms do and `place` can't."""
    for node in traced.module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.is_complex():
            raise FastganError(
                f"layer {layer_of(node)} computes with complex numbers, which {place} can't hold: "
                "use --format torch"
            )


def _refuse_random(module: fx.GraphModule, run: OpenRun) -> None:
    for node in module.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags and not str(node.target).startswith(ASLEEP):
            raise FastganError(
                f"layer {layer_of(node)} of {run.path} draws random numbers of its own: "
                "a file has no place for them"
            )


def _constants(module: fx.GraphModule) -> fx.GraphModule:
    """Everything that no input changes, as a buffer."""
    known: dict[fx.Node, Any] = {}
    kept = nn.Module()
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "get_attr":
            known[node] = _attribute(module, str(node.target))
        elif node.op == "call_function" and all(n in known for n in node.all_input_nodes):
            made = [fx.node.map_arg(part, known.__getitem__) for part in (node.args, node.kwargs)]
            with torch.no_grad():
                known[node] = node.target(*made[0], **made[1])
    plain = {node for node, value in known.items() if not isinstance(value, Tensor)}
    number = 0
    for node in list(graph.nodes):
        if node not in known or all(user in known for user in node.users):
            continue
        value = known[node]
        if isinstance(value, Tensor):
            name = f"c{number}"
            number += 1
            kept.register_buffer(name, value.detach().clone().contiguous())
            with graph.inserting_before(node):
                new = graph.create_node("get_attr", name)
            node.replace_all_uses_with(new, lambda user: user not in known)
        else:
            for user in [u for u in node.users if u not in known]:
                user.args = fx.node.map_arg(user.args, lambda n: known[n] if n in plain else n)
    for node in reversed(list(graph.nodes)):
        if node in known:
            graph.erase_node(node)
    return fx.GraphModule(kept, graph)


def _any_batch(view: Any) -> None:
    """-1 instead of the batch's size, which others would take for the example's."""
    sizes: Any = view.args[1]
    unknown = [i for i, size in enumerate(sizes) if isinstance(size, fx.Node)]
    view.target = aten.reshape.default
    if len(unknown) == 1 and -1 not in sizes:
        view.args = (view.args[0], [-1 if i in unknown else size for i, size in enumerate(sizes)])


def _attribute(module: nn.Module, name: str) -> Any:
    return operator.attrgetter(name)(module)


def _norms(module: fx.GraphModule) -> int:
    graph, folded = module.graph, 0
    node: Any
    for node in list(graph.nodes):
        if node.target != NORM:
            continue
        x = node.args[0]
        scale, shift = _affine(module, node)
        if x.target in WEIGHTED and len(x.users) == 1 and x.args[1].op == "get_attr":
            _into(module, x, scale, shift)
            made, folded = x, folded + 1
        else:
            # of (B, C) or (B, C, H, W)
            shape = (1, -1, *[1] * (node.meta["val"][0].dim() - 2))
            with graph.inserting_before(node):
                wide = [_buffer(module, part.view(shape)) for part in (scale, shift)]
                scaled = graph.call_function(aten.mul.Tensor, (x, wide[0]))
                made = graph.call_function(aten.add.Tensor, (scaled, wide[1]))
            for new in (scaled, made):
                new.meta = {**node.meta, "val": node.meta["val"][0]}
        for user in list(node.users):
            user.replace_all_uses_with(made)
            graph.erase_node(user)
        graph.erase_node(node)
    return folded


def _affine(module: nn.Module, node: Any) -> tuple[Tensor, Tensor]:
    """(scale, shift), float64 (C,), of a normalisation by running statistics."""
    gain, bias, mean, var = (
        None if part is None else _attribute(module, str(part.target)).double()
        for part in node.args[1:5]
    )
    assert mean is not None
    assert var is not None
    scale = (var + node.args[6]).rsqrt()
    scale = scale if gain is None else scale * gain
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def _into(module: fx.GraphModule, layer: Any, scale: Tensor, shift: Tensor) -> None:
    weight = _attribute(module, str(layer.args[1].target)).double()
    if layer.target == aten.conv_transpose2d.input:
        groups = layer.args[6] if len(layer.args) > 6 else 1
        # (inputs, outputs / groups, h, w): the inputs of a group meet that group's outputs
        parts = weight.unflatten(0, (groups, -1)) * scale.view(groups, 1, -1, 1, 1)
        weight = parts.flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    old = layer.args[2] if len(layer.args) > 2 else None
    if old is not None:
        shift = shift + scale * _attribute(module, str(old.target)).double()
    with module.graph.inserting_before(layer):
        made = _buffer(module, weight), _buffer(module, shift)
    layer.args = (layer.args[0], *made, *layer.args[3:])


def _buffer(module: fx.GraphModule, value: Tensor) -> fx.Node:
    name = f"f{sum(1 for _ in module.buffers())}"
    module.register_buffer(name, value.float().contiguous())
    return module.graph.create_node("get_attr", name)


def _tidy(module: fx.GraphModule) -> None:
    """Without steps that change nothing, without buffers that nothing uses, and in words that other
    formats know."""
    node: Any
    for node in list(module.graph.nodes):
        if node.target == aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
            continue
        if node.target == aten._to_copy.default:
            node.target, node.args = aten.to.dtype, (node.args[0], node.kwargs["dtype"])
            node.kwargs = {}
        elif node.target in VIEWS:
            _any_batch(node)
        nothing = node.target in (aten.clone.default, aten.alias.default, aten.detach.default)
        everything = node.target == aten.slice.Tensor and node.args[2:] == (0, 2**63 - 1)
        if nothing or everything or "dropout" in str(node.target):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in module.named_buffers() if name not in used]:
        delattr(module, name)
    module.recompile()
