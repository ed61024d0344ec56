"""Normalisation: PyTorch's semantics argument by argument, exact gradients of first and second
order, and the kernels in the interpreter.

Every test runs twice: here on the reference path, and in a child process with TRITON_INTERPRET=1,
where impl="auto" means the kernels.
"""

import copy
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels.common import INTERPRET, has_triton
from fastgan.kernels.norm import backward as backward_kernels
from fastgan.kernels.norm import backward_sums, tickets
from fastgan.kernels.norm import forward as forward_kernels
from fastgan.kernels.norm import moments as forward_kernels_moments
from fastgan.kernels.norm.moments import moments_backward
from fastgan.ops.dispatch import prefer
from fastgan.ops.norm import apply, handed_on, modules, moments
from fastgan.ops.norm import functional as norm
from fastgan.ops.norm import train as norm_autograd
from fastgan.verify.cases import norm_launches

kernels_only = pytest.mark.skipif(
    not INTERPRET, reason="runs in the child process with TRITON_INTERPRET=1"
)
SHAPES = [(4, 6), (4, 5, 7), (4, 3, 5, 7), (2, 33, 3, 2, 3), (1, 1, 3, 2), (3, 15, 1, 4)]


@pytest.mark.skipif(
    INTERPRET or not has_triton, reason="starts the child process that interprets the kernels"
)
@pytest.mark.slow
@pytest.mark.parametrize("which", ["not slow", "slow"])
def test_kernels_in_the_interpreter(which):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", __file__, "-m", which]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def channels_last(x):
    return x.contiguous(
        memory_format={4: torch.channels_last, 5: torch.channels_last_3d}.get(
            x.dim(), torch.contiguous_format
        )
    )


def close(a, b, bound=2e-5):
    assert (a is None) == (b is None)
    if a is not None:
        assert a.shape == b.shape
        assert b.dtype in (a.dtype, torch.float64)
        a, b = a.detach().double(), b.detach().double()
        assert (a - b).norm() <= bound * max(b.norm().item(), 1e-3 * b.numel() ** 0.5), (
            (a - b).norm() / b.norm()
        ).item()


