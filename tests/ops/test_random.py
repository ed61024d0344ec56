"""Counter-based draws: the published vectors, independence of batch and rank, distribution, the
kernel against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter_child import interpreted, parent, run_interpreted

from fastgan.errors import FastganError
from fastgan.kernels import random as kernel
from fastgan.kernels.common import tl, triton
from fastgan.ops import random
from fastgan.ops.random import normal, stream_id, uniform

# Random123 (DEShawResearch/random123), tests/kat_vectors, philox4x32 10: counter, key, answer.
KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]
seeds = st.integers(0, 2**63 - 1)
positions = st.one_of(st.integers(0, 2**62), st.integers(2**32 - 8, 2**32 + 8))
shapes = st.lists(st.integers(1, 5), max_size=3).map(tuple)


def words(text):
    return [int(word, 16) for word in text.split()]


def at(position):
    return torch.tensor(position, dtype=torch.int64)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    got = random.philox(tuple(at(w) for w in words(counter)), *words(key))
    assert [int(w) for w in got] == words(answer)


def test_words_are_counted_by_sample_then_by_block():
    top = 1 << 32
    seed, stream, position = 0x0123456789ABCDEF, 0xFEDCBA98, 5 * top + 7
    got = random.bits(seed, at(position), 2, 6, stream=stream)
    for i in range(2):
        for block in range(2):
            counter = (at(7 + i), at(5), at(block), at(seed >> 32))
            want = random.philox(counter, seed % top, stream)
            assert (
                got[i, 4 * block : 4 * block + 4].tolist()
                == [int(w) for w in want][: len(got[i, 4 * block :])]
            )


@settings(max_examples=30, deadline=None)
@given(
    seeds,
    positions,
    shapes,
    st.integers(1, 9),
    st.integers(0, 8),
    st.sampled_from([uniform, normal]),
)
def test_a_sample_depends_on_its_global_index_alone(seed, position, shape, n, skip, draw):
    whole = draw(seed, at(position), n + skip, shape, stream=3)
    assert torch.equal(draw(seed, at(position + skip), n, shape, stream=3), whole[skip:])


def test_streams_and_seeds_differ():
    draws = [
        uniform(s, at(0), 4, (8,), stream=t) for s, t in ((0, 0), (1, 0), (0, 1), (1 << 32, 0))
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(draws) for b in draws[:i])


def test_stream_id_is_stable():
    assert stream_id("noise") == 0xFDA99629
    assert len({stream_id(name) for name in ("noise", "flip", "augment", "epsilon", "label")}) == 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_uniform_reaches_zero_and_never_one(dtype):
    x = uniform(1, at(0), 4096, (64,), stream=0, dtype=dtype)
    assert x.dtype == dtype
    assert x.min() >= 0
    assert x.max() < 1
    # rounding down to 8 bits lowers the mean by half of 2^-8
    assert abs(x.double().mean() - 0.5) < 4 * (1 / 12 / x.numel()) ** 0.5 + 2**-9
    assert abs(x.double().var() - 1 / 12) < 1e-3
    assert (x <= uniform(1, at(0), 4096, (64,), stream=0)).all()


def test_normal_has_the_moments_of_a_normal():
    z = normal(1, at(0), 4096, (64,), stream=0, dtype=torch.float64).flatten()
    n = z.numel()
    # four standard errors of each sample moment of N(0, 1)
    for power, moment, spread in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(z.pow(power).mean() - moment) < 4 * (spread / n) ** 0.5
    pairs = z.view(-1, 2)
    assert abs((pairs[:, 0] * pairs[:, 1]).mean()) < 4 * (2 / n) ** 0.5
    assert 4.2 < z.abs().max() < 5.78


def test_the_host_reads_nothing():
    class NoReads(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func is not torch.ops.aten._local_scalar_dense.default
            return func(*args, **(kwargs or {}))

    with NoReads():
        normal(1, at(0), 4, (8,), stream=0)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(seed=-1),
        dict(seed=2**63),
        dict(position=torch.tensor(1.0)),
        dict(position=torch.tensor([1])),
        dict(dtype=torch.int32),
        dict(impl="cudnn"),
    ],
)
def test_refusals(arguments):
    with pytest.raises(FastganError):
        uniform(**{"seed": 0, "position": at(0), "n": 2, "shape": (3,), "stream": 0, **arguments})


def test_compiles_whole():
    compiled = torch.compile(
        lambda p: normal(3, p, 4, (5,), stream=1), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(at(9)), normal(3, at(9), 4, (5,), stream=1))


@parent
@pytest.mark.slow
def test_in_the_interpreter():
    run_interpreted(__file__)


@triton.jit
def _words_kernel(out_ptr, lo, hi, block, c3, k0, k1):
    index = (hi.to(tl.uint32, bitcast=True).to(tl.int64) << 32) | lo.to(tl.uint32, bitcast=True).to(
        tl.int64
    )
    a, b, c, d = kernel.sample_words(index, block, k0, k1, c3)
    tl.store(out_ptr, a.to(tl.int64))
    tl.store(out_ptr + 1, b.to(tl.int64))
    tl.store(out_ptr + 2, c.to(tl.int64))
    tl.store(out_ptr + 3, d.to(tl.int64))


@interpreted
@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_kernel_known_answers(counter, key, answer):
    out = torch.zeros(4, dtype=torch.int64)
    lo, hi, block, c3 = (kernel.signed(w) for w in words(counter))
    _words_kernel[(1,)](out, lo, hi, block, c3, *(kernel.signed(w) for w in words(key)))
    assert out.tolist() == words(answer)


@interpreted
@settings(max_examples=25, deadline=None)
@given(seeds, positions, shapes, st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_kernel_gives_the_references_bits(seed, position, shape, n, stream):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        arguments = (seed, at(position), n, shape)
        got = uniform(*arguments, stream=stream, dtype=dtype, impl="triton")
        assert torch.equal(got, uniform(*arguments, stream=stream, dtype=dtype, impl="reference"))
    z = normal(*arguments, stream=stream, impl="triton")
    gold = normal(*arguments, stream=stream, dtype=torch.float64, impl="reference")
    # |z| <= 5.8 and a handful of fp32 roundings
    assert (z - gold).abs().max() < 8 * 2**-24 * 5.8


@interpreted
def test_kernel_tiles_a_large_sample():
    for draw in (uniform, normal):
        a, b = (draw(1, at(2), 2, (1043,), stream=1, impl=impl) for impl in ("triton", "reference"))
        assert (a - b).abs().max() < 3e-6


@interpreted
def test_kernel_is_a_registered_op():
    torch.library.opcheck(random._random, (at(3), 4, 7, 3, 9, torch.float32, True))


@interpreted
def test_kernel_compiles_whole():
    draw = lambda p: uniform(3, p, 4, (5,), stream=1) + normal(3, p, 4, (5,), stream=1)
    assert torch.equal(torch.compile(draw, fullgraph=True, backend="aot_eager")(at(9)), draw(at(9)))


def test_float64_draws_take_the_reference():
    assert uniform(1, at(0), 2, (3,), stream=0, dtype=torch.float64).dtype == torch.float64
