"""Whole-step capture, proven on the CPU: a recording bakes in what a CUDA graph bakes in, and
replays into the same memory."""

import copy
import os
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

import fastgan
from fastgan.distributed.context import DistributedContext
from fastgan.graphs.backends import RecordedGraph, graph_backend
from fastgan.graphs.capture import capture
from fastgan.models.dcgan import Discriminator, Generator
from fastgan.objectives import Linear
from fastgan.precision import resolve
from fastgan.runs.checkpoint import flatten
from fastgan.trainer import session
from fastgan.trainer.optimization.optimizers import SGD
from fastgan.trainer.stages.active import ActiveStage
from fastgan.trainer.stages.stage import Stage, open_streams

CPU = torch.device("cpu")


class Loop:
    """Somebody's own training loop: BatchNorm, dropout, spectral norm, fused Adam with lr on the
    device."""

    def __init__(self, lr=1e-2):
        torch.manual_seed(0)
        self.G = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2)
        )
        self.D = nn.Sequential(
            torch.nn.utils.parametrizations.spectral_norm(nn.Linear(2, 8)),
            nn.LeakyReLU(0.2),
            nn.Linear(8, 1),
        )
        self.adam_g = torch.optim.Adam(self.G.parameters(), lr=lr, fused=True)
        self.adam_d = torch.optim.Adam(self.D.parameters(), lr=lr, fused=True)
        self.state = [self.G, self.D, self.adam_g, self.adam_d]

    def step(self, real):
        fake = self.G(torch.randn(len(real), 4))
        self.adam_d.zero_grad(set_to_none=True)
        d_loss = (
            nn.functional.softplus(-self.D(real)).mean()
            + nn.functional.softplus(self.D(fake.detach())).mean()
        )
        d_loss.backward()
        self.adam_d.step()
        self.adam_g.zero_grad(set_to_none=True)
        g_loss = nn.functional.softplus(-self.D(fake)).mean()
        g_loss.backward()
        self.adam_g.step()
        return {"d": d_loss.detach(), "g": g_loss.detach()}

    def tensors(self):
        return [*self.G.state_dict().values(), *self.D.state_dict().values()]


REAL = torch.randn(16, 2, generator=torch.Generator().manual_seed(1))


def test_capture_leaves_everything_as_found_and_replays_equal_eager_steps():
    eager, graphed = Loop(), Loop()
    before = [t.clone() for t in graphed.tensors()]
    torch.manual_seed(5)
    generator = torch.get_rng_state()
    captured = capture(
        graphed.step, example_inputs=[REAL], state=graphed.state, backend=RecordedGraph
    )
    assert captured.captured, captured.reason
    assert all(torch.equal(a, b) for a, b in zip(before, graphed.tensors(), strict=True))
    assert torch.equal(generator, torch.get_rng_state())
    assert all(float(s["step"]) == 0 for s in graphed.adam_d.state.values())
    for i in range(4):
        torch.manual_seed(i)
        expected = eager.step(REAL * (i + 1))
        torch.manual_seed(i)
        found = captured(REAL * (i + 1))
        assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert all(torch.equal(a, b) for a, b in zip(eager.tensors(), graphed.tensors(), strict=True))


class Unsteady(torch.autograd.Function):
    """A gradient that differs from itself as sums by atomics do: by roundings, or not at all under
    deterministic algorithms."""

    @staticmethod
    def forward(ctx, x, size):
        ctx.size = size
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        if ctx.size > 1e-6 and torch.are_deterministic_algorithms_enabled():
            return g, None
        # os.urandom: torch's generators are put back between runs
        drawn = torch.frombuffer(bytearray(os.urandom(4 * g.numel())), dtype=torch.int32).view_as(g)
        return g * (1 + drawn * 2.0**-31 * ctx.size), None


