"""Random numbers that are a function of (seed, stream, global sample index): Philox-4x32-10,
counter based.

Sample i of a call at `position` p depends on (seed, stream, p + i) alone: never on the batch size,
the number of ranks or what was drawn before. So N ranks draw what one would have drawn, and a
resumed run needs no generator state.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels import random as kernel
from fastgan.ops.dispatch import Dispatcher

MASK32 = 0xFFFFFFFF
# Multipliers and Weyl increments of Philox-4x32 (Salmon, Moraes, Dror, Shaw, "Parallel random
# numbers: as easy as 1, 2, 3", SC 2011).
PHILOX_M0, PHILOX_M1 = 0xD2511F53, 0xCD9E8D57
PHILOX_W0, PHILOX_W1 = 0x9E3779B9, 0xBB67AE85

# Mantissa bits of each output type: keeping no more of them than it can hold is what keeps a draw
# below 1 after the cast.
_UNIFORM_BITS = {torch.float64: 24, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}


def stream_id(name: str) -> int:
    """Stable 32-bit id of a named stream ("noise", "flip", ...): CRC-32 of its UTF-8 bytes, the
    same in every process."""
    return zlib.crc32(name.encode())


def philox(
    counter: tuple[Tensor | int, Tensor | int, Tensor | int, Tensor | int], k0: int, k1: int
) -> tuple[Tensor, ...]:
    """Philox-4x32-10 of four counter words and two key words: int64 tensors of 32-bit words,
    broadcast against each other."""
    x0, x1, x2, x3 = counter
    for _ in range(10):
        p0, p1 = x0 * PHILOX_M0, x2 * PHILOX_M1
        # The products wrap in int64, which leaves their 64 bits right; low halves need no mask
        # before the xor's.
        x0, x1, x2, x3 = (
            ((p1 >> 32) ^ (x1 ^ k0)) & MASK32,
            p1,
            ((p0 >> 32) ^ (x3 ^ k1)) & MASK32,
            p0,
        )
        k0, k1 = (k0 + PHILOX_W0) & MASK32, (k1 + PHILOX_W1) & MASK32
    return x0, x1 & MASK32, x2, x3 & MASK32  # type: ignore[return-value]


def bits(seed: int, position: Tensor, n: int, count: int, *, stream: int) -> Tensor:
    """`count` 32-bit words for each of the samples position .. position+n-1: int64 (n, count), on
    `position`'s device.

    Key (seed low word, stream); counter (sample index low, high, block of four words, seed high
    word).
    """
    index = position + torch.arange(n, device=position.device)
    lo, hi = (index & MASK32).unsqueeze(1), ((index >> 32) & MASK32).unsqueeze(1)
    block = torch.arange(-(-count // 4), device=position.device).unsqueeze(0)
    words = philox((lo, hi, block, (seed >> 32) & MASK32), seed & MASK32, stream & MASK32)
    return torch.stack(words, dim=2).view(n, -1)[:, :count]


def _check(seed: int, position: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    if dtype not in _UNIFORM_BITS:
        raise FastganError(
            f"random draws come in float64, float32, float16 or bfloat16, not {dtype}"
        )
    if not 0 <= seed < 1 << 63:
        raise FastganError(f"a seed is an integer in [0, 2^63), not {seed}")
    if position.dtype != torch.int64 or position.dim() != 0:
        raise FastganError(
            f"position must be a 0-dim int64 tensor, not {tuple(position.shape)} {position.dtype}"
        )
    return math.prod(shape)


def uniform_reference(
    seed: int,
    position: Tensor,
    n: int,
    shape: tuple[int, ...],
    stream: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    count = _check(seed, position, shape, dtype)
    keep = _UNIFORM_BITS[dtype]
    words = bits(seed, position, n, count, stream=stream)
    return (words >> (32 - keep)).to(torch.float32).mul_(2.0**-keep).to(dtype).reshape(n, *shape)


def normal_reference(
    seed: int,
    position: Tensor,
    n: int,
    shape: tuple[int, ...],
    stream: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    count = _check(seed, position, shape, dtype)
    pairs = (
        (bits(seed, position, n, 2 * (-(-count // 2)), stream=stream) >> 8)
        .to(torch.float64)
        .view(n, -1, 2)
    )
    # +1 moves the radius draw from [0, 1) to (0, 1]: no logarithm of zero, and |z| <= sqrt(48 ln 2)
    # = 5.77.
    radius = pairs[..., 0].add(1.0).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
    angle = pairs[..., 1].mul(2.0 * math.pi * 2.0**-24)
    z = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=2)
    return z.view(n, -1)[:, :count].to(dtype).reshape(n, *shape)


@torch.library.custom_op("fastgan::random", mutates_args=())
def _random(
    position: Tensor, n: int, count: int, seed: int, stream: int, dtype: torch.dtype, normal: bool
) -> Tensor:
    return kernel.fill(position, n, count, seed, stream, dtype, normal)


@_random.register_fake
def _(
    position: Tensor, n: int, count: int, seed: int, stream: int, dtype: torch.dtype, normal: bool
) -> Tensor:
    return torch.empty((n, count), dtype=dtype, device=position.device)


def _unsupported(engine: str, _: torch.dtype, dtype: torch.dtype) -> str | None:
    return (
        "kernels draw fp32, fp16 or bf16"
        if engine == "triton" and dtype not in kernel.UNIFORM_BITS
        else None
    )


_choose = Dispatcher("random", ("triton", "reference"), _unsupported)


def uniform(
    seed: int,
    position: Tensor,
    n: int,
    shape: tuple[int, ...],
    *,
    stream: int,
    dtype: torch.dtype = torch.float32,
    impl: str = "auto",
) -> Tensor:
    """U[0, 1) for the samples position .. position+n-1: (n, *shape) of `dtype` on `position`'s
    device.

    `position` is a 0-dim int64 device tensor (the global index of this rank's first sample), never
    read by the host. A draw is the top 24 bits of its word (11 in float16, 8 in bfloat16: the same
    draw rounded down, so that 1 is never reached). Raises FastganError for another dtype or
    position, or a seed outside [0, 2^63).
    """
    if _choose(impl, position, dtype) == "reference":
        return uniform_reference(seed, position, n, shape, stream, dtype)
    return _random(
        position, n, _check(seed, position, shape, dtype), seed, stream, dtype, False
    ).view(n, *shape)


def normal(
    seed: int,
    position: Tensor,
    n: int,
    shape: tuple[int, ...],
    *,
    stream: int,
    dtype: torch.dtype = torch.float32,
    impl: str = "auto",
) -> Tensor:
    """N(0, 1) for the samples position .. position+n-1: (n, *shape) of `dtype`; Box-Muller on the
    bits that `uniform` uses.

    Words (2j, 2j+1) of a sample give its elements (2j, 2j+1). Computed in float64 by the reference
    and fp32 by the kernel, cast last. Raises FastganError for another dtype or position, or a seed
    outside [0, 2^63).
    """
    if _choose(impl, position, dtype) == "reference":
        return normal_reference(seed, position, n, shape, stream, dtype)
    return _random(
        position, n, _check(seed, position, shape, dtype), seed, stream, dtype, True
    ).view(n, *shape)