def run(fn, tensors, order=2):
    """Output, first and second order gradients of a penalty that mixes all of them; absent
    gradients are zero."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    z = fn(*leaves)
    cotangent = torch.randn(z.shape, generator=torch.Generator().manual_seed(7)).to(z.dtype)
    first = torch.autograd.grad(z, leaves, cotangent, create_graph=order > 1)
    out = [z, *first]
    if order > 1:
        penalty = sum(g.square().sum() for g in first)
        second = (
            torch.autograd.grad(penalty, leaves, allow_unused=True)
            if penalty.requires_grad
            else [None] * len(leaves)
        )
        out += [torch.zeros_like(t) if g is None else g for g, t in zip(second, leaves)]
    return out


def wide(*tensors):
    return [t.double() for t in tensors]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_agrees_with_torch(shape, training, affine):
    torch.manual_seed(0)
    x = channels_last(torch.randn(shape) * 2 + 1)
    vectors = [torch.rand(shape[1]) + 0.5, torch.randn(shape[1])] if affine else []
    buffers = [
        (torch.linspace(-1, 1, shape[1]), torch.linspace(0.5, 2, shape[1])) for _ in range(2)
    ]
    mine = run(
        lambda x, *v: norm.batch_norm(
            x, *buffers[0], *v, training=training, momentum=0.3, eps=1e-3
        ),
        [x, *vectors],
    )
    buffers[1] = wide(*buffers[1])
    theirs = run(
        lambda x, *v: F.batch_norm(x, *buffers[1], *v, training=training, momentum=0.3, eps=1e-3),
        wide(x, *vectors),
    )
    for a, b in zip([*mine, *buffers[0]], [*theirs, *buffers[1]], strict=True):
        close(a, b, 1e-4)  # gradients through few values cancel


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("act", ["identity", "relu", "leaky_relu", "tanh", "sigmoid", "silu"])
def test_activations(kind, act):
    x = channels_last(torch.randn(3, 15, 6, 5, generator=torch.Generator().manual_seed(1))).to(kind)
    w, b = torch.rand(15) + 0.5, torch.randn(15)
    mine = norm.batch_norm(x, None, None, w, b, True, activation=act, slope=0.2)
    wide = F.batch_norm(x.double(), None, None, w.double(), b.double(), True)
    act_fn = {"identity": lambda p: p, "leaky_relu": lambda p: F.leaky_relu(p, 0.2), "silu": F.silu}
    ref = act_fn.get(act, getattr(torch, act, None))(wide)
    close(mine.double(), ref, 4e-4 if kind == torch.float16 else 1e-6)


@pytest.mark.parametrize("momentum", [0.1, None, 0.0])
@pytest.mark.parametrize("grad", [True, False])
def test_grouped_is_two_forwards(momentum, grad):
    torch.manual_seed(0)
    theirs = nn.BatchNorm2d(5, momentum=momentum)
    nn.init.normal_(theirs.weight)
    mine = modules.BatchNorm2d.adopt(copy.deepcopy(theirs))
    assert isinstance(mine, nn.BatchNorm2d)
    assert "BatchNorm" in type(mine).__name__
    for _ in range(2):
        real, fake = (channels_last(torch.randn(3, 5, 4, 3) + m) for m in (0.0, 3.0))
        with torch.set_grad_enabled(grad), modules.grouped(2):
            z = mine(channels_last(torch.cat([real, fake])))
        close(z, torch.cat([theirs(real), theirs(fake)]), 1e-5)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    assert mine.num_batches_tracked == theirs.num_batches_tracked == 4
    for key, value in theirs.state_dict().items():
        close(mine.state_dict()[key], value, 1e-6)
    theirs.eval()
    mine.eval()
    with modules.grouped(2):
        close(mine(real), theirs(real), 1e-6)


def test_a_group_never_sees_its_neighbour():
    real, fake = (channels_last(torch.randn(2, 17, 33, 34) + m) for m in (0.0, 50.0))
    both = norm.batch_norm(
        channels_last(torch.cat([real, fake])), None, None, training=True, groups=2
    )
    for part, alone in zip(both.chunk(2), (real, fake)):
        assert torch.equal(part, norm.batch_norm(alone, None, None, training=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_class_conditional(training, groups):
    torch.manual_seed(0)
    x, w, b = channels_last(torch.randn(4, 3, 3, 5)), torch.rand(4, 3) + 0.5, torch.randn(4, 3)
    mean, var = torch.randn(3), torch.rand(3) + 0.5

    def formula(x, w, b):
        parts = x.chunk(groups) if training else (x,)
        p = torch.cat(
            [
                F.batch_norm(part, *((None, None) if training else (mean, var)), training=training)
                for part in parts
            ]
        )
        return torch.tanh(p * w[:, :, None, None] + b[:, :, None, None])

    call = lambda x, w, b: norm.batch_norm(
        x, mean.clone(), var.clone(), w, b, training, activation="tanh", groups=groups
    )
    for a, r in zip(run(call, [x, w, b]), run(formula, [x, w, b]), strict=True):
        close(a, r, 1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 9), (3, 15, 4, 7), (2, 3, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("use_input_stats", [True, False])
def test_instance_norm_agrees_with_torch(shape, use_input_stats):
    torch.manual_seed(0)
    x, w, b = (
        channels_last(torch.randn(shape) + 2),
        torch.rand(shape[1]) + 0.5,
        torch.randn(shape[1]),
    )
    buffers = [(torch.zeros(shape[1]), torch.ones(shape[1])) for _ in range(2)]
    mine = run(lambda x, w, b: norm.instance_norm(x, *buffers[0], w, b, use_input_stats), [x, w, b])
    buffers[1] = wide(*buffers[1])
    theirs = run(
        lambda x, w, b: F.instance_norm(x, *buffers[1], w, b, use_input_stats), wide(x, w, b)
    )
    for a, r in zip([*mine, *buffers[0]], [*theirs, *buffers[1]], strict=True):
        close(a, r, 2e-5)


def test_affine_act_and_moments_are_batch_norm():
    """Handed-on normalisation: the chain rule through moments, affine and affine_act gives batch
    norm's gradients."""
    torch.manual_seed(0)
    x, w, b = channels_last(torch.randn(4, 6, 5, 3) + 1), torch.rand(6) + 0.5, torch.randn(6)

    def by_moments(x, w, b):
        mean, var = handed_on.moments(x, 2)
        return handed_on.affine_act(x, *handed_on.affine(mean, var, w, b), activation="silu")

    whole = lambda x, w, b: norm.batch_norm(x, None, None, w, b, True, activation="silu", groups=2)
    for a, r in zip(run(by_moments, [x, w, b]), run(whole, [x, w, b]), strict=True):
        close(a, r, 2e-5)