@pytest.mark.parametrize("size", [2e-7, 4e-3], ids=["fp32", "bf16 with deterministic algorithms"])
@pytest.mark.parametrize("seed", range(4))
def test_a_step_that_differs_from_itself_is_captured(seed, size):
    loop = Loop()
    loop.D[2].register_forward_hook(lambda _, inputs, y: Unsteady.apply(y, size))
    torch.manual_seed(seed)
    captured = capture(
        loop.step, example_inputs=[REAL + seed], state=loop.state, backend=RecordedGraph
    )
    assert captured.captured, captured.reason


def test_a_replay_that_differs_by_more_than_the_step_from_itself_is_refused():
    class Bent(RecordedGraph):
        def replay(self):
            super().replay()
            with torch.no_grad():
                loop.D[2].weight.mul_(1.001)

    loop = Loop()
    loop.D[2].register_forward_hook(lambda _, inputs, y: Unsteady.apply(y, 2e-7))
    captured = capture(loop.step, example_inputs=[REAL], state=loop.state, backend=Bent)
    assert "eager steps from each other by" in captured.reason


def test_a_nan_equals_itself():
    loop = Loop()
    loop.state.append(torch.tensor([float("nan"), float("inf")]))
    with torch.no_grad():
        loop.D[2].bias.fill_(float("nan"))
    captured = capture(loop.step, example_inputs=[REAL], state=loop.state, backend=RecordedGraph)
    assert captured.captured, captured.reason


def test_a_learning_rate_on_the_device_is_followed():
    eager, graphed = Loop(torch.tensor(1e-2)), Loop(torch.tensor(1e-2))
    captured = capture(
        graphed.step, example_inputs=[REAL], state=graphed.state, backend=RecordedGraph
    )
    for i, lr in enumerate((1e-2, 5e-3, 1e-3)):
        for loop in (eager, graphed):
            loop.adam_d.param_groups[0]["lr"].fill_(lr)
        torch.manual_seed(i)
        eager.step(REAL)
        torch.manual_seed(i)
        captured(REAL)
    assert all(torch.equal(a, b) for a, b in zip(eager.tensors(), graphed.tensors(), strict=True))


def test_a_changed_python_scalar_is_refused_at_replay():
    loop = Loop()
    captured = capture(loop.step, example_inputs=[REAL], state=loop.state, backend=RecordedGraph)
    loop.adam_g.param_groups[0]["lr"] = 5e-3
    with pytest.raises(
        fastgan.FastganError, match=r"optimizer 0, group 0, lr was 0.01 at capture and is 0.005 now"
    ):
        captured(REAL)


def test_other_shapes_are_refused():
    loop = Loop()
    captured = capture(loop.step, example_inputs=[REAL], state=loop.state, backend=RecordedGraph)
    with pytest.raises(fastgan.FastganError, match=r"input 0 is \(8, 2\)"):
        captured(REAL[:8])


def test_another_number_of_inputs_is_refused():
    loop = Loop()
    captured = capture(loop.step, example_inputs=[REAL], state=loop.state, backend=RecordedGraph)
    with pytest.raises(fastgan.FastganError, match="takes 1 inputs as it was captured, not 2"):
        captured(REAL, REAL)


def test_host_reads_are_named_by_line_and_leave_an_eager_step():
    loop = Loop()

    def step(real):
        losses = loop.step(real)
        if losses["d"].item() > 1e9:
            raise AssertionError
        return losses

    captured = capture(step, example_inputs=[REAL], state=loop.state, backend=RecordedGraph)
    assert not captured.captured
    assert "test_capture.py:" in captured.reason
    assert ".item()" in captured.reason
    assert captured(REAL)["d"].isfinite()
    with pytest.raises(
        fastgan.FastganError, match=r"the step can't be captured: .*test_capture.py"
    ):
        capture(
            step, example_inputs=[REAL], state=loop.state, backend=RecordedGraph, on_fail="raise"
        )


