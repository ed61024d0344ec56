"""FlatAdam in recorded graphs: options are read where they are changed, averages belong to a step."""

import pytest
import torch
from flat_stages import stage_of
from torch import nn

import fastgan
from fastgan.graphs.backends import RecordedGraph
from fastgan.objectives import Linear
from fastgan.ops.adam.flat_parameters import FlatParameters
from fastgan.ops.adam.optimizer import FlatAdam


def test_graphs_hold_it(flattened):
    options = {"schedules": {"G": {"lr": Linear(1e-3, 1e-4, 10)}}}
    eager, graphed = stage_of(**options), stage_of(graphs=RecordedGraph, **options)
    for step in range(7):
        if step == 4:  # changed by hand: the next replay follows
            for stage in (eager, graphed):
                stage.optimizers["D"].param_groups[0]["lr"] = 1e-4
        eager.train_step(step)
        graphed.train_step(step)
        assert graphed.graph_reason is None
    for kind in ("nets", "ema"):
        for name, state in eager.state()[kind].items():
            for key, value in state.items():
                # lr is a float64 device value in the graph, a Python number outside
                torch.testing.assert_close(
                    graphed.state()[kind][name][key], value, rtol=0, atol=1e-7
                )
    groups = [stage.state()["optimizers"]["G"]["param_groups"] for stage in (eager, graphed)]
    assert groups[0] == groups[1]


def test_options_changed_back_reach_a_graph_that_was_captured_before(flattened):
    eager, graphed = stage_of(), stage_of(graphs=RecordedGraph)
    for step, rate in enumerate((1e-3, 1e-3, 1e-4, 1e-3)):
        for stage in (eager, graphed):
            stage.optimizers["G"].param_groups[0]["lr"] = rate
            stage.train_step(step)
        assert graphed.graph_reason is None
    for mine, other in zip(
        graphed.nets["G"].parameters(), eager.nets["G"].parameters(), strict=True
    ):
        assert torch.equal(mine, other)


def test_a_captured_step_puts_its_averages_back_and_follows_its_options():
    """FlatAdam's lr is a device value, its average and low-precision copy belong to what a step
    changes."""
    x = torch.randn(4, 3)

    def make():
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        adam = FlatAdam(
            FlatParameters(net),
            0.1,
            weight_decay=0.1,
            ema_decay=0.5,
            low_precision=torch.bfloat16,
            impl="reference",
        )

        def step(x):
            net.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            adam.step()
            return loss

        return net, adam, step

    (_, theirs, eager), (net, adam, step) = make(), make()
    before = adam.ema.clone(), adam.low.clone()
    captured = fastgan.capture(step, example_inputs=[x], state=[net, adam], backend=RecordedGraph)
    assert captured.captured, captured.reason
    assert torch.equal(adam.ema, before[0])
    assert torch.equal(adam.low, before[1])
    for rate in (0.1, 0.01):
        theirs.param_groups[0]["lr"] = adam.param_groups[0]["lr"] = rate
        eager(x)
        captured(x)
        for name in ("ema", "low"):
            assert torch.equal(getattr(adam, name), getattr(theirs, name))
    adam.param_groups[0]["weight_decay"] = 0.0
    with pytest.raises(
        fastgan.FastganError, match="weight_decay != 0 was True at capture and is False now"
    ):
        captured(x)
