"""Optimisers and the exponential moving average of the generator."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fastgan import arguments
from fastgan.errors import FastganError
from fastgan.ops.average import average_, average_rows

Schedule = Callable[[int], float]
OptimizerSpec = torch.optim.Optimizer | Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def adam(
    lr: float = 2e-4, betas: tuple[float, float] = (0.5, 0.999), eps: float = 1e-8
) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    """A factory of torch's fused Adam with DCGAN's options (Radford et al. 2016)."""
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, fused=True)


class SGD(torch.optim.SGD):
    """torch's SGD with plain momentum whose lr and momentum may also be 0-dim device tensors, which
    a captured step follows.

    Polyak 1964: buffer = momentum * buffer + gradient; parameter -= lr * buffer.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.0
    ) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]  # torch's stub has two overloads
        """One update; with Python numbers torch's own."""
        if not any(
            isinstance(group[key], torch.Tensor)
            for group in self.param_groups
            for key in ("lr", "momentum")
        ):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            buffers = []
            for p in parameters:
                if self.state[p].get("momentum_buffer") is None:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                buffers.append(self.state[p]["momentum_buffer"])
            if parameters:
                torch._foreach_mul_(buffers, group["momentum"])
                torch._foreach_add_(buffers, [p.grad for p in parameters])
                torch._foreach_sub_(parameters, torch._foreach_mul(buffers, group["lr"]))
        return loss


def build_optimizers(
    spec: Mapping[str, OptimizerSpec] | OptimizerSpec | None,
    nets: Mapping[str, nn.Module],
    trained: Collection[str] | None = None,
) -> dict[str, torch.optim.Optimizer]:
    """One optimiser for each network that has trainable parameters and is among `trained` (None:
    all).

    spec: {network: optimiser or factory(parameters)}, or one factory for all, or None for
    Adam(2e-4, (0.5, 0.999)); networks not named get the default.
    Raises FastganError for a name that is no network, and for an optimiser that does not hold its
    network's parameters.
    """
    if isinstance(spec, torch.optim.Optimizer):
        raise FastganError(
            "one optimizer can't serve two networks: pass optimizers={'G': ..., 'D': ...}"
        )
    for name, one in spec.items() if isinstance(spec, Mapping) else [("", spec)]:
        if one is not None and not callable(one) and not isinstance(one, torch.optim.Optimizer):
            raise FastganError(
                f"optimizers{f'[{name!r}]' * bool(name)} must be a function from parameters to an "
                f"optimizer, or one, not {arguments.shown(one)}: for Adam, "
                "lambda parameters: torch.optim.Adam(parameters, 2e-4, (0.5, 0.999))"
            )
    by_name: Mapping[str, Any] = spec if isinstance(spec, Mapping) else dict.fromkeys(nets, spec)
    for name in by_name:
        arguments.network(name, nets, "optimizers names")
    built = {}
    for name, net in nets.items():
        parameters = [p for p in net.parameters() if p.requires_grad]
        if not parameters or (trained is not None and name not in trained):
            continue
        chosen = by_name.get(name) or adam()
        try:
            optimizer = chosen if isinstance(chosen, torch.optim.Optimizer) else chosen(parameters)
        except Exception as error:  # the user's own function
            why = (str(error).splitlines() or [""])[0]
            why = why if isinstance(error, ValueError) else f"{type(error).__name__}: {why}"
            raise FastganError(f"the optimizer of network {name!r} can't be made: {why}") from error
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise FastganError(
                f"optimizers[{name!r}] gave a {type(optimizer).__name__}, not a torch optimizer"
            )
        _refuse_what_nobody_serves(name, optimizer)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not held & {id(p) for p in parameters}:
            raise FastganError(
                f"optimizers[{name!r}] holds no parameter of network {name!r}: build it from that "
                "network's parameters()"
            )
        built[name] = optimizer
    return built


