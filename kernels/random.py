"""Philox-4x32-10 draws: one launch fills (n, count) with U[0, 1) or N(0, 1), each sample from its
own global index.

Key (seed low word, stream), counter (sample index low, high, block of four elements, seed high
word), as in fastgan.ops.random. The integers are those of the reference bit for bit, and so are
uniforms; normals differ by a few ulp (fp32 logarithm, polynomial sine and cosine).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastgan.kernels import tuning
from fastgan.kernels.common import cdiv, next_power_of_2, tl, triton

DEFAULT: dict[str, Any] = {"BLOCK": 128, "num_warps": 4}
# A seed or a count of 1 would otherwise become a compile-time constant: another compilation, and a
# Python integer without `.to`.
KEY = ["k0", "k1", "c3"]
# What a draw keeps of its 32 bits, so that rounding to the output type cannot reach 1.
UNIFORM_BITS = {torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


def signed(word: int) -> int:
    """A 32-bit word as the int32 of the same bits: launch arguments keep one Triton type whatever
    the seed."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >= 1 << 31 else word


def key_words(seed: int, stream: int) -> tuple[int, int, int]:
    """(key word 0, key word 1, counter word 3) as launch arguments."""
    return signed(seed), signed(stream), signed(seed >> 32)


@triton.jit
def philox4(lo, hi, block, k0, k1, c3):
    """Four uint32 words of Philox-4x32-10; every argument is (or broadcasts to) a block of
    uint32."""
    x0, x1, x2, x3 = lo, hi, block, c3
    for _ in tl.static_range(10):
        h0 = tl.umulhi(x0, 0xD2511F53)
        l0 = x0 * 0xD2511F53
        h1 = tl.umulhi(x2, 0xCD9E8D57)
        l1 = x2 * 0xCD9E8D57
        x0 = h1 ^ x1 ^ k0
        x1 = l1
        x2 = h0 ^ x3 ^ k1
        x3 = l0
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return x0, x1, x2, x3


@triton.jit
def sample_words(index, block, k0, k1, c3):
    """`philox4` of a block number and an int64 global sample index."""
    lo = index.to(tl.uint32)
    hi = (index >> 32).to(tl.uint32)
    return philox4(
        lo, hi, block.to(tl.uint32), k0.to(tl.uint32), k1.to(tl.uint32), c3.to(tl.uint32)
    )


@triton.jit
def unit(word, BITS: tl.constexpr):
    """The top BITS (at most 24) bits of a word as fp32 in [0, 1)."""
    return (word >> (32 - BITS)).to(tl.int32).to(tl.float32) * (1.0 / (1 << BITS))


@triton.jit
def box_muller(a, b):
    """Two N(0, 1) from two words, in fp32."""
    radius = tl.sqrt(-2.0 * tl.log(unit(a, 24) + 1.0 / 16777216))
    u = unit(b, 24)
    # Reduce exactly to an eighth of a turn around the nearest quarter, then minimax polynomials on
    # [-pi/4, pi/4].
    quarter = tl.floor(4.0 * u + 0.5)
    x = (u - 0.25 * quarter) * 6.283185307179586
    z = x * x
    sine = x + x * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4))
    cosine = (
        1.0
        - 0.5 * z
        + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5))
    )
    q = quarter.to(tl.int32) & 3
    odd = (q & 1) == 1
    c = tl.where(odd, sine, cosine)
    s = tl.where(odd, cosine, sine)
    c = tl.where((q == 1) | (q == 2), -c, c)
    s = tl.where(q >= 2, -s, s)
    return radius * c, radius * s


@triton.jit(do_not_specialize=KEY)
def random_kernel(
    out_ptr,  # [n, count]
    position_ptr,  # int64 scalar
    count,  # elements a sample
    tiles,  # programs a sample
    k0,
    k1,
    c3,
    NORMAL: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,  # blocks of four elements
):
    sample = tl.program_id(0).to(tl.int64) // tiles
    tile = tl.program_id(0) % tiles
    block = tile * BLOCK + tl.arange(0, BLOCK)
    a, b, c, d = sample_words(tl.load(position_ptr) + sample, block, k0, k1, c3)
    if NORMAL:
        w0, w1 = box_muller(a, b)
        w2, w3 = box_muller(c, d)
    else:
        w0, w1, w2, w3 = unit(a, BITS), unit(b, BITS), unit(c, BITS), unit(d, BITS)
    value = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), (4 * BLOCK,))
    element = tile * (4 * BLOCK) + tl.arange(0, 4 * BLOCK)
    tl.store(
        out_ptr + sample * count + element, value.to(out_ptr.dtype.element_ty), mask=element < count
    )


def fill(
    position: Tensor, n: int, count: int, seed: int, stream: int, dtype: torch.dtype, normal: bool
) -> Tensor:
    """(n, count) draws of `dtype` (fp32, fp16, bf16) on `position`'s device; one launch. count <
    2^31."""
    out = torch.empty((n, count), dtype=dtype, device=position.device)
    if out.numel() == 0:
        return out
    blocks = cdiv(count, 4)
    config = dict(
        tuning.config("random", dtype, (("n", n), ("blocks", blocks)), DEFAULT, position.device)
    )
    # A latent vector is 25 blocks: one warp a sample rather than four, three of them idle.
    config["BLOCK"] = min(config["BLOCK"], next_power_of_2(blocks))
    config["num_warps"] = max(1, min(config["num_warps"], config["BLOCK"] // 32))
    tiles = cdiv(blocks, config["BLOCK"])
    k0, k1, c3 = key_words(seed, stream)
    random_kernel[(n * tiles,)](
        out, position, count, tiles, k0, k1, c3, NORMAL=normal, BITS=UNIFORM_BITS[dtype], **config
    )
    return out
