"""One step of an objective on networks of a test's own."""

import torch

from fastgan.precision import resolve
from fastgan.trainer.optimization.optimizers import adam
from fastgan.trainer.step.runner import StepRunner, parameters_behind

CPU = torch.device("cpu")


def runner_of(objective, nets, batch_size, **options):
    parameters = {name: list(net.parameters()) for name, net in nets.items()}
    optimizers = {name: adam()(p) for name, p in parameters.items() if p}
    return StepRunner(
        objective,
        nets,
        optimizers,
        seed=0,
        batch_size=batch_size,
        precision=resolve("fp32", CPU),
        **options,
    )


def nets_behind(output, nets):
    """Names of the networks whose parameters the autograd graph of `output` reaches."""
    behind = parameters_behind(output)
    return {name for name, net in nets.items() if any(id(p) in behind for p in net.parameters())}


def inputs(runner, batch, step=0):
    positions = [torch.tensor(p) for p in runner.positions(step)]
    scalar = {k: torch.tensor(v) for k, v in runner.objective.schedule(step).items()}
    return [batch] * runner.rounds, positions, scalar, runner.due(step)
