"""FlatAdam inside the engine: the same training and the same checkpoints as torch's Adam, in one
launch a network."""

import copy

import numpy as np
import pytest
import torch
from interpreter_child import interpreted, parent, run_interpreted
from run_support import images, in_a_hurry, newest, tiny
from torch import nn

import fastgan
from fastgan.distributed import buckets, context
from fastgan.graphs.backends import RecordedGraph
from fastgan.kernels import tuning
from fastgan.models.dcgan import Discriminator, Generator
from fastgan.objectives import Linear
from fastgan.ops.adam.flat_parameters import FlatParameters
from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.precision import resolve
from fastgan.trainer import pictures, sampling
from fastgan.trainer.optimization import fused
from fastgan.trainer.stages.active import ActiveStage
from fastgan.trainer.stages.stage import Stage, open_streams

CPU = torch.device("cpu")
EPS = 2.0**-24
CONV = {"G": (Generator, (16, 1, 8, 2)), "D": (Discriminator, (16, 1, 2))}


@pytest.fixture
def flattened(monkeypatch):
    """FlatAdam wherever it fits, on the reference path."""
    monkeypatch.setattr(fused, "engine_of", lambda *_: "reference")


def stage_of(
    objective=None,
    optimizers=None,
    graphs=None,
    precision="fp32",
    schedules=None,
    nets=None,
    **options,
):
    torch.manual_seed(0)
    nets = nets or {name: make(*arguments) for name, (make, arguments) in CONV.items()}
    data = open_streams(images(40, 16), size=None, channels=None, strict=False)
    objective = objective or fastgan.Adversarial(latent_shape=(8, 1, 1), r1=1.0, lazy_r1=3)
    stage = Stage(nets, objective, optimizers=optimizers, schedules=schedules or {}, ema=("G",))
    common = {
        "index": 0,
        "seed": 3,
        "batch_size": 8,
        "ema_decay": 0.9,
        "flip": True,
        "device": CPU,
        "resident_bytes": 2**31,
    }
    layout = {"memory_format": torch.channels_last}
    return ActiveStage(
        stage,
        data,
        precision=resolve(precision, CPU),
        graphs=graphs,
        **{**common, **layout, **options},
    )


def plain_adam(p):
    """torch's single-tensor Adam, whose arithmetic FlatAdam's reference path repeats."""
    return torch.optim.Adam(p, 2e-3, (0.5, 0.999), foreach=False, fused=False)


def is_flat(stage):
    return [isinstance(stage.optimizers[name], FlatAdam) for name in "GD"]


def test_training_equals_torchs_adam(flattened, monkeypatch):
    ours = stage_of(optimizers=plain_adam)
    monkeypatch.undo()
    theirs = stage_of(optimizers=plain_adam)
    assert (is_flat(ours), is_flat(theirs)) == ([True, True], [False, False])
    for step in range(7):
        ours.train_step(step)
        theirs.train_step(step)
    for name in "GD":
        for mine, other in zip(
            ours.nets[name].parameters(), theirs.nets[name].parameters(), strict=True
        ):
            assert torch.equal(mine, other)
    live = {key: value.abs().max() for key, value in theirs.nets["G"].state_dict().items()}
    for key, value in theirs.ema.nets["G"].state_dict().items():
        # The kernel fuses the multiply-add of the average: half an ulp a step less.
        assert (ours.ema.nets["G"].state_dict()[key] - value).abs().max() <= 7 * 2 * EPS * live[
            key
        ], key


def test_the_averages_follow_the_networks_only_where_that_is_the_same(flattened):
    class Twice(fastgan.Adversarial):
        def phases(self):
            d, g = super().phases()
            return d, g, fastgan.Phase("again", ("G",), self.g_loss, fresh=False)

    inside = lambda stage: stage.optimizers["G"].ema is not None
    assert inside(stage_of())
    assert not inside(stage_of(Twice(latent_shape=(8, 1, 1))))
    assert not inside(stage_of(precision="fp16"))
    for options in ({"objective": Twice(latent_shape=(8, 1, 1))}, {"precision": "fp16"}):
        stage = stage_of(**options)
        before = [p.clone() for p in stage.ema.nets["G"].parameters()]
        stage.train_step(0)
        moved = [
            not torch.equal(a, b)
            for a, b in zip(before, stage.ema.nets["G"].parameters(), strict=True)
        ]
        assert any(moved) or options.get("precision") == "fp16"