def test_gradient_penalty_of_a_network_equals_pytorchs():
    """Second order through stacked layers: the upstream gradient of a layer depends on the weights
    of the layer itself."""
    torch.manual_seed(0)
    theirs = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, bias=False),
        nn.InstanceNorm2d(4, affine=True),
        nn.Tanh(),
    )
    mine = copy.deepcopy(theirs)
    modules.BatchNorm2d.adopt(mine[1], "tanh")
    modules.InstanceNorm2d.adopt(mine[4], "tanh")
    mine[2] = mine[5] = nn.Identity()
    x = channels_last(torch.randn(3, 3, 8, 7))
    losses = []
    for network in (mine.to(memory_format=torch.channels_last), theirs):
        leaf = x.clone().requires_grad_()
        out = network(leaf)
        (gx,) = torch.autograd.grad(out.sum(), leaf, create_graph=True)
        loss = gx.square().sum((1, 2, 3)).mean() + out.mean()
        loss.backward()
        losses.append(loss)
    close(losses[0], losses[1], 1e-5)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(p.grad, q.grad, 2e-5)


def test_running_statistics_of_all_layers_at_once():
    torch.manual_seed(0)
    sizes, results = [3, 17, 1500], []
    stats = [torch.rand(2, g, c) for g, c in zip((1, 2, 2), sizes)]
    for impl in ("auto", "reference"):
        torch.manual_seed(1)
        means, variances = [torch.randn(c) for c in sizes], [torch.rand(c) + 0.5 for c in sizes]
        tracked = [torch.tensor(i) for i in range(3)]
        handed_on.update_running_stats(
            means, variances, tracked, stats, [10, 20, 30], [0.1, None, 0.3], impl=impl
        )
        results.append([*means, *variances, *tracked])
    for a, b in zip(*results, strict=True):
        close(a, b, 1e-6)


def test_errors_name_the_remedy():
    x = channels_last(torch.randn(4, 3, 2, 2))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm.batch_norm(torch.randn(1, 3, 1, 1), None, None, training=True)
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        norm.instance_norm(torch.randn(2, 3, 1, 1))
    with pytest.raises(ValueError, match="eps must be positive"):
        norm.batch_norm(x, None, None, training=True, eps=0.0)
    with pytest.raises(FastganError, match="groups"):
        norm.batch_norm(x, None, None, training=True, groups=3)
    with pytest.raises(FastganError, match="num_batches_tracked"):
        norm.batch_norm(x, torch.zeros(3), torch.ones(3), training=True, momentum=None)
    with pytest.raises(FastganError, match="unknown activation"):
        norm.batch_norm(x, None, None, training=True, activation="swish")
    with pytest.raises(FastganError, match="one row of it per sample"):
        norm.batch_norm(x, None, None, torch.ones(2, 3), training=True)
    with pytest.raises(FastganError, match="one row of it per group"):
        handed_on.affine_act(x, torch.ones(3, 3), None)


def test_reference_passes_gradgradcheck():
    torch.manual_seed(0)
    x, w, b = (
        torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((4, 2, 2), (4, 2), (2,))
    )
    with prefer("reference"):
        for call in (
            lambda x, w, b: norm.batch_norm(
                x, None, None, w, None, True, activation="silu", groups=2
            ),
            lambda x, w, b: norm.instance_norm(x, None, None, w, None, activation="tanh"),
            lambda x, w, b: (
                handed_on.affine_act(x, w, None, activation="sigmoid")
                + handed_on.affine_act(x, b, b)
            ),
            lambda x, w, b: handed_on.moments(x, 2)[1],
        ):
            assert torch.autograd.gradcheck(call, (x, w, b))
            assert torch.autograd.gradgradcheck(call, (x, w, b))


