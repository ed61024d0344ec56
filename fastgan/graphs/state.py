"""What a training step changes: taken, put back, and kept as it was captured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError
from fastgan.ops.adam.optimizer import FlatAdam


class State:
    """Everything a step changes: parameters, buffers, optimiser state, schedulers' lr, loss scales,
    random generators; taken and put back in place.
    """

    def __init__(self, holders: Iterable[Any]) -> None:
        self.modules: list[nn.Module] = []
        self.optimizers: list[torch.optim.Optimizer] = []
        self.others: list[Tensor] = []
        self.scalers: list[torch.amp.GradScaler] = []
        for holder in holders:
            if isinstance(holder, nn.Module):
                self.modules.append(holder)
            elif isinstance(holder, torch.optim.Optimizer):
                self.optimizers.append(holder)
            elif isinstance(holder, Tensor):
                self.others.append(holder)
            elif isinstance(holder, torch.amp.GradScaler):
                holder.scale(
                    torch.ones((), device=holder._device)
                )  # its tensors are born at the first use
                self.scalers.append(holder)
            else:
                raise FastganError(
                    "state= takes modules, optimizers, GradScalers and tensors, not a "
                    f"{type(holder).__name__}"
                )

    def tensors(self) -> list[Tensor]:
        """The tensors that live now, each once, in a fixed order."""
        found: dict[int, Tensor] = {}
        for module in self.modules:
            for value in [*module.parameters(), *module.buffers()]:
                found[id(value)] = value
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for value in [*group["params"], *group.values()]:
                    if isinstance(value, Tensor):
                        found[id(value)] = value
            for entries in optimizer.state.values():
                for value in entries.values():
                    if isinstance(value, Tensor):
                        found[id(value)] = value
            if isinstance(optimizer, FlatAdam):
                found |= {
                    id(value): value
                    for value in (optimizer.ema, optimizer.low)
                    if value is not None
                }
        for value in [
            *self.others,
            *(t for s in self.scalers for t in (s._scale, s._growth_tracker) if t is not None),
        ]:
            found[id(value)] = value
        return list(found.values())

    def take(self) -> dict[str, Any]:
        """A copy of the state."""
        return {
            "tensors": [(t, t.detach().clone()) for t in self.tensors()],
            "rng": torch.random.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    @torch.no_grad()
    def restore(self, taken: Mapping[str, Any]) -> None:
        """Put a taken state back into the same tensors; optimiser state born since is set to zero,
        which is how optimisers begin (`require_capturable` refuses those that do not).
        """
        old = {id(t) for t, _ in taken["tensors"]}
        for value, kept in taken["tensors"]:
            value.copy_(kept)
        for value in self.tensors():
            if id(value) not in old:
                value.zero_()
        for optimizer in self.optimizers:
            if isinstance(optimizer, FlatAdam):
                optimizer.sync_hyper()
        torch.random.set_rng_state(taken["rng"])
        if taken["cuda_rng"]:
            torch.cuda.set_rng_state_all(taken["cuda_rng"])


def clear_gradients(state: State) -> None:
    """Gradients must be born inside the capture, so that they live in the graph's memory."""
    for module in state.modules:
        for p in module.parameters():
            p.grad = None
