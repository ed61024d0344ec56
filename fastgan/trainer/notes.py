"""What is said at the start of a run: all that is done otherwise than one may think."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from fastgan.ops.norm import sync
from fastgan.trainer.stages.stage import Stage


def notes(
    stages: list[Stage], batch_size: int, accumulate: int, sync_bn: bool = False
) -> Iterator[str]:
    """Lines about these stages. sync_bn: whether batch norms are to span several processes."""
    for stage in stages:
        for name, net in stage.nets.items() if sync_bn else ():
            if found := sync.left(net):
                more = f" and {len(found) - 1} more" if len(found) > 1 else ""
                yield (
                    f"network {name}: {found[0]}{more} normalises by its own process's images: "
                    "sync_bn does not know what else a class of your own does"
                )
        if accumulate > 1:
            yield from _parts(stage.nets, stage.batch_size or batch_size, accumulate)
        yield from _unreachable(stage.nets)


def _unreachable(nets: Mapping[str, nn.Module]) -> Iterator[str]:
    for name, net in nets.items():
        own = [type(m) for m in net.modules() if type(m).__module__ == "__main__"]
        if own:
            yield (
                f"network {name}: class {own[0].__name__} stands in the program itself, where no "
                "other one finds it: put it into a module of its own (mynets.py), or pass the "
                f"network to what loads the run (fastgan.load(run, generator=...))"
            )


def _parts(nets: Mapping[str, nn.Module], batch_size: int, accumulate: int) -> Iterator[str]:
    modules = [(name, m) for name, net in nets.items() for m in net.modules()]
    kinds = {
        "batch norm takes its statistics of a part": lambda m: (
            isinstance(m, _NormBase) and not isinstance(m, _InstanceNorm)
        ),
        "dropout draws otherwise": lambda m: isinstance(m, _DropoutNd),
        "spectral norm iterates once a part": lambda m: (
            "pectralNorm" in type(m).__name__ or hasattr(m, "weight_orig")
        ),
    }
    for what, is_one in kinds.items():
        found = list(dict.fromkeys(name for name, m in modules if is_one(m)))
        if found:
            yield (
                f"{accumulate} parts of {batch_size // accumulate} images are not one batch of "
                f"{batch_size} for network {' and '.join(found)}: {what}"
            )