def test_modules_are_drop_in():
    for name in (
        "BatchNorm1d",
        "BatchNorm2d",
        "BatchNorm3d",
        "InstanceNorm1d",
        "InstanceNorm2d",
        "InstanceNorm3d",
    ):
        ours, torchs = getattr(modules, name)(4), getattr(nn, name)(4)
        assert isinstance(ours, type(torchs))
        ours.load_state_dict(torchs.state_dict())
        assert ours.state_dict().keys() == torchs.state_dict().keys()
    free = modules.BatchNorm2d(3, track_running_stats=False).eval()
    x = channels_last(torch.randn(2, 3, 3, 3))
    close(free(x), F.batch_norm(x, None, None, free.weight, free.bias, True), 1e-6)
    conditional = modules.ConditionalBatchNorm2d(3, 5, activation="relu")
    assert conditional(x, torch.tensor([1, 4])).shape == x.shape


def test_unbatched_instance_norm_and_layouts():
    ours = modules.InstanceNorm2d(3)
    ours.activation = "relu"
    x = torch.randn(3, 5, 4)
    close(ours(x), F.relu(F.instance_norm(x[None])[0]), 1e-6)
    rows = torch.randn(4, 7, 3).transpose(1, 2)  # (4, 3, 7), channels innermost
    close(
        norm.batch_norm(rows, None, None, training=True),
        F.batch_norm(rows, None, None, training=True),
        1e-6,
    )


@kernels_only
def test_any_layout_gives_the_same_bits():
    x = torch.randn(3, 5, 4, 6)
    expected = norm.batch_norm(
        channels_last(x), None, None, training=True, activation="relu", impl="triton"
    )
    wide = torch.randn(3, 5, 4, 12)
    wide[..., ::2] = x
    for other in (x, wide[..., ::2], x.transpose(2, 3).contiguous().transpose(2, 3)):
        z = norm.batch_norm(other, None, None, training=True, activation="relu", impl="triton")
        assert torch.equal(z, expected)
        assert z.is_contiguous(memory_format=torch.channels_last)


IN_PLACE = {
    "batch_norm": lambda x, w, b, impl: norm.batch_norm(x, None, None, w, b, True, impl=impl),
    "batch_norm eval": lambda x, w, b, impl: norm.batch_norm(
        x, w.detach() * 0, w.detach() * 0 + 1, w, b, impl=impl
    ),
    "instance_norm": lambda x, w, b, impl: norm.instance_norm(x, None, None, w, b, impl=impl),
    "affine_act": lambda x, w, b, impl: handed_on.affine_act(x, w, b, impl=impl),
}


@kernels_only
@pytest.mark.parametrize("op", IN_PLACE)
@pytest.mark.parametrize(
    "layout", [channels_last, torch.Tensor.contiguous], ids=["channels_last", "contiguous"]
)
@pytest.mark.parametrize(
    "follow",
    [nn.ReLU(True), nn.LeakyReLU(0.2, True), lambda z: z.mul_(2)],
    ids=["relu", "leaky_relu", "mul"],
)
def test_what_follows_may_write_over_the_output(op, layout, follow):
    """No op returns a view: autograd forbids writing in place over one that a Function returned."""
    torch.manual_seed(0)
    x, w, b = layout(torch.randn(2, 3, 5, 4)), torch.rand(3) + 0.5, torch.randn(3)

    def call(x, w, b):
        z = IN_PLACE[op](x, w, b, "triton")
        assert z._base is None
        assert follow(z) is z
        return z

    def reference(x, w, b):
        return follow(IN_PLACE[op](x, w, b, "reference").clone())

    for a, r in zip(run(call, [x, w, b]), run(reference, wide(x, w, b)), strict=True):
        close(a, r, 2e-5)


