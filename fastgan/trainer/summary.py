"""What a dry run prints: networks, parameters, shapes and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastgan.objectives.base import Step, draw

if TYPE_CHECKING:
    from fastgan.trainer.trainer import Trainer


def summary(trainer: Trainer) -> str:
    """A table for each network: layers, output shapes, parameters; then bytes of weights, optimiser
    and averages, and of a batch's activations.
    """
    lines: list[str] = []
    stage = trainer.active
    shapes: dict[str, list[tuple[str, str, tuple[int, ...], int]]] = {
        name: [] for name in stage.nets
    }
    hooks = []
    for name, net in stage.nets.items():
        for layer_name, layer in net.named_modules():
            if not list(layer.children()):
                hooks.append(layer.register_forward_hook(_recorder(shapes[name], layer_name)))
    batch = stage.batch(0)
    position = torch.zeros((), dtype=torch.int64, device=trainer.device)
    noise = draw(stage.stage.objective.noise, stage.seed, position, trainer.options.batch_size)
    step = Step(
        stage.stage.objective,
        stage.nets,
        stage.seed,
        batch=batch,
        noise=noise,
        scalar=stage.scalars(0),
        position=position,
    )
    with torch.no_grad(), torch.random.fork_rng([]):
        fake = stage.stage.objective.generate(step)
        if "D" in stage.nets and not shapes["D"]:
            conditional = getattr(stage.stage.objective, "conditional", False)
            try:
                given = (batch["label"],) if conditional else ()
                stage.nets["D"](fake, *given)
            except Exception:  # one that judges more than an image: its layers are not listed
                shapes["D"].clear()
    for hook in hooks:
        hook.remove()
    activations = 0
    for name, rows in shapes.items():
        total = sum(p.numel() for p in stage.nets[name].parameters())
        lines.append(f"network {name}: {total:,} parameters")
        for layer, kind, shape, count in rows:
            lines.append(f"  {layer:<12} {kind:<18} {'x'.join(map(str, shape)):<20} {count:>12,}")
            activations += 4 * int(torch.Size(shape).numel())
    parameters = sum(p.numel() for net in stage.nets.values() for p in net.parameters())
    averaged = sum(p.numel() for net in stage.ema.nets.values() for p in net.parameters())
    lines.append(
        f"memory: weights, gradients and Adam {megabytes(16 * parameters)}, averages "
        f"{megabytes(4 * averaged)}, "
    )
    lines[-1] += f"activations of one pass about {megabytes(activations)}"
    return "\n".join(lines)


def _recorder(rows: list[tuple[str, str, tuple[int, ...], int]], name: str):
    def hook(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            rows.append(
                (
                    name,
                    type(layer).__name__,
                    tuple(output.shape),
                    sum(p.numel() for p in layer.parameters()),
                )
            )

    return hook


def megabytes(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
