"""Gathering a batch: the exact normalisation, flips, layout, and the kernel bit for bit against the
reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter_child import interpreted, parent, run_interpreted

from fastgan.errors import FastganError
from fastgan.ops import images as ops
from fastgan.ops.images import gather, gather_random_flip
from fastgan.ops.random import uniform

sizes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))


def store(*shape):
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(sum(shape))
    )


def test_every_byte_is_the_rounded_value_and_comes_back():
    v = torch.arange(256, dtype=torch.uint8)
    x = gather(v.view(1, 16, 16, 1), torch.tensor([0])).flatten()
    gold = (2 * v.double() - 255) / 255
    # one rounding of the constant and one of the product
    assert ((x.double() - gold).abs() <= 2 * 2**-24 * gold.abs()).all()
    assert x[0] == -1
    assert x[255] == 1
    assert torch.equal(x, -x.flip(0))
    assert torch.equal(((x + 1) * 127.5).round().to(torch.uint8), v)


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(1, 5), st.booleans())
def test_gathers_flips_and_lies_channels_last(shape, batch, flips):
    images = store(*shape)
    index = torch.randint(0, shape[0], (batch,))
    flip = torch.rand(batch) < 0.5 if flips else None
    x = gather(images, index, flip=flip)
    assert x.is_contiguous(memory_format=torch.channels_last)
    for i in range(batch):
        picture = images[index[i]].permute(2, 0, 1)
        picture = picture.flip(2) if flip is not None and flip[i] else picture
        assert torch.equal(x[i], (picture.float() * 2 - 255) * (1 / 255))


def test_random_flip_is_gather_with_drawn_flips():
    images, index, position = (
        store(5, 4, 6, 3),
        torch.tensor([4, 0, 1, 1, 2, 3, 4, 0]),
        torch.tensor(100),
    )
    flip = uniform(7, position, 8, (), stream=2) < 0.5
    assert 0 < flip.sum() < 8
    assert torch.equal(
        gather_random_flip(images, index, seed=7, position=position, stream=2),
        gather(images, index, flip=flip),
    )


@pytest.mark.parametrize(
    ("images", "index"),
    [
        (torch.zeros(2, 3, 3, 1), torch.tensor([0])),
        (store(3, 3, 1), torch.tensor([0])),
        (store(2, 3, 3, 1), torch.tensor([0], dtype=torch.int32)),
        (store(2, 3, 3, 1), torch.tensor([[0]])),
    ],
)
def test_refusals(images, index):
    with pytest.raises(FastganError):
        gather(images, index)


def test_an_index_out_of_range_raises_on_the_cpu():
    with pytest.raises((IndexError, RuntimeError)):
        gather(store(2, 3, 3, 1), torch.tensor([2]), impl="reference")


@pytest.mark.slow
@parent
def test_in_the_interpreter():
    run_interpreted(__file__)


@interpreted
@settings(max_examples=20, deadline=None)
@given(
    sizes,
    st.integers(1, 4),
    st.sampled_from(["never", "given", "drawn"]),
    st.sampled_from([torch.float32, torch.float16]),
)
def test_kernel_gives_the_references_bits_and_layout(shape, batch, flips, dtype):
    images, index = store(*shape), torch.randint(0, shape[0], (batch,))
    if flips == "drawn":
        call = lambda impl: gather_random_flip(
            images,
            index,
            seed=3,
            position=torch.tensor(2**32 - 1),
            stream=5,
            dtype=dtype,
            impl=impl,
        )
    else:
        flip = torch.rand(batch) < 0.5 if flips == "given" else None
        call = lambda impl: gather(images, index, flip=flip, dtype=dtype, impl=impl)
    got, want = call("triton"), call("reference")
    assert torch.equal(got, want)
    assert got.is_contiguous(memory_format=torch.channels_last)


@interpreted
def test_kernel_walks_tiles_and_marks_a_bad_index():
    images = store(2, 37, 29, 3)
    flip = torch.tensor([True, False, True, False])
    x = gather(images, torch.tensor([1, -1, 0, 2]), flip=flip, impl="triton")
    good = gather(images, torch.tensor([1, 0]), flip=torch.tensor([True, True]), impl="reference")
    assert torch.equal(x[[0, 2]], good)
    assert x[[1, 3]].isnan().all()


@interpreted
def test_kernel_refuses_a_strided_store_and_auto_does_not():
    images = store(3, 4, 4, 6)[..., ::2]
    with pytest.raises(FastganError, match="contiguous"):
        gather(images, torch.tensor([0]), impl="triton")
    assert torch.equal(
        gather(images, torch.tensor([2])), gather(images.contiguous(), torch.tensor([2]))
    )


@interpreted
def test_kernel_is_a_registered_op_that_compiles_whole():
    images, index = store(5, 3, 7, 3), torch.tensor([0, 4, 2])
    torch.library.opcheck(ops._gather, (images, index, None, torch.tensor(3), 3, 4, torch.float32))
    torch.library.opcheck(
        ops._gather, (images, index, torch.tensor([True, False, True]), None, 0, 0, torch.float16)
    )
    call = lambda i: gather_random_flip(images, i, seed=1, position=torch.tensor(3), stream=4)
    assert torch.equal(torch.compile(call, fullgraph=True, backend="aot_eager")(index), call(index))