@pytest.mark.parametrize("training", [True, False])
def test_torch_func_transforms_and_forward_mode_take_pytorchs_formulas(training):
    """auto never fails: no kernel knows these transforms."""
    torch.manual_seed(0)
    x, w, v = channels_last(torch.randn(4, 3, 5, 2)), torch.rand(3) + 0.5, torch.randn(3)
    mean, var = torch.zeros(3), torch.ones(3)
    ours = lambda w: (
        norm.batch_norm(x, mean, var, w, None, training, 0.0, activation="silu").pow(2).mean()
    )
    theirs = lambda w: F.silu(F.batch_norm(x, mean, var, w, None, training, 0.0)).pow(2).mean()
    for transform in (
        torch.func.grad,
        torch.func.hessian,
        torch.func.vmap,
        lambda f: lambda w: torch.func.jvp(f, (w,), (v,))[1],
    ):
        at = w.expand(2, 3) if transform is torch.func.vmap else w
        if not (
            transform is torch.func.vmap and training
        ):  # PyTorch's refuses to update one buffer for several
            close(transform(ours)(at), transform(theirs)(at), 1e-6)
    with torch.autograd.forward_ad.dual_level():
        tangents = [
            torch.autograd.forward_ad.unpack_dual(f(torch.autograd.forward_ad.make_dual(w, v)))[1]
            for f in (ours, theirs)
        ]
    close(*tangents, 1e-6)