def test_state_that_is_not_named_is_found():
    loop = Loop()
    hidden = torch.zeros(())

    def step(real):
        hidden.add_(1)
        return {k: v * hidden for k, v in loop.step(real).items()}

    refused = capture(step, example_inputs=[REAL], state=loop.state, backend=RecordedGraph)
    assert not refused.captured
    assert "replay differs from the eager step" in refused.reason
    assert capture(
        step, example_inputs=[REAL], state=[*loop.state, hidden], backend=RecordedGraph
    ).captured


def test_python_control_flow_that_changes_is_found():
    loop, calls = Loop(), []

    def step(real):
        calls.append(1)
        return {k: v * len(calls) for k, v in loop.step(real).items()}

    assert (
        "differs"
        in capture(step, example_inputs=[REAL], state=loop.state, backend=RecordedGraph).reason
    )


class OnGpu(nn.Parameter):
    """A parameter of which everybody believes that it lies on a GPU."""

    is_cuda = True


def test_flat_adam_on_a_gpu_is_not_refused_and_torchs_unfused_adam_is():
    from fastgan.graphs.optimizer_state import require_capturable
    from fastgan.ops.adam.flat_parameters import FlatParameters
    from fastgan.ops.adam.optimizer import FlatAdam

    parameter = OnGpu(torch.ones(3))
    adam = torch.optim.Adam([parameter])
    with pytest.raises(fastgan.FastganError, match="fused=True"):
        require_capturable(adam, 0)
    flat_adam = FlatAdam.of(adam, FlatParameters([parameter]), impl="reference")
    assert flat_adam.param_groups[0]["params"][0].is_cuda
    require_capturable(flat_adam, 0)


def test_without_a_gpu_the_reason_is_said():
    loop = Loop()
    if torch.cuda.is_available():
        pytest.skip("checks the machine without a GPU")
    captured = capture(loop.step, example_inputs=[REAL], state=loop.state)
    assert (captured.captured, captured.reason) == (False, "CUDA graphs need a GPU")


COMMON = {
    "index": 0,
    "seed": 3,
    "batch_size": 8,
    "ema_decay": 0.9,
    "flip": True,
    "device": CPU,
    "precision": resolve("fp32", CPU),
    "memory_format": torch.channels_last,
    "resident_bytes": 2**31,
}


def stage_of(graphs, schedules=None, optimizers=None, objective=None, **options):
    torch.manual_seed(0)
    nets = {"G": Generator(16, 1, 8, 2), "D": Discriminator(16, 1, 2)}
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    objective = objective or fastgan.Adversarial(
        latent_shape=(8, 1, 1), r1=1.0, lazy_r1=3, n_critic=2
    )
    schedules = {"G": {"lr": Linear(1e-3, 1e-4, 10)}} if schedules is None else schedules
    data = open_streams(images, size=None, channels=None, strict=False)
    stage = Stage(nets, objective, schedules=schedules, optimizers=optimizers)
    return ActiveStage(stage, data, **{**COMMON, "graphs": graphs, **options})


def assert_same_state(left, right):
    """Weights, averages and optimiser state of two stages, bit for bit."""
    (mine, others), (trees, other_trees) = ({}, {}), ([], [])
    for stage, tensors, found in ((left, mine, trees), (right, others, other_trees)):
        found.append(flatten(stage.state(), tensors))
    assert trees == other_trees
    assert mine.keys() == others.keys()
    assert [key for key in mine if not torch.equal(mine[key], others[key])] == []


