"""Reals and fakes as one batch: how `Step.pair` calls a network once, and which networks may be
called so.

One pass is two passes where samples are independent but for fastgan's own batch normalisation,
whose statistics go by half under `grouped(2)`. That is decided before training: by what the network
is made of, then by a trial on copies.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from fastgan.devices import seed_generators
from fastgan.distributed.context import DistributedContext
from fastgan.objectives import Objective
from fastgan.objectives.base import Named, Step
from fastgan.ops.norm.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    ConditionalBatchNorm2d,
    grouped,
)
from fastgan.ops.spectral import modules as spectral
from fastgan.precision import Precision
from fastgan.trainer.step.runner import StepRunner

SAMPLES = 12
"""Samples of each half in the trial: layers that take 2, 3, 4 or 6 samples together take this many,
and show themselves."""

ROUNDING = 1e-4
"""Relative L2 norm up to which two outputs in fp32 are the same: a convolution of another batch
size may sum in another order, about 1e-6 a layer; a minibatch standard deviation over both halves
moves logits by 1e-2."""

GROUPED = (BatchNorm1d, BatchNorm2d, BatchNorm3d, ConditionalBatchNorm2d)


def one_pass(
    net: nn.Module, real: Tensor, fake: Tensor, *conditions: Any
) -> tuple[Any, Any] | None:
    """`net` on reals and fakes in one call, batch statistics by half; None, before the call, where
    they do not make one batch.

    Conditions with a row for each sample are doubled, numbers and 0-dim tensors are given as they
    are.
    """
    count = len(real)
    if real.shape != fake.shape or real.device != fake.device:
        return None
    doubled = []
    for value in conditions:
        if isinstance(value, Tensor) and value.dim():
            if len(value) != count:
                return None
            value = torch.cat([value, value])
        doubled.append(value)
    if real.dtype == torch.float32 and fake.dtype in (torch.bfloat16, torch.float16):
        real = real.to(
            fake.dtype
        )  # as autocast does before the first layer; else the batch would be fp32
    with grouped(2):
        y = net(torch.cat([real, fake]), *doubled)
    return halves(y, count)


def halves(y: Any, count: int) -> tuple[Any, Any]:
    """An output for 2 `count` samples as two: of tensors the rows, of tuples, lists and dicts each
    entry.

    Raises ValueError where a tensor's rows are no samples.
    """
    if isinstance(y, Tensor):
        if not y.dim() or len(y) % (2 * count):
            raise ValueError(f"an output of shape {tuple(y.shape)} has no rows by sample")
        first, second = y.split(len(y) // 2)
        return first, second
    if isinstance(y, Mapping):
        parts = {key: halves(value, count) for key, value in y.items()}
        return {key: a for key, (a, _) in parts.items()}, {key: b for key, (_, b) in parts.items()}
    if type(y) in (tuple, list):
        pairs = [halves(value, count) for value in y]
        return type(y)(a for a, _ in pairs), type(y)(b for _, b in pairs)
    if y is None:
        return None, None
    raise ValueError(f"an output holds a {type(y).__name__}")


def why_two(net: nn.Module) -> str | None:
    """What a network in training holds that needs a pass for each half, or None where a trial must
    tell."""
    for name, module in net.named_modules():
        at = f" {name}" if name else ""
        kind = type(module).__name__
        if kind == "OptimizedModule" or module._compiled_call_impl is not None:
            return "it is compiled"
        if (
            isinstance(module, _BatchNorm)
            and type(module) not in GROUPED
            and (module.training or module.running_mean is None)
        ):
            return f"{kind}{at} takes its statistics over the whole batch"
        if spectral.holder_of(module) is not None:
            return f"the spectral norm of{at or ' it'} has another sigma for each half"
        hooks = (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
        if any(not spectral.is_ours(hook) for some in hooks for hook in some.values()):
            return f"{kind}{at} has a hook"
    return None


def differs(net: nn.Module, real: Tensor, fake: Tensor, *conditions: Any) -> str | None:
    """How one call of a copy of `net` differs from two calls of another, beyond rounding, or
    None."""
    apart, together = copy.deepcopy(net), copy.deepcopy(net)
    with torch.no_grad():
        expected = apart(real, *conditions), apart(fake, *conditions)
        try:
            found = one_pass(together, real, fake, *conditions)
        except Exception as error:  # what somebody's network may raise at another batch size
            return (
                f"both as one batch: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            )
        if found is None:
            return "reals, fakes and conditions do not make one batch"
        ours, theirs = list(_tensors(found)), list(_tensors(expected))
        if len(ours) != len(theirs) or not all(map(_same, ours, theirs)):
            return "its outputs depend on the other samples of the batch, or are drawn at random"
        buffers = dict(together.named_buffers())
        for name, value in apart.named_buffers():
            if name not in buffers or not _same(buffers[name], value):
                return f"its buffer {name} moves with every call"
    return None


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for key in value:
            yield from _tensors(value[key])
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def _same(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    return bool((found.double() - expected.double()).norm() <= ROUNDING * expected.double().norm())


class _Trial(StepRunner):
    """Runs an objective's losses on disposable networks and tries every network that they give to
    `pair`."""

    known: dict[
        str, str | None
    ]  # of the networks themselves: a copy of a compiled one is not compiled
    found: dict[str, str | None]

    def begin(self, *args: Any, **kwargs: Any) -> Step:
        step = super().begin(*args, **kwargs)

        def pair(net: str, real: Tensor, fake: Tensor, *conditions: Any) -> tuple[Any, Any]:
            module = self.nets[net]
            if self.found.setdefault(net, None) is None:
                self.found[net] = self.known[net] or differs(
                    module, real.detach(), fake.detach(), *conditions
                )
            if (
                self.found[net] is None
                and (both := one_pass(module, real, fake, *conditions)) is not None
            ):
                return both  # the loss may not take views of one tensor
            return module(real, *conditions), module(fake, *conditions)

        vars(step)["pair"] = pair
        return step


@contextmanager
def _exact() -> Iterator[None]:
    """Within it fp32 is fp32 on a GPU, and no algorithms are searched for."""
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, benchmark=False, allow_tf32=False
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def decide(
    objective: Objective,
    nets: Mapping[str, nn.Module],
    batch: Mapping[str, Tensor],
    *,
    seed: int,
    device: torch.device,
    ranks: DistributedContext | None = None,
) -> dict[str, str | None]:
    """{network given to `step.pair`: None where one pass serves, else why there are two}; the same
    on all ranks.

    `batch`: SAMPLES samples of each stream, on the device. Every loss is run once, in fp32, on
    copies whose weights are moved a little (a layer that begins at zero hides those before it) and
    whose dropout is off; networks and generators stay as they are.
    """
    names = list(nets)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _exact():
        seed_generators(seed, device)
        copies = copy.deepcopy(dict(nets))  # together: some share parameters
        for net in copies.values():
            for p in net.parameters():
                if p.is_floating_point():
                    p.data.add_(torch.randn_like(p), alpha=0.02)
            for module in net.modules():
                if isinstance(module, _DropoutNd):
                    module.training = False
        trial = _Trial(
            objective,
            copies,
            {},
            seed=seed,
            batch_size=SAMPLES,
            precision=Precision("fp32", device.type),
        )
        trial.known, trial.found = {name: why_two(net) for name, net in nets.items()}, {}
        position = torch.zeros((), dtype=torch.int64, device=device)
        scalar = Named(
            {
                name: torch.tensor(value, device=device)
                for name, value in objective.schedule(0).items()
            }
        )
        try:
            trial.run([batch] * trial.rounds, [position] * trial.rounds, scalar, trial.due(0))
        except (
            Exception
        ) as error:  # a user's loss that can't take these outputs, or too little memory for a trial
            why = f"the trial raised {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            trial.found = {name: trial.found.get(name) or why for name in trial.found or names}
    found = {}
    for name in names:
        mine = trial.found.get(name, "")
        if (ranks or DistributedContext()).largest(int(mine is not None)) and mine is None:
            mine = "another process needs two"
        if mine != "":
            found[name] = mine
    return found