@kernels_only
@pytest.mark.parametrize("ratio", [0.0, 30.0, 100.0])
def test_variance_survives_a_large_mean(ratio):
    x = channels_last(
        torch.randn(4, 33, 13, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        + ratio
    ).float()
    mean, var = handed_on.moments(x)
    wide = x.double().transpose(0, 1).flatten(1)
    assert ((var[0] - wide.var(1, correction=0)).abs() / wide.var(1, correction=0)).max() < 2e-6
    assert ((mean[0] - wide.mean(1)).abs() / wide.std(1)).max() < 1e-7 * (1 + ratio)


@kernels_only
def test_an_outlying_first_row_does_not_spoil_the_variance():
    """The pivot is a sample; where it lies far off, Welford's recurrence must still hold."""
    x = torch.randn(600, 5, generator=torch.Generator().manual_seed(4))
    x[0] = 1000.0
    for limit in (0, 2048):
        with tuning.override({"norm_one_launch": {"MAX_ROWS": limit}}):
            z = norm.batch_norm(x, None, None, training=True)
        close(z.double(), F.batch_norm(x.double(), None, None, training=True), 2e-5)


def kernel_alone(name, x, w, b, dz):
    """What the kernels that are configured under `name` compute, and the same in float64."""
    stats = torch.stack(handed_on.moments(x, 2, impl="reference"))
    mean, var = stats.unbind(0)
    wide_x = x.double().requires_grad_()
    ends = [t.double().requires_grad_() for t in (w, b)]
    each = lambda v: v.double()[:, :, None, None]  # a group is one sample here
    normed = (wide_x - each(mean)) * (each(var) + 1e-5).rsqrt()
    gold = torch.tanh(normed * ends[0][:, None, None] + ends[1][:, None, None])
    if name == "norm_moments":
        return [forward_kernels_moments.moments(x, 2)], [
            torch.stack(handed_on.moments(x.double(), 2, impl="reference"))
        ]
    if name == "norm_apply":
        return [forward_kernels.apply(x, w, b, mean, var, 1e-5, "tanh", 0.2)], [gold]
    if name in ("norm_backward_once", "norm_reduce"):
        once = name == "norm_backward_once"
        dx, sums = backward_sums.reduce(dz, x, w, b, mean, var, 1e-5, "tanh", 0.2, once)
        first = torch.autograd.grad(gold, [*ends, wide_x], dz.double())
        return [sums[:, 1].sum(0), sums[:, 0].sum(0), *([dx] if once else [])], first[
            : 3 if once else 2
        ]
    if name == "norm_moments_dx":
        d = torch.linspace(-1, 1, stats.numel()).view_as(stats)
        out = torch.stack(handed_on.moments(wide_x, 2, impl="reference"))
        return [moments_backward(None, x, stats, d)], torch.autograd.grad(out, wide_x, d.double())
    both = lambda x, w, b: norm.batch_norm(x, None, None, w, b, True, activation="tanh", groups=2)
    if name == "norm_dx":
        _, sums = backward_sums.reduce(dz, x, w, b, mean, var, 1e-5, "tanh", 0.2, False)
        dx = backward_kernels.dx(dz, x, w, b, mean, var, sums, 1e-5, "tanh", 0.2)
        return [dx], torch.autograd.grad(both(wide_x, *ends), wide_x, dz.double())
    backward = name != "norm_segment_forward"
    whole = lambda tensors: run(both, tensors, 1) if backward else [both(*tensors)]
    return whole([x, w, b]), whole(wide(x, w, b))


@kernels_only
@pytest.mark.slow
@pytest.mark.parametrize("name", norm_launches.TUNED)
def test_every_candidate_configuration_is_right(name):
    torch.manual_seed(0)
    x, dz = (channels_last(torch.randn(2, 33, 9, 11) + 1) for _ in range(2))
    w, b = torch.rand(33) + 0.5, torch.randn(33)
    short = "segment" in name or name == "norm_one_launch"
    for config in norm_launches.TUNED[name]:
        with tuning.override(
            {name: config} if short else {name: config, "norm_one_launch": {"MAX_ROWS": 0}}
        ):
            mine, gold = kernel_alone(name, x, w, b, dz)
        for a, r in zip(mine, gold, strict=True):
            close(a, r, 3e-6)


@kernels_only
def test_two_runs_give_the_same_bits():
    torch.manual_seed(0)
    x, w, b = channels_last(torch.randn(2, 17, 33, 34)), torch.rand(17), torch.randn(17)
    runs = [
        run(
            lambda *t: norm.batch_norm(t[0], None, None, *t[1:], True, activation="relu"),
            [x, w, b],
            1,
        )
        for _ in range(2)
    ]
    assert all(torch.equal(a, c) for a, c in zip(*runs, strict=True))


@kernels_only
@pytest.mark.slow
def test_registered_ops_pass_opcheck():
    torch.manual_seed(0)
    x, dz = (channels_last(torch.randn(4, 3, 5, 6)).requires_grad_() for _ in range(2))
    w, b = (torch.rand(3, requires_grad=True) for _ in range(2))
    mean, var = torch.randn(3), torch.rand(3) + 0.5
    _, stats = norm_autograd.norm_train(x.detach(), None, None, 2, 1e-5, "silu", 0.2)
    dstats = torch.randn(2, 2, 3, requires_grad=True)
    for op, args in (
        (norm_autograd.norm_train, (x, w, b, 2, 1e-5, "silu", 0.2)),
        (norm_autograd.norm_train_backward, (dz, x, w, b, stats, 1e-5, "silu", 0.2)),
        (apply.norm_apply, (x, w, None, mean, var, 1e-5, "tanh", 0.2)),
        (apply.norm_apply_backward, (dz, x, w, b, mean, var, 1e-5, "silu", 0.2, True, True)),
        (apply.norm_apply_backward, (dz, x, w, b, None, None, 0.0, "silu", 0.2, True, False)),
        (moments.norm_moments, (x, 2)),
        (moments.norm_moments_backward, (x, stats, dstats)),
        (
            moments.norm_running,
            (
                [torch.rand(3)],
                [torch.rand(3)],
                [torch.tensor(2)],
                [torch.rand(2, 2, 3)],
                [10],
                [-1.0],
            ),
        ),
    ):
        # tracing with symbolic sizes costs seconds an op: the two that training uses stand for all
        traced = op in (norm_autograd.norm_train, moments.norm_moments_backward)
        utils = (
            "test_schema",
            "test_autograd_registration",
            "test_faketensor",
            *(("test_aot_dispatch_dynamic",) if traced else ()),
        )
        torch.library.opcheck(op, args, test_utils=utils)


@pytest.mark.skipif(INTERPRET, reason="the kernels run there")
def test_a_cumulative_average_on_a_cpu_is_pytorchs_to_the_bit():
    theirs = nn.BatchNorm2d(5, momentum=None)
    ours = modules.BatchNorm2d.adopt(copy.deepcopy(theirs), "identity", 0.0)
    for seed in range(5):
        x = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(ours(x), theirs(x))
    for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.slow
def test_compiles_as_one_graph():
    torch.manual_seed(0)
    eager = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        modules.BatchNorm2d.adopt(nn.BatchNorm2d(4, momentum=None), "leaky_relu", 0.2),
    )
    eager = eager.to(memory_format=torch.channels_last)
    other = copy.deepcopy(eager)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    x = channels_last(torch.randn(4, 3, 5, 6))
    for _ in range(2):
        a, b = eager(x), compiled(x)
        close(a, b, 1e-6)
        a.square().sum().backward()
        b.square().sum().backward()
    for p, q in zip(
        [*eager.parameters(), *eager.buffers()],
        [*other.parameters(), *other.buffers()],
        strict=True,
    ):
        close(p, q, 1e-6)
        if p.requires_grad:
            close(p.grad, q.grad, 2e-5)