@pytest.mark.parametrize("resident_bytes", [2**31, 0], ids=["resident", "streamed"])
def test_the_engines_graphs_equal_its_eager_steps(resident_bytes):
    """Sampling, flips, noise, repeated phases, lazy R1 (two graphs), Adam with a scheduled lr, EMA:
    all inside, bit for bit."""
    eager, graphed = (
        stage_of(None, resident_bytes=resident_bytes),
        stage_of(RecordedGraph, resident_bytes=resident_bytes),
    )
    # The same arithmetic for both: with lr on the device Adam multiplies in fp32.
    for optimizer in eager.optimizers.values():
        for group in optimizer.param_groups:
            if optimizer is eager.optimizers["G"]:
                group["lr"] = torch.tensor(group["lr"])
    for step in range(7):
        expected = {k: v.clone() for k, v in eager.train_step(step).items()}
        found = {k: v.clone() for k, v in graphed.train_step(step).items()}
        assert graphed.graph_reason is None
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[k], found[k]) for k in expected), step
    assert len(graphed.graphs.variants) == 2
    for kind in ("nets", "ema"):
        for name, state in eager.state()[kind].items():
            for key, value in state.items():
                assert torch.equal(value, graphed.state()[kind][name][key]), f"{kind}/{name}/{key}"
    eager.close()
    graphed.close()


class Reading(fastgan.Adversarial):
    def g_loss(self, step):
        assert float(step.fake.detach().mean()) < 2
        return super().g_loss(step)


def test_the_engine_falls_back_to_eager_with_a_reason():
    graphed = stage_of(RecordedGraph, objective=Reading(latent_shape=(8, 1, 1)))
    assert graphed.train_step(0)["loss/G"].isfinite()
    assert "test_capture.py" in graphed.graph_reason


FALLING = {name: {"lr": Linear(0.1, 0.01, 10)} for name in "GD"}
RISING = {name: {"lr": Linear(0.1, 0.01, 10), "momentum": Linear(0.5, 0.7, 10)} for name in "GD"}


# Not with momentum in fp16: where the first step is skipped, torch's fused SGD leaves the buffer as
# memory was.
@pytest.mark.parametrize(("momentum", "precision"), [(0.0, "fp32"), (0.5, "fp32"), (0.0, "fp16")])
def test_sgd_follows_a_schedule_inside_a_graph(momentum, precision):
    """torch's SGD reads a tensor rate on the host unless it is fused; checkpoints show nothing of
    that."""
    make = lambda fused: lambda p: torch.optim.SGD(p, lr=0.1, momentum=momentum, fused=fused)
    options = {"schedules": FALLING, "precision": resolve(precision, CPU)}
    eager, graphed = (
        stage_of(None, optimizers=make(True), **options),
        stage_of(RecordedGraph, optimizers=make(None), **options),
    )
    for optimizer in eager.optimizers.values():
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    plain = stage_of(None, optimizers=make(None), **options)
    for step in range(5):
        for stage in (eager, graphed, plain):
            stage.train_step(step)
        assert graphed.graph_reason is None
    for name in "GD":
        for mine, other in zip(
            graphed.nets[name].parameters(), eager.nets[name].parameters(), strict=True
        ):
            assert torch.equal(mine, other)
    groups = {
        key: stage.state()["optimizers"]["G"]["param_groups"]
        for key, stage in (("graph", graphed), ("plain", plain))
    }
    assert groups["graph"] == groups["plain"]
    assert isinstance(groups["graph"][0]["lr"], float)
    again = stage_of(RecordedGraph, optimizers=make(None), **options)
    again.load_state(copy.deepcopy(graphed.state()))
    for step in range(5, 7):
        again.train_step(step)
        graphed.train_step(step)
    assert_same_state(again, graphed)


