"""DiffAugment: the published steps one by one, its gradient and second order, and the kernel
against float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter_child import interpreted, parent, run_interpreted

from fastgan.errors import FastganError
from fastgan.ops.augment.diffaugment import WORDS, _diffaugment, diffaugment, draws, extents
from fastgan.ops.random import bits

POLICIES = [
    "color,translation,cutout",
    "color",
    "translation",
    "cutout",
    "color,cutout",
    "translation,cutout",
    "",
]
SETTING = dict(seed=4, position=torch.tensor(2**32 - 1), stream=9)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 17), st.integers(1, 17))


def images(shape, dtype=torch.float64):
    return torch.randn(
        shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape))
    ).requires_grad_()


def step_by_step(x, policy):
    """The paper's steps in turn on one sample at a time, with zero padding and slices."""
    n, _, height, width = x.shape
    drawn = draws(
        bits(SETTING["seed"], SETTING["position"], n, WORDS, stream=SETTING["stream"]),
        height,
        width,
    )
    out = []
    for i in range(n):
        b, s, k, ty, tx, top, left = (
            float(v[i]) if j < 3 else int(v[i]) for j, v in enumerate(drawn)
        )
        y = x[i]
        if "color" in policy:
            y = y + b
            y = (y - y.mean(0, keepdim=True)) * s + y.mean(0, keepdim=True)
            y = (y - y.mean()) * k + y.mean()
        if "translation" in policy:
            m = max(height, width)
            padded = torch.nn.functional.pad(y, (m, m, m, m))
            y = padded[:, m + ty : m + ty + height, m + tx : m + tx + width]
        if "cutout" in policy:
            y = y.clone()
            y[
                :,
                max(top, 0) : max(top + extents(height)[1], 0),
                max(left, 0) : max(left + extents(width)[1], 0),
            ] = 0
        out.append(y)
    return torch.stack(out)


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from(POLICIES))
def test_is_the_papers_steps_in_turn(shape, policy):
    x = images(shape)
    assert torch.allclose(
        diffaugment(x, policy=policy, **SETTING), step_by_step(x, policy), atol=1e-12
    )


def test_draws_cover_their_ranges_evenly():
    words = bits(0, torch.tensor(0), 20000, WORDS, stream=1)
    b, s, k, ty, tx, top, left = draws(words, 32, 17)
    for u, low, high in ((b, -0.5, 0.5), (s, 0.0, 2.0), (k, 0.5, 1.5)):
        assert low <= u.min() < low + 0.01
        assert high - 0.01 < u.max() < high
    # DiffAugment: shift up to int(size / 8 + 0.5) each way, hole of int(size / 2 + 0.5) around any
    # pixel
    for v, low, high in ((ty, -4, 4), (tx, -2, 2), (top, -8, 24), (left, -4, 12)):
        counts = torch.bincount(v - low, minlength=high - low + 1)
        assert len(counts) == high - low + 1
        expected = 20000 / len(counts)
        assert ((counts - expected).abs() < 5 * expected**0.5).all()


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_are_exact(policy):
    x = images((2, 2, 5, 4))
    f = lambda x: diffaugment(x, policy=policy, **SETTING)
    assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradgradcheck(lambda x: f(x).square(), x)


def test_a_sample_depends_on_its_global_index_alone():
    x = images((6, 3, 8, 8))
    whole = diffaugment(x, **SETTING)
    later = {**SETTING, "position": SETTING["position"] + 4}
    assert torch.allclose(diffaugment(x[4:], **later), whole[4:], atol=1e-14)


@pytest.mark.parametrize("policy", ["colour", "cutout,color", "color,color", "translation;cutout"])
def test_bad_policies_are_refused(policy):
    with pytest.raises(FastganError, match="color, translation, cutout"):
        diffaugment(images((1, 1, 4, 4)), policy=policy, **SETTING)


def test_bad_images_are_refused():
    for bad in (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(FastganError, match="images"):
            diffaugment(bad, **SETTING)


@parent
@pytest.mark.slow
def test_in_the_interpreter():
    run_interpreted(__file__)


def relative(a, b):
    return ((a.double() - b).norm() / b.norm().clamp_min(1e-30)).item()


@interpreted
@settings(max_examples=15, deadline=None)
@given(
    shapes,
    st.sampled_from(POLICIES),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float16]),
)
def test_kernel_against_float64_in_three_directions(shape, policy, channels_last, dtype):
    # fp32: a few roundings; fp16: one rounding of the result
    bound = 1e-6 if dtype == torch.float32 else 4e-4
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = (
        images(shape, torch.float32)
        .detach()
        .to(dtype)
        .contiguous(memory_format=layout)
        .requires_grad_()
    )
    gold_x = x.detach().double().requires_grad_()
    u = torch.randn(shape).to(dtype).requires_grad_()
    gold_u = u.detach().double().requires_grad_()
    y, gold = (
        diffaugment(v, policy=policy, impl=impl, **SETTING)
        for v, impl in ((x, "triton"), (gold_x, "reference"))
    )
    assert y.stride() == x.stride()
    g = torch.autograd.grad(y, x, u, create_graph=True)[0]
    gold_g = torch.autograd.grad(gold, gold_x, gold_u, create_graph=True)[0]
    v = torch.randn(shape).to(dtype)
    gg = torch.autograd.grad(g, u, v)[0]
    gold_gg = torch.autograd.grad(gold_g, gold_u, v.double())[0]
    assert relative(y, gold) < bound
    assert relative(g, gold_g) < bound
    assert relative(gg, gold_gg) < bound


@interpreted
def test_kernel_result_does_not_depend_on_the_split():
    from fastgan.kernels import tuning

    x = images((2, 3, 40, 33), torch.float32).detach()
    with tuning.override({"diffaugment": {"SPLIT": 1}}):
        one = diffaugment(x, impl="triton", **SETTING)
    assert torch.equal(one, diffaugment(x, impl="triton", **SETTING))


@interpreted
def test_kernel_takes_expanded_gradients():
    x = images((2, 3, 6, 5), torch.float32)
    g = torch.autograd.grad(diffaugment(x, impl="triton", **SETTING).sum(), x)[0]
    gold_x = x.detach().double().requires_grad_()
    gold = torch.autograd.grad(diffaugment(gold_x, **SETTING).sum(), gold_x)[0]
    assert relative(g, gold) < 1e-6


@interpreted
def test_kernel_is_a_registered_op_that_compiles_whole():
    x = images((2, 3, 6, 5), torch.float32)
    position = torch.tensor(3)
    torch.library.opcheck(_diffaugment, (x, position, 3, 4, True, True, True, False, True))
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.library.opcheck(_diffaugment, (last, position, 3, 4, True, False, True, True, False))
    call = lambda x: diffaugment(x, **SETTING).square().sum()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for a, b in zip(torch.autograd.grad(compiled(x), x), torch.autograd.grad(call(x), x)):
        assert torch.equal(a, b)