@pytest.mark.skipif(INTERPRET or not has_triton, reason="compiles, so not under the interpreter")
def test_running_statistics_are_seen_by_the_next_segment():
    """Between the stores of one segment's statistics and the loads of the next's stands a
    barrier."""
    from triton import compile as build
    from triton.backends.compiler import GPUTarget

    from fastgan.verify import aot, registry

    registry.load(["norm"])
    variant = next(
        v for v in registry.ops("batch_norm")[0].kernels() if v.name == "one launch leaky_relu fp32"
    )
    source, options = aot.source_of(variant, variant.configs[0])
    text = build(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ttir"]
    loop = text[text.index("scf.for %segment") :]
    stored = loop.index("tt.store %old_var")
    assert "barrier" in loop[stored : loop.index("tt.store", stored + 1)]


@kernels_only
@pytest.mark.parametrize(("rows", "groups"), [(528, 1), (272, 2), (50, 2)])
def test_parts_are_merged_in_a_tree_by_the_last_programs(rows, groups):
    """33 parts in three groups, 17 in two for each of two segments, and few in none."""
    small = {"BLOCK_R": 4, "BLOCK_C": 4, "num_warps": 1, "num_stages": 1}
    torch.manual_seed(0)
    x, dz = (channels_last(torch.randn(groups, 3, rows, 1) + 3.0) for _ in range(2))
    running, tracked = (torch.zeros(3), torch.ones(3)), torch.tensor(0)
    once = {"norm_one_launch": {"MAX_ROWS": 0}}
    with tuning.override({**once, "norm_moments": small, "norm_reduce": small}):
        for _ in range(2):  # tickets are zeros again
            stats = forward_kernels_moments.moments(x, groups, running, tracked, 0.5)
            _, sums = backward_sums.reduce(
                dz, x, None, None, *stats.unbind(0), 1e-5, "identity", 0.0, False
            )
    wide = x.double()
    mean, var = wide.mean((2, 3)), wide.var((2, 3), correction=0)
    close(stats[0].double(), mean, 1e-6)
    close(stats[1].double(), var, 1e-6)
    xhat = (wide - mean[:, :, None, None]) / (var + 1e-5).sqrt()[:, :, None, None]
    # some hundred terms of size 3 that cancel to 40: fp32's rounding of the terms
    close(sums[:, 0].double(), dz.double().sum((2, 3)), 5e-5)
    close(sums[:, 1].double(), (dz.double() * xhat).sum((2, 3)), 5e-5)
    want_mean, want_var = torch.zeros(3).double(), torch.ones(3).double()
    for _ in range(2):
        for group in range(groups):
            want_mean = (want_mean + mean[group]) / 2
            want_var = (want_var + var[group] * rows / (rows - 1)) / 2
    close(running[0].double(), want_mean, 1e-6)
    close(running[1].double(), want_var, 1e-6)
    assert tracked == 2 * groups
    assert not tickets.ring(x.device).zeros.any()


def test_launches_side_by_side_have_tickets_of_their_own(monkeypatch):
    monkeypatch.setattr(tickets, "SLOTS", 64)
    ring = tickets.Ring(torch.device("cpu"))
    begins = [ring.take(3)[1] for _ in range(22)]
    assert begins == [*range(0, 63, 3), 0]
    buffer, first = ring.take(5)  # of too many for a ring
    assert (len(buffer), first) == (5, 0)
    assert buffer is not ring.zeros
