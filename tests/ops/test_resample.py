"""Upsampling and pooling by 2: PyTorch's bits, types and layouts, derivatives of every order, and
modules that take PyTorch's own where no kernel can."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter_child import interpreted, parent, run_interpreted
from torch import nn
from torch.nn import functional as F

from fastgan.acceleration import accelerate
from fastgan.errors import FastganError
from fastgan.kernels import resample as kernels
from fastgan.models.resnet import DownBlock, UpBlock
from fastgan.ops import resample as ops
from fastgan.ops.dispatch import why
from fastgan.ops.resample import avg_pool2, upsample2

sizes = st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 8, 40, 300]), *[st.integers(1, 5)] * 2)
types = st.sampled_from([torch.float32, torch.float16])
last = torch.channels_last


def drawn(shape, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)
    return x.contiguous(memory_format=last).requires_grad_()


@pytest.mark.parametrize("op", [upsample2, avg_pool2])
def test_refusals(op):
    for x in (torch.zeros(2, 4, 4), torch.zeros(1, 2, 4, 4, dtype=torch.int64)):
        with pytest.raises(FastganError, match="floating"):
            op(x)


def test_on_the_cpu_pytorchs_own():
    x = drawn((2, 3, 5, 7))
    assert torch.equal(upsample2(x), F.interpolate(x, scale_factor=2.0))
    assert torch.equal(avg_pool2(x), F.avg_pool2d(x, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert upsample2(x.bfloat16()).dtype == torch.bfloat16


def test_a_tile_of_channels_divides_them_or_covers_them_with_little_left():
    found = {c: kernels.channel_block(c) for c in (1, 3, 16, 48, 64, 96, 384, 512, 300, 1030)}
    assert found == {
        1: 1,
        3: 4,
        16: 16,
        48: 64,
        64: 64,
        96: 32,
        384: 128,
        512: 256,
        300: 256,
        1030: 256,
    }


@pytest.mark.slow
@parent
def test_in_the_interpreter():
    run_interpreted(__file__)


@interpreted
@settings(max_examples=25, deadline=None)
@given(sizes, types, st.booleans())
def test_kernel_gives_pytorchs_bits_types_and_layout_in_every_order(shape, dtype, up):
    n, c, h, w = shape
    op, theirs, x = (
        (upsample2, lambda x: F.interpolate(x, scale_factor=2.0), drawn(shape, dtype))
        if up
        else (avg_pool2, lambda x: F.avg_pool2d(x, 2), drawn((n, c, 2 * h, 2 * w), dtype))
    )

    def orders(call):
        y = call(x)
        g = drawn(tuple(y.shape), dtype)
        (first,) = torch.autograd.grad(y, x, g, create_graph=True)
        (second,) = torch.autograd.grad(first, g, x.detach())
        return y, first, second

    for got, want in zip(orders(lambda x: op(x, impl="triton")), orders(theirs), strict=True):
        assert got.dtype == dtype
        assert torch.equal(got, want)
        assert got.is_contiguous(memory_format=last)


@interpreted
def test_kernel_takes_a_gradient_of_any_layout():
    x = drawn((2, 3, 4, 6))
    for g in (torch.randn(2, 3, 2, 3), torch.ones(2, 3, 1, 1).expand(2, 3, 2, 3)):
        got = torch.autograd.grad(avg_pool2(x, impl="triton"), x, g)[0]
        assert torch.equal(got, torch.autograd.grad(F.avg_pool2d(x, 2), x, g)[0])


@interpreted
def test_kernel_refuses_what_it_cannot_and_auto_says_why():
    plain, odd, wide = torch.randn(2, 3, 4, 4), drawn((2, 3, 4, 5)), drawn((2, 3, 4, 4)).double()
    for x, reason in ((plain, "channels_last"), (odd, "even"), (wide, "float64")):
        with pytest.raises(FastganError, match=reason):
            avg_pool2(x, impl="triton")
        assert torch.equal(avg_pool2(x), F.avg_pool2d(x, 2))
        assert reason in why("avg_pool2")
    assert upsample2(drawn((0, 3, 4, 4)), impl="triton").shape == (0, 3, 8, 8)


@interpreted
def test_kernel_under_autocast_func_and_many_gradients_at_once():
    x = drawn((2, 3, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert upsample2(x.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(torch.func.vmap(lambda v: avg_pool2(v[None])[0])(x), F.avg_pool2d(x, 2))
    for op in (upsample2, avg_pool2):
        y = op(x)
        many = torch.randn(3, *y.shape)
        (got,) = torch.autograd.grad(y, x, many, is_grads_batched=True, retain_graph=True)
        for i in range(3):
            torch.testing.assert_close(
                got[i], torch.autograd.grad(y, x, many[i], retain_graph=True)[0]
            )


@interpreted
def test_kernel_is_a_registered_op_that_compiles_whole():
    for up in (True, False):
        torch.library.opcheck(ops._resample, (drawn((2, 3, 4, 6)), up, 0.25))


@interpreted
def test_kernel_serves_the_residual_networks_blocks():
    for make in (lambda: UpBlock(3, 4), lambda: DownBlock(3, 4)):
        torch.manual_seed(1)
        block = make().to(memory_format=last)
        x = drawn((2, 3, 4, 4))
        expected = block(x)
        accelerate(block)
        got = block(x)
        assert why("upsample2" if isinstance(block, UpBlock) else "avg_pool2").endswith("triton")
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@interpreted
def test_kernel_is_not_for_modules_of_other_inputs():
    up, pool = nn.Upsample(scale_factor=2), nn.AvgPool2d(2)
    flat, batchless = torch.randn(2, 3, 4), torch.randn(3, 4, 4)
    odd = drawn((1, 2, 5, 4))
    expected = up(flat), pool(batchless), pool(odd)
    accelerate(up)
    accelerate(pool)
    for got, want in zip((up(flat), pool(batchless), pool(odd)), expected, strict=True):
        assert torch.equal(got, want)
