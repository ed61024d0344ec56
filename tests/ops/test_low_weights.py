"""bf16 runs on the copy of the weights that FlatAdam keeps: autocast's numbers, bit for bit,
without its casts."""

import copy
from collections import Counter

import pytest
import torch
from flat_stages import plain_adam, stage_of
from interpreter_child import interpreted, parent, run_interpreted
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import fastgan
from fastgan.acceleration import accelerate
from fastgan.graphs.backends import RecordedGraph
from fastgan.kernels import adam as kernel
from fastgan.ops.adam.flat_parameters import FlatParameters
from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.ops.low_weights import LowWeights, cast
from fastgan.precision import Precision
from fastgan.trainer.optimization import fused

pytestmark = pytest.mark.usefixtures("flattened")
BF16 = torch.bfloat16


class Scaled(nn.Conv2d):
    """Somebody's own: a weight of equal learning rates, and one that is used as it is."""

    def __init__(self, *args):
        super().__init__(*args)
        self.mix = nn.Parameter(torch.randn(8, 8, 1, 1) * 0.3)

    def forward(self, x):
        return nn.functional.conv2d(
            super()._conv_forward(x, self.weight * 0.5, self.bias), weight=self.mix
        )


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)


def networks():
    generator = nn.Sequential(
        nn.ConvTranspose2d(8, 16, 4),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 4),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        Scaled(1, 8, 4, 2, 1),
        nn.LeakyReLU(0.2),
        Checkpointed(),
        spectral_norm(nn.Conv2d(8, 8, 4, 4)),
        nn.Flatten(),
        nn.Linear(32, 1),
    )
    return {"G": generator, "D": discriminator}


class Objective(fastgan.Adversarial):
    """R1, and a weight that the loss reads in fp32 besides."""

    def d_loss(self, step):
        return super().d_loss(step) | {"decay": 1e-3 * step.nets.D[0].weight.square().sum()}


class Clipping(Objective):
    """The clipping of WGAN's time, between the passes of one step."""

    @staticmethod
    def clip(p):
        with torch.no_grad():
            p.clamp_(-0.05, 0.05)

    def g_loss(self, step):
        for p in step.nets.D.parameters():
            self.clip(p)
        return super().g_loss(step)


class ClippingData(Clipping):
    @staticmethod
    def clip(p):
        p.data.clamp_(-0.05, 0.05)


def own(objective=Objective, swapped=False, **options):
    torch.manual_seed(5)
    nets = networks()
    for net in nets.values() if swapped else ():
        accelerate(net)
    objective = objective(latent_shape=(8, 1, 1), r1=1.0, lazy_r1=3)
    return stage_of(objective, optimizers=plain_adam, precision="bf16", nets=nets, **options)


def cast_by_autocast(monkeypatch, make):
    with monkeypatch.context() as patched:
        patched.setattr(Precision, "copied", None)
        return make()


def states(stage):
    return {
        (kind, name, key): v
        for kind in ("nets", "ema")
        for name, s in stage.state()[kind].items()
        for key, v in s.items()
    }


def assert_equal(ours, theirs):
    found, expected = states(ours), states(theirs)
    assert [key for key, value in expected.items() if not torch.equal(found[key], value)] == []


class Casts(TorchDispatchMode):
    """Counts casts between the two types of tensors that have a parameter's shape."""

    def __init__(self, stage):
        super().__init__()
        self.shapes = {
            p.shape for net in stage.nets.values() for p in net.parameters() if p.dim() > 1
        }
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if (
            func is torch.ops.aten._to_copy.default
            and out.shape in self.shapes
            and out.dtype != args[0].dtype
        ):
            self.found[args[0].dtype, out.dtype] += 1
        return out


@pytest.mark.parametrize(
    "make", [own, lambda **o: own(swapped=True, **o), lambda **o: stage_of(precision="bf16", **o)]
)
def test_training_is_autocasts_bit_for_bit(monkeypatch, make):
    """Gradients of two passes, of R1's double backward and of a fp32 term included: autograd adds
    them as it did."""
    ours, theirs = make(), cast_by_autocast(monkeypatch, make)
    assert theirs.optimizers["D"].low is None
    for step in range(5):
        ours.train_step(step)
        theirs.train_step(step)
    assert_equal(ours, theirs)
    adam = ours.optimizers["D"]
    assert torch.equal(adam.low, adam.flat.data.bfloat16())