def test_a_loss_scale_that_overflows_skips_the_step_without_reading_the_device(flattened):
    from fastgan.graphs.host_reads import NoHostReads

    stage = stage_of(precision="fp16")
    before = [p.clone() for p in stage.nets["G"].parameters()]
    for scaler in stage.runner.scalers.values():
        scaler.scale(torch.ones(()))
        scaler._scale.fill_(2.0**30)
    with NoHostReads():
        stage.on_device({})
    assert all(torch.equal(a, b) for a, b in zip(before, stage.nets["G"].parameters(), strict=True))
    assert stage.optimizers["G"].steps == 0
    stage.runner.scalers["G"]._scale.fill_(1.0)
    stage.runner.scalers["D"]._scale.fill_(1.0)
    stage.on_device({})
    assert stage.optimizers["G"].steps == 1
    assert not any(
        torch.equal(a, b)
        for a, b in zip(before, stage.nets["G"].parameters(), strict=True)
        if b.dim() > 1
    )


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


def test_runs_go_on_with_the_other_optimiser_and_checkpoints_look_the_same(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    chosen = {"flat": lambda *_: "reference", "torch": lambda *_: None}
    trees = {}
    for first in chosen:
        for second in chosen:
            path = tmp_path / f"{first}-{second}"
            for kind, steps, resume in ((first, 6, False), (second, 12, True)):
                monkeypatch.setattr(fused, "engine_of", chosen[kind])
                torch.manual_seed(1)
                with tiny(path, seed=7, resume=resume, optimizers=plain_adam) as trainer:
                    assert isinstance(trainer.optimizers["G"], FlatAdam) == (kind == "flat")
                    trainer.fit(steps)
            trees[first, second] = newest(path)
    straight = tmp_path / "straight"
    monkeypatch.setattr(fused, "engine_of", chosen["flat"])
    torch.manual_seed(1)
    with tiny(straight, seed=7, optimizers=plain_adam) as trainer:
        trainer.fit(12)
    assert newest(straight) == trees["flat", "flat"]  # exact resume
    reference, facts = trees["torch", "torch"]
    for found, tree in trees.values():
        assert found.keys() == reference.keys()
        assert tree[0] == facts[0]  # the same options, types and layouts
        for key, (data, dtype, shape) in reference.items():
            assert found[key][1:] == (dtype, shape)
            if not key.startswith("ema/"):
                assert found[key][0] == data, key


def test_a_checkpoint_before_the_first_step_goes_on_either_way(flattened, monkeypatch):
    ours = stage_of(optimizers=plain_adam)
    monkeypatch.undo()
    theirs = stage_of(optimizers=plain_adam)
    ours.load_state(copy.deepcopy(theirs.state()))
    theirs.load_state(copy.deepcopy(ours.state()))
    ours.train_step(0)
    theirs.train_step(0)
    for mine, other in zip(ours.nets["D"].parameters(), theirs.nets["D"].parameters(), strict=True):
        assert torch.equal(mine, other)


def test_an_optimiser_with_parameters_of_its_own_averages_nothing(flattened):
    extra = nn.Parameter(torch.ones(2))
    stage = stage_of(optimizers={"G": lambda p: torch.optim.Adam([*p, extra])})
    assert is_flat(stage) == [True, True]
    assert stage.optimizers["G"].ema is None
    stage.train_step(0)


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


def own_adam():
    nets = {name: make(*arguments) for name, (make, arguments) in CONV.items()}
    return {"nets": nets, "optimizers": {"G": torch.optim.Adam(nets["G"].parameters())}}


def sharing():
    nets = {name: make(*arguments) for name, (make, arguments) in CONV.items()}
    nets["G"].shared = nets["D"].shared = nn.Linear(2, 2)
    return {"nets": nets}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [True, True]),
        ({"optimizers": {"D": lambda p: torch.optim.AdamW(p, 1e-3)}}, [True, True]),
        ({"optimizers": lambda p: torch.optim.Adam(p, amsgrad=True)}, [False, False]),
        ({"optimizers": lambda p: torch.optim.SGD(p, 1e-3)}, [False, False]),
        ({"optimizers": lambda p: torch.optim.Adam(p, torch.tensor(1e-3))}, [False, False]),
        (
            {"optimizers": lambda p: torch.optim.Adam([{"params": p[:1]}, {"params": p[1:]}])},
            [False, False],
        ),
        (own_adam, [False, True]),
        (sharing, [False, False]),
    ],
    ids=[
        "default",
        "AdamW",
        "amsgrad",
        "SGD",
        "tensor lr",
        "two groups",
        "somebody's own",
        "shared parameters",
    ],
)
def test_what_it_can_stand_for(flattened, options, expected):
    stage = stage_of(**(options() if callable(options) else options))
    assert is_flat(stage) == expected


