"""FlatAdam in the place of torch's Adam: one launch updates all parameters of a network, and their
averages with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import torch

from fastgan.kernels import tuning
from fastgan.ops import dispatch
from fastgan.ops.adam.flat_parameters import FlatParameters
from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.trainer.optimization.optimizers import Ema


def engine_of(impl: str, size: int, device: torch.device, captured: bool = False) -> str | None:
    """The engine of FlatAdam for a network of `size` parameters, or None for torch's Adam.

    "auto" takes what was measured, and without a measurement FlatAdam where steps are captured on a
    GPU. The table's name is `flat_adam`: entries of `adam_ema` are the kernel's tiles, and say
    nothing of torch's
        Adam.
    """
    if impl == "auto":
        default = "triton" if captured and dispatch.missing("triton", device) is None else "auto"
        impl = tuning.engine("flat_adam", "fp32", {"n": size}, device) or default
    return "triton" if impl == "triton" else None


def replaceable(optimizer: torch.optim.Optimizer) -> bool:
    """Whether FlatAdam computes what this optimiser does: plain Adam or AdamW, one group of fp32
    parameters, nothing done yet."""
    if (
        type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW)
        or len(optimizer.param_groups) > 1
        or optimizer.state
    ):
        return False
    group = optimizer.param_groups[0]
    if "step" in vars(optimizer) or "initial_lr" in group:
        # a learning-rate scheduler holds it, and would go on changing the one that was replaced
        return False
    numbers = (group["lr"], *group["betas"], group["eps"], group["weight_decay"])
    if any(isinstance(value, torch.Tensor) for value in numbers) or any(
        group[k] for k in ("amsgrad", "maximize", "differentiable")
    ):
        return False
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    kinds = {(p.dtype, p.device) for p in group["params"]}
    return not hooked and len(kinds) == 1 and next(iter(kinds))[0] == torch.float32


def replace_adams(
    optimizers: Mapping[str, torch.optim.Optimizer],
    kept: Collection[str],
    impl: str,
    *,
    channels_last: bool,
    captured: bool = False,
    low_precision: torch.dtype | None = None,
) -> dict[str, torch.optim.Optimizer]:
    """The optimisers, with FlatAdam for those it can stand for, where `impl`, the tuning table or a
    captured step says so.

    low_precision: the type of the copy that they keep of the parameters. kept: names that stay as
    they are (optimisers that somebody else holds too). Parameters that two optimisers train stay
    with torch's: they can lie in one flat buffer only.
    """
    uses = Counter(
        id(p) for o in optimizers.values() for group in o.param_groups for p in group["params"]
    )
    made = dict(optimizers)
    for name, optimizer in optimizers.items():
        parameters = optimizer.param_groups[0]["params"]
        if name in kept or not replaceable(optimizer) or any(uses[id(p)] > 1 for p in parameters):
            continue
        engine = engine_of(impl, sum(p.numel() for p in parameters), parameters[0].device, captured)
        if engine is not None:
            flat = FlatParameters(parameters, channels_last=channels_last)
            made[name] = FlatAdam.of(optimizer, flat, low_precision=low_precision, impl=engine)
    return made


def share_averages(
    adams: Mapping[str, FlatAdam], ema: Ema, names: Collection[str], decay: torch.Tensor
) -> None:
    """Let the optimisers of `names` keep the averages of their networks' parameters, with `decay`
    (0-dim, on the device)."""
    for name in names:
        adam = adams[name]
        adam.average_into(ema.take_over(adam.flat.parameters), decay)