def test_no_weight_is_cast_and_no_gradient_cast_back(monkeypatch):
    make = lambda: stage_of(precision="bf16")
    casts = {}
    for name, stage in (("copy", make()), ("autocast", cast_by_autocast(monkeypatch, make))):
        stage.train_step(0)
        stage._fill(1)
        with Casts(stage) as counted:
            stage.on_device({})
        casts[name] = counted.found
        kinds = {p.grad.dtype for p in stage.nets["D"].parameters() if p.dim() > 1}
        assert kinds == {BF16 if name == "copy" else torch.float32}
    layers = (
        sum(p.dim() > 1 for p in stage.nets["G"].parameters()),
        sum(p.dim() > 1 for p in stage.nets["D"].parameters()),
    )
    # G's once, D's for its own phase and, frozen, for G's
    assert casts["autocast"][torch.float32, BF16] >= layers[0] + 2 * layers[1]
    assert casts["autocast"][BF16, torch.float32] == sum(layers)
    assert not casts["copy"]


@pytest.mark.parametrize("objective", [Clipping, ClippingData])
@pytest.mark.parametrize("graphs", [None, RecordedGraph])
def test_weights_written_within_a_step_are_seen(monkeypatch, objective, graphs):
    make = lambda: own(objective, graphs=graphs)
    ours, theirs = make(), cast_by_autocast(monkeypatch, make)
    for step in range(4):
        ours.train_step(step)
        theirs.train_step(step)
    assert ours.graph_reason == theirs.graph_reason == (None if graphs else "off")
    assert_equal(ours, theirs)


@pytest.mark.parametrize("graphs", [None, RecordedGraph])
def test_weights_written_between_steps_are_seen(monkeypatch, graphs):
    make = lambda: own(graphs=graphs)
    ours, theirs = make(), cast_by_autocast(monkeypatch, make)
    other = copy.deepcopy(ours.state())
    for step in range(6):
        if step == 2:
            for stage in (ours, theirs):
                stage.load_state(copy.deepcopy(other))
        if step == 4:
            for stage in (ours, theirs):
                with torch.no_grad():
                    stage.nets["G"][0].weight.mul_(0.9)
        ours.train_step(step)
        theirs.train_step(step)
    assert_equal(ours, theirs)


def test_graphs_hold_no_cast_of_a_weight():
    """The restored state of a capture leaves the copy up to date: the recording does not make it
    anew."""
    stage = stage_of(precision="bf16", graphs=RecordedGraph)
    for step in range(2):
        stage.train_step(step)
    assert stage.graph_reason is None
    weights = {p.data_ptr() for net in stage.nets.values() for p in net.parameters()}
    read = lambda args: [a.data_ptr() for a in args if isinstance(a, torch.Tensor) and a.dim() > 1]
    for graph, _ in stage.graphs.variants.values():
        assert not [
            1
            for func, args, _, _ in graph.calls
            if func in COPIES and weights.intersection(read(args))
        ]


COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)


def one(**options):
    net = nn.Linear(32, 4)
    adam = FlatAdam(FlatParameters(net), low_precision=BF16, impl="reference")
    with torch.no_grad():
        adam.low.add_(1)  # a copy that can be told from a cast
    return net, adam, LowWeights([adam])


def is_copy(value, adam):
    return value.data_ptr() == adam.copies[0].data_ptr()


def test_it_stays_out_of_what_autocast_would_not_cast():
    net, adam, low = one()
    x = torch.randn(2, 32)
    exact = net(x)
    with low:
        assert torch.equal(net(x), exact)  # no autocast
        with torch.autocast("cpu", torch.float16):
            assert net(x).dtype == torch.float16
            assert not is_copy(cast(net.weight, torch.float16), adam)
        with torch.autocast("cpu", BF16):
            assert (net(x).float() - exact).abs().max() > 1
            assert is_copy(cast(net.weight, BF16), adam)
            assert torch.equal(net.weight * 1.0, net.weight)
            with torch.autocast("cpu", enabled=False):
                assert torch.equal(net(x), exact)
            gradients = torch.func.grad(
                lambda w: nn.functional.linear(x, w, net.bias).float().sum()
            )(net.weight)
            assert gradients.dtype == torch.float32
    with torch.autocast("cpu", BF16):
        assert (net(x).float() - exact).abs().max() < 0.1


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_parameter_with_a_hook_is_autocasts(register):
    net, adam, low = one()
    seen = []
    getattr(net.weight, register)(lambda value: seen.append(value.dtype))
    with low, torch.autocast("cpu", BF16):
        assert not is_copy(cast(net.weight, BF16), adam)
        net(torch.randn(2, 32)).sum().backward()
    assert seen == [torch.float32]