def _refuse_what_nobody_serves(name: str, optimizer: torch.optim.Optimizer) -> None:
    """Raises FastganError for an optimiser that needs more than gradients, or has a scheduler."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise FastganError(
            f"the optimizer of network {name!r} is {type(optimizer).__name__}, which computes the "
            "loss several times a step (a closure): take one that doesn't, such as Adam"
        )
    if any("initial_lr" in group for group in optimizer.param_groups):
        raise FastganError(
            f"the optimizer of network {name!r} has a scheduler of torch, which nothing would "
            f"step: give schedules={{{name!r}: {{'lr': lambda step: ...}}}} instead"
        )


def _is_statistic(key: str) -> bool:
    """Whether a buffer is a mean or a spread by its name: running_mean, stored_var, mean_2."""
    words = re.split(r"[_\d]+", key.rpartition(".")[2].lower())
    return not {"mean", "var", "variance", "std"}.isdisjoint(words)


class Ema:
    """Exponential moving averages of networks (Yazici et al. 2019), in eval mode, ready to sample
    from.

    Parameters and running statistics of normalisation (of home-made ones too: buffers of floats
    that are called a mean, var, variance or std) are averaged with min(decay, (1+t)/(10+t)) at
    update t (without `warm_up`, for averages that come from an earlier run: with decay), every
    other buffer is copied: an average of weights with the statistics of other weights draws bad
    images.
    """

    def __init__(
        self, nets: Mapping[str, nn.Module], decay: float, trained: Collection[str] | None = None
    ) -> None:
        if not 0 <= decay < 1:
            raise FastganError(f"ema_decay must lie in [0, 1), not {decay}")
        self.decay = decay
        self.warm_up = True
        self.nets = {
            name: copy.deepcopy(net).eval().requires_grad_(False) for name, net in nets.items()
        }
        self._averaged: list[torch.Tensor] = []
        self._live: list[torch.Tensor] = []
        self._rows: torch.Tensor | None = None
        self._parameters: dict[int, nn.Parameter] = {}
        self._copied: list[tuple[torch.Tensor, torch.Tensor]] = []
        for name, net in nets.items():
            if trained is not None and name not in trained:
                continue  # a network of an earlier stage keeps the average it came with
            live = dict(net.named_parameters()) | dict(net.named_buffers())
            for key, value in (
                dict(self.nets[name].named_parameters()) | dict(self.nets[name].named_buffers())
            ).items():
                is_parameter = isinstance(value, nn.Parameter)
                if value.is_floating_point() and (is_parameter or _is_statistic(key)):
                    if isinstance(value, nn.Parameter):
                        self._parameters[id(live[key])] = value
                    self._averaged.append(value.data)
                    self._live.append(live[key].data)
                else:
                    self._copied.append((value, live[key]))

    def take_over(self, live: Sequence[torch.Tensor]) -> list[nn.Parameter]:
        """The averages of these parameters, which the caller keeps from now on: `update` leaves
        them alone."""
        taken = [self._parameters[id(p)] for p in live]
        pointers = {p.data_ptr() for p in live}
        rest = [
            pair
            for pair in zip(self._averaged, self._live, strict=True)
            if pair[1].data_ptr() not in pointers
        ]
        self._averaged, self._live = [a for a, _ in rest], [b for _, b in rest]
        self._rows = None
        return taken

    def weight(self, updates: int) -> float:
        """The decay of update number `updates` (0, 1, ...)."""
        return min(self.decay, (1 + updates) / (10 + updates)) if self.warm_up else self.decay

    @torch.no_grad()
    def update(self, share: torch.Tensor) -> None:
        """One update; `share` is 1 - weight(t) as a 0-dim fp32 tensor on the device, so that a
        graph can replay it."""
        if self._averaged:
            if self._rows is None and not self._averaged[0].is_cpu:
                self._rows = average_rows(self._averaged, self._live)
            average_(self._averaged, self._live, share, rows=self._rows)
        if self._copied:
            torch._foreach_copy_(
                [mine for mine, _ in self._copied], [live for _, live in self._copied]
            )