def test_recipe_gans_momentum_schedule_runs_inside_a_graph():
    make = lambda p: SGD(p, 0.1, 0.5)
    held, graphed = (stage_of(g, schedules=RISING, optimizers=make) for g in (None, RecordedGraph))
    plain = stage_of(
        None, schedules=RISING, optimizers=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5)
    )
    held.rates.hold(CPU)
    for step in range(5):
        for stage in (held, graphed, plain):
            stage.train_step(step)
        assert graphed.graph_reason is None
    assert_same_state(held, graphed)
    for mine, other in zip(
        graphed.nets["G"].parameters(), plain.nets["G"].parameters(), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_where_capture_fails_rates_are_python_numbers_again():
    """From the first step on: a run that falls back equals one without graphs, and reads no rate
    from the device."""
    options = {"schedules": FALLING, "objective": Reading(latent_shape=(8, 1, 1))}
    make = lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5)
    plain, fallen = (stage_of(g, optimizers=make, **options) for g in (None, RecordedGraph))
    for step in range(3):
        plain.train_step(step)
        fallen.train_step(step)
    assert "test_capture.py" in fallen.graph_reason
    assert isinstance(fallen.optimizers["D"].param_groups[0]["lr"], float)
    assert not fallen.optimizers["D"].param_groups[0]["fused"]
    assert_same_state(plain, fallen)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Rprop(p, lr=1e-3),
        lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, dampening=0.5),
    ],
    ids=["Rprop", "dampened SGD"],
)
def test_an_optimizer_that_does_not_begin_at_zero_takes_its_first_step_without_the_graph(make):
    """So does a fresh NAdam, whose running product begins at one: a warm-up could not be undone."""
    eager, graphed = (stage_of(g, schedules={}, optimizers=make) for g in (None, RecordedGraph))
    for step in range(4):
        eager.train_step(step)
        graphed.train_step(step)
        assert graphed.graph_reason is None
        assert len(graphed.graphs.variants) == (0, 1, 1, 2)[step]
    assert_same_state(eager, graphed)


def test_graph_modes():
    assert graph_backend("auto", CPU, DistributedContext()) is None
    assert graph_backend("off", CPU, DistributedContext()) is None
    with pytest.raises(fastgan.FastganError, match="needs a GPU"):
        graph_backend("on", CPU, DistributedContext())
    with pytest.raises(fastgan.FastganError, match="auto, on or off"):
        graph_backend("always", CPU, DistributedContext())


def test_a_schedule_that_a_graph_cannot_follow_leaves_eager_steps():
    """Recipe gan schedules SGD's momentum, which is a Python number: it trains without a graph, and
    says why."""
    torch.manual_seed(0)
    nets = {"G": Generator(16, 1, 8, 2), "D": Discriminator(16, 1, 2)}
    schedule = {"lr": Linear(0.1, 0.0, 10), "momentum": Linear(0.5, 0.7, 10)}
    data = open_streams(np.zeros((16, 16, 16, 1), np.uint8), size=None, channels=None, strict=False)
    stage = ActiveStage(
        Stage(
            nets,
            fastgan.Adversarial(latent_shape=(8, 1, 1)),
            optimizers=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5),
            schedules={"G": schedule, "D": schedule},
        ),
        data,
        **{**COMMON, "graphs": RecordedGraph},
    )
    assert stage.train_step(3)["loss/G"].isfinite()
    assert "'momentum' can't be captured" in stage.graph_reason
    assert isinstance(stage.optimizers["G"].param_groups[0]["lr"], float)
    stage.load_state(stage.state())
    assert stage.optimizers["D"].param_groups[0]["momentum"] == pytest.approx(0.56)