def test_frozen_parameters_make_no_graph():
    net, _, low = one()
    net.requires_grad_(False)
    with low, torch.autocast("cpu", BF16):
        assert not net(torch.randn(2, 32)).requires_grad


def test_a_stale_backward_still_raises():
    net, adam, low = one()
    with low, torch.autocast("cpu", BF16):
        loss = net(torch.randn(2, 32, requires_grad=True)).sum()
    loss.backward(retain_graph=True)
    adam.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_compiled_networks_are_left_to_autocast():
    nets = networks()
    nets["D"].compile(backend="eager")
    stage = stage_of(Objective(latent_shape=(8, 1, 1)), precision="bf16", nets=nets)
    assert all(o.low is None for o in stage.optimizers.values())


@pytest.mark.parametrize(("precision", "kept"), [("fp32", None), ("fp16", None), ("bf16", BF16)])
def test_bf16_alone_keeps_a_copy(precision, kept):
    low = stage_of(precision=precision).optimizers["G"].low
    assert (None if low is None else low.dtype) == kept


def test_captured_steps_on_a_gpu_have_it_by_default(monkeypatch):
    monkeypatch.undo()
    gpu = torch.device("cuda")
    monkeypatch.setattr(fused.dispatch, "missing", lambda engine, device: None)
    monkeypatch.setattr(fused.tuning, "engine", lambda *_: None)
    assert fused.engine_of("auto", 4096, gpu, True) == "triton"
    assert fused.engine_of("auto", 4096, gpu) is None
    assert fused.engine_of("reference", 4096, gpu, True) is None
    monkeypatch.setattr(fused.tuning, "engine", lambda *_: "reference")
    assert fused.engine_of("auto", 4096, gpu, True) is None  # measured
    monkeypatch.setattr(fused.tuning, "engine", lambda *_: None)
    monkeypatch.setattr(fused.dispatch, "missing", lambda engine, device: "Triton is not installed")
    assert fused.engine_of("auto", 4096, gpu, True) is None


@parent
@pytest.mark.slow
def test_in_the_interpreter():
    run_interpreted(__file__)


@pytest.fixture
def rounding(monkeypatch):
    """The interpreter cuts bf16 off where hardware rounds (cvt.rn)."""
    launch = kernel.adam_ema_

    def rounded(param, grad, exp_avg, exp_avg_sq, ema, low, *rest):
        launch(param, grad, exp_avg, exp_avg_sq, ema, low, *rest)
        low.copy_(param)

    monkeypatch.setattr(kernel, "adam_ema_", rounded)


@interpreted
def test_kernel_reads_the_engines_bf16_gradients(monkeypatch, rounding):
    """One update of D from the gradients as autograd left them; later ones feed on its last
    places."""
    stages = []
    for engine in ("reference", "triton"):
        monkeypatch.setattr(fused, "engine_of", lambda *_, engine=engine: engine)
        stages.append(stage_of(precision="bf16", optimizers=plain_adam))
        stages[-1].train_step(0)
    assert {p.grad.dtype for p in stages[1].nets["D"].parameters()} == {BF16, torch.float32}
    mine, other = (stage.optimizers["D"] for stage in reversed(stages))
    # lr 2e-3, and Adam's step is at most lr: an ulp of it and one of the parameter
    assert (
        (mine.flat.data - other.flat.data).abs() <= 16 * 2**-24 * (2e-3 + other.flat.data.abs())
    ).all()


@interpreted
def test_kernel_in_graphs_equals_eager_steps(monkeypatch, rounding):
    monkeypatch.setattr(fused, "engine_of", lambda *_: "triton")
    eager, graphed = stage_of(precision="bf16"), stage_of(precision="bf16", graphs=RecordedGraph)
    for step in range(3):
        eager.train_step(step)
        graphed.train_step(step)
    assert graphed.graph_reason is None
    assert_equal(graphed, eager)
