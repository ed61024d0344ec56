"""Normalisation: PyTorch's semantics argument by argument, exact gradients of first and second
order. Run here on the reference path, and with
impl="auto" meaning the kernels by test_norm_kernels.py.
"""

import pytest
import torch
import torch.nn.functional as F
from norm_checks import channels_last, close, run, wide

from fastgan.errors import FastganError
from fastgan.ops.dispatch import prefer
from fastgan.ops.norm import functional as norm
from fastgan.ops.norm import handed_on

SHAPES = [(4, 6), (4, 5, 7), (4, 3, 5, 7), (2, 33, 3, 2, 3), (1, 1, 3, 2), (3, 15, 1, 4)]


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