def test_the_loss_scale_of_fp16_is_as_found_after_warm_up():
    eager, graphed = (
        stage_of(None, precision=resolve("fp16", CPU)),
        stage_of(RecordedGraph, precision=resolve("fp16", CPU)),
    )
    for optimizer in eager.optimizers.values():
        optimizer.param_groups[0]["lr"] = torch.as_tensor(optimizer.param_groups[0]["lr"])
    for step in range(4):
        eager.train_step(step)
        graphed.train_step(step)
        assert graphed.graph_reason is None
        assert eager.state()["scalers"] == graphed.state()["scalers"]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.NAdam(p, lr=1e-3),
        lambda p: torch.optim.ASGD(p, lr=1e-3),
        lambda p: torch.optim.Rprop(p, lr=1e-3),
        lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, dampening=0.5),
    ],
    ids=["NAdam", "ASGD", "Rprop", "dampened SGD"],
)
def test_an_optimizer_that_does_not_begin_at_zero_is_not_reset_to_zero(make):
    torch.manual_seed(0)
    net = nn.Linear(2, 1)
    optimizer = make(net.parameters())

    def step(x):
        optimizer.zero_grad(set_to_none=True)
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    refused = capture(step, example_inputs=[REAL], state=[net, optimizer], backend=RecordedGraph)
    assert not refused.captured
    assert "does not begin at zero: take one step before capture" in refused.reason
    assert not optimizer.state


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graph_of_a_loop():
    loop = Loop(torch.tensor(1e-2, device="cuda"))
    for part in (loop.G, loop.D):
        part.cuda()
    captured = capture(loop.step, example_inputs=[REAL.cuda()], state=loop.state)
    assert captured.captured, captured.reason


def test_a_graph_that_fails_later_is_told_of_too(monkeypatch, capsys):
    """Step 0 computes every lazy term: what the other steps do is captured at the second."""

    class Later(fastgan.Adversarial):
        def d_loss(self, step):
            terms = super().d_loss(step)
            if not step.due("r1"):
                terms["adv"].item()
            return terms

    monkeypatch.setattr(session, "graph_backend", lambda *_: RecordedGraph)
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 1), np.uint8)
    objective = Later(latent_shape=(8, 1, 1), r1=1.0, lazy_r1=4)
    options = {
        "objective": objective,
        "data": images,
        "batch_size": 4,
        "watch": False,
        "log_every": 1,
    }
    with fastgan.Trainer(Generator(16, 1, 8, 2), Discriminator(16, 1, 2), **options) as trainer:
        trainer.fit(4)
    said = capsys.readouterr().err
    assert said.count("steps run without a CUDA graph") == 1
    assert "test_capture.py" in said
    with fastgan.Trainer(
        Generator(16, 1, 8, 2), Discriminator(16, 1, 2), graph="on", **options
    ) as trainer:
        with pytest.raises(fastgan.FastganError, match="graph='on', but steps can't be captured"):
            trainer.fit(4)
        assert trainer.step == 2


class Capturing(RecordedGraph):
    """A recording during which torch believes that the device's stream is being captured, as its
    optimisers ask."""

    def capture(self, function):
        stream = mock.Mock(**{"is_capturing.return_value": True})
        with (
            mock.patch.object(torch.cuda, "is_current_stream_capturing", return_value=True),
            mock.patch.object(
                torch.accelerator, "current_accelerator", return_value=torch.device("cuda")
            ),
            mock.patch.object(torch.accelerator, "current_stream", return_value=stream),
        ):
            return super().capture(function)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, 1e-3, fused=True),
        lambda p: torch.optim.AdamW(p, 1e-3, fused=True),
        lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9),
    ],
)
def test_torchs_optimizers_pass_torchs_own_check_while_a_stream_is_captured(make):
    loop = Loop()
    loop.adam_g, loop.adam_d = make(loop.G.parameters()), make(loop.D.parameters())
    loop.state = [loop.G, loop.D, loop.adam_g, loop.adam_d]
    before = copy.deepcopy([o.state_dict()["param_groups"] for o in (loop.adam_g, loop.adam_d)])
    captured = capture(loop.step, example_inputs=[REAL], state=loop.state, backend=Capturing)
    assert captured.reason is None
    assert captured.captured
    assert [o.state_dict()["param_groups"] for o in (loop.adam_g, loop.adam_d)] == before


def test_the_engines_default_step_is_captured_while_torch_checks():
    active = stage_of(Capturing)
    for step in range(3):
        active.train_step(step)
    assert active.graph_reason is None
    assert not any(
        group["capturable"] for o in active.optimizers.values() for group in o.param_groups
    )