def test_auto_takes_what_was_measured_and_never_guesses(monkeypatch):
    assert fused.engine_of("auto", 4096, CPU) is None
    assert fused.engine_of("reference", 4096, CPU) is None
    assert fused.engine_of("cudnn", 4096, CPU) is None
    assert fused.engine_of("triton", 4096, CPU) == "triton"
    asked = []
    for measured, expected in (("triton", "triton"), ("reference", None)):
        monkeypatch.setattr(tuning, "engine", lambda *a, answer=measured: asked.append(a) or answer)
        assert fused.engine_of("auto", 4096, CPU) == expected
    assert asked[0] == (
        "flat_adam",
        "fp32",
        {"n": 4096},
        CPU,
    )  # not the name under which tiles are looked up


def test_ranks_reduce_its_flat_gradients_where_they_lie(monkeypatch):
    """One buffer, no copy back: what the optimiser collects then are its own views."""
    net = nn.Linear(3, 2)
    adam = FlatAdam(FlatParameters(net), impl="reference")
    seen = []

    class Done:
        def wait(self):
            pass

    def all_reduce(value, async_op):
        seen.append(value.data_ptr())
        value.mul_(3)
        return Done()

    monkeypatch.setattr(buckets.dist, "all_reduce", all_reduce)
    reducing = buckets.GradientBuckets([], context.DistributedContext(0, 2), adam.flat)
    with reducing.during_backward():
        net(torch.ones(1, 3)).sum().backward()
    reducing.finish()
    assert seen == [adam.flat.grad.data_ptr()]
    for p, view in zip(adam.flat.parameters, adam.flat.grad_views, strict=True):
        assert p.grad.data_ptr() == view.data_ptr()
        assert torch.equal(p.grad, torch.full_like(p, 1.5))
    assert adam.flat.collect_grads_().data_ptr() == seen[0]
    assert torch.equal(net.weight.grad, torch.full((2, 3), 1.5))


@parent
@pytest.mark.slow
def test_in_the_interpreter():
    run_interpreted(__file__)


@interpreted
def test_kernel_trains_and_resumes(tmp_path, monkeypatch):
    """impl="triton" is enough: the kernel updates both networks and the average, and a run that
    stopped goes on exactly."""

    monkeypatch.setattr(pictures, "GRID", 4)
    monkeypatch.setattr(sampling, "CHUNK", 4)

    def make(path, impl, resume=False):
        torch.manual_seed(1)
        g = nn.Sequential(
            nn.Flatten(),
            nn.Linear(4, 8),
            nn.ReLU(),
            nn.Linear(8, 64),
            nn.Tanh(),
            nn.Unflatten(1, (1, 8, 8)),
        )
        d = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        options = {
            "data": images(),
            "latent_shape": (4, 1, 1),
            "batch_size": 4,
            "progress": False,
            "device": "cpu",
        }
        options |= {"watch": False, "log_every": 2, "sample_every": 100, "checkpoint_every": 100}
        return fastgan.Trainer(g, d, out=path, resume=resume, impl=impl, **options)

    with make(tmp_path / "straight", "triton") as straight:
        assert all(isinstance(o, FlatAdam) for o in straight.optimizers.values())
        straight.fit(2)
    with make(tmp_path / "cut", "triton") as cut:
        cut.fit(1)
    with make(tmp_path / "cut", "triton", resume=True) as cut:
        cut.fit(2)
    assert newest(tmp_path / "straight") == newest(tmp_path / "cut")
    with make(None, "reference") as reference:
        reference.fit(2)
    with make(tmp_path / "cut", "reference", resume=True) as on:
        assert not any(isinstance(o, FlatAdam) for o in on.optimizers.values())
    for kind in ("nets", "ema"):
        for name, net in getattr(reference, kind).items():
            for mine, other in zip(
                getattr(straight, kind)[name].parameters(), net.parameters(), strict=True
            ):
                # Adam divides by the root of its second moment: in the first steps an ulp of a
                # gradient near 0 is a part of lr.
                np.testing.assert_allclose(
                    mine.detach().numpy(), other.detach().numpy(), rtol=1e-4, atol=2 * 2e-4 * 0.02
                )
