"""From a ConvSpec and shapes to what a kernel is launched with: operand geometry, tile sizes, how a
reduction is split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from fastgan.kernels import tuning
from fastgan.kernels.common import INTERPRET, cdiv
from fastgan.kernels.conv.spec import ConvSpec

Config = dict[str, Any]

SIZES = [
    "IMAGES",
    "H",
    "W",
    "OH",
    "OW",
    "HP",
    "WP",
    "TILES",
]  # not specialised: one binary serves every batch and resolution
SMALL_CHANNELS = (
    8  # at most this many contracted channels: a row of taps is read as one run of KW*C values
)
# phases are merged where all of them fit the narrowest tile: each alone would fill it with padding
MERGED_COLUMNS = 16
# The reduction is split where tiles give fewer warps a multiprocessor than FILL, into parts of at
# least SHORTEST products an
# output: then writing and reading a 64x64 partial tile moves at most a quarter of what the part
# itself reads in 16 bits. The interpreter can only afford tiny layers: some of them must split,
# others not.
FILL, SHORTEST = (32, 96) if INTERPRET else (8, 512)


@dataclass(frozen=True)
class Gather:
    """One implicit matrix product: result[images, OH, OW, OUT] gathers A[images, H, W, C] against w
    (strides ky, kx, c, out)."""

    H: int
    W: int
    OH: int
    OW: int
    C: int
    OUT: int
    strides: tuple[int, int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    scatter: bool
    # A's channels are `fold_in` copies of the operand's channels (KxK -> 1x1 as a matrix product)
    fold_in: int = 1
    fold_out: int = 1  # the same for the result's channels (1x1 -> KxK)

    @property
    def packed(self) -> bool:
        return not self.scatter and self.kernel[1] > 1 and self.C <= SMALL_CHANNELS

    @property
    def phases(self) -> int:
        return self.stride[0] * self.stride[1] if self.scatter else 1

    @property
    def phase_size(self) -> tuple[int, int]:
        """Result pixels of one phase (height, width), the last row or column possibly absent in
        some phases."""
        return (
            (-(-self.OH // self.stride[0]), -(-self.OW // self.stride[1]))
            if self.scatter
            else (self.OH, self.OW)
        )

    @property
    def merged(self) -> bool:
        """Whether one pass computes all phases side by side, unless a configuration says otherwise
        ("MERGED")."""
        return self.phases > 1 and self.phases * self.OUT <= MERGED_COLUMNS

    @property
    def reach(self) -> int:
        """Contracted values of one turn of the loop over taps: a channel vector, or a row of taps
        of few channels."""
        return self.kernel[1] * self.C if self.packed else self.C

    @property
    def taps(self) -> tuple[int, int]:
        """Turns of the loops over taps (rows, columns) in the phase that has most."""
        (kh, kw), (sh, sw) = self.kernel, self.stride if self.scatter else (1, 1)
        return cdiv(kh, sh), 1 if self.packed else cdiv(kw, sw)

    def constants(self) -> dict[str, object]:
        (kh, kw), (sh, sw), (ph, pw) = self.kernel, self.stride, self.padding
        return dict(
            KH=kh, KW=kw, SH=sh, SW=sw, PH=ph, PW=pw, SCATTER=self.scatter, PACKED=self.packed
        )


def gather_plan(
    spec: ConvSpec,
    weight_shape: tuple[int, ...],
    size_in: tuple[int, int],
    size_out: tuple[int, int],
    gradient: bool,
) -> Gather:
    """Forward (size_in -> size_out), or with `gradient` its data gradient, for a weight stored
    channels_last.

    Stored so, PyTorch's [D, E, KH, KW] lies as [D][KH][KW][E]: E is CI of a convolution and CO of a
    transposed one.
    """
    d, e, kh, kw = weight_shape
    ky, kx, stride_d = kw * e, e, kh * kw * e
    from_e = spec.transposed == gradient  # is the contracted channel E?
    gathered, result = (size_out, size_in) if gradient else (size_in, size_out)
    if spec.is_gemm(*size_in):
        taps = kh * kw
        if from_e:
            return Gather(
                1,
                1,
                1,
                1,
                taps * e,
                d,
                (0, 0, 1, stride_d),
                (1, 1),
                (1, 1),
                (0, 0),
                False,
                fold_in=taps,
            )
        return Gather(
            1,
            1,
            1,
            1,
            d,
            taps * e,
            (0, 0, stride_d, 1),
            (1, 1),
            (1, 1),
            (0, 0),
            False,
            fold_out=taps,
        )
    strides = (ky, kx, 1, stride_d) if from_e else (ky, kx, stride_d, 1)
    c, out = (e, d) if from_e else (d, e)
    return Gather(
        *gathered, *result, c, out, strides, spec.kernel, spec.stride, spec.padding, not from_e
    )


def power_of_two(value: int, low: int, high: int) -> int:
    """Smallest power of two at least `value`, kept within [low, high]."""
    return max(low, min(high, 1 << max(0, value - 1).bit_length()))


def tile(m: int, n: int, k: int, warps: int, stages: int, order: str | None = None) -> Config:
    """A launch configuration; `order` (forward and dgrad) names the innermost loop, "channels" or
    "taps"."""
    config: Config = dict(BLOCK_M=m, BLOCK_N=n, BLOCK_K=k, num_warps=warps, num_stages=stages)
    if order is None:
        return config
    # ptxas stops the loop over channels at 128 or 168 registers on sm_80 and spills; the loop over
    # taps it unrolls into all it may have
    return config | {"ORDER": order} | ({"maxnreg": 255} if order == "channels" else {})


def default_gather_config(
    rows: int, out: int, reach: int, itemsize: int, transforms: bool, scatter: bool
) -> Config:
    """A conservative tile for `rows` result pixels of one phase, `out` channels and `reach`
    contracted values of a tap.

    None of them spills on sm_80 to sm_120. Over taps that hangs by the way: two rows of two taps
    (scatter) need 4 stages or a raised register limit, four rows of four need 3 stages and the
    limit left alone.
    """
    k = power_of_two(reach, 16, 64 if itemsize == 2 else 32 if INTERPRET else 16)
    # the pipeline runs over the innermost loop: give it more than two turns; in fp32 the loop over
    # taps, unrolled, spills
    order = "channels" if reach > 2 * k or (itemsize == 4 and reach >= k) else "taps"
    if INTERPRET:
        return tile(power_of_two(rows, 16, 64), power_of_two(out, 16, 64), k, 4, 2, order)
    if itemsize == 4:
        # wider or deeper spills; so does the loop over taps at 80 or 128 registers, where ptxas
        # stops on sm_80
        return tile(64, power_of_two(out, 16, 32), k, 4, 2, order) | {"maxnreg": 255}
    if k == 16:
        return tile(64, power_of_two(out, 16, 64), k, 4, 2, order)
    if out > 32 and (
        transforms or rows >= 128 * 64
    ):  # 128x128 spills where operands are transformed, and on sm_80 always
        config = tile(128, 64, k, 8, 2 if transforms else 3, order)
        return config | {"maxnreg": 255} if scatter and not transforms else config
    if order == "taps" and out <= 16:
        return tile(64, 16, k, 4, 3, order)
    if order == "taps":  # 64x64x64 spills on some targets with this order
        return tile(64, power_of_two(out, 16, 64), min(k, 32), 4, 4 if scatter else 3, order)
    return tile(64, power_of_two(out, 16, 64), k, 4, 3, order)


def default_wgrad_config(dense: int, gathered: int, pixels: int, itemsize: int) -> Config:
    """Tile [dense channels, gathered channels (times taps of a row when packed)], reducing over
    pixels."""
    k = power_of_two(pixels, 16, 64 if itemsize == 2 else 32)
    if (
        INTERPRET and gathered <= 16
    ):  # more than one split even on the tiny layers that the interpreter can afford
        k = 16
    return tile(
        power_of_two(dense, 16, 64), power_of_two(gathered, 16, 64), k, 4, 3 if itemsize == 2 else 2
    )


def gather_config(
    kernel: str, plan: Gather, images: int, x: torch.Tensor, transforms: bool
) -> Mapping[str, Any]:
    """The tuning table's tile for `kernel`, or the default: looked up by pixels of one phase,
    channels in and out, and taps."""
    hp, wp = plan.phase_size
    rows, out = images * hp * wp, plan.phases * plan.OUT if plan.merged else plan.OUT
    default = default_gather_config(
        rows, out, plan.reach, x.element_size(), transforms, plan.scatter
    )
    taps = plan.kernel[0] * plan.kernel[1] // plan.phases
    return tuning.config(
        kernel,
        x.dtype,
        (("rows", rows), ("c", plan.C), ("out", plan.OUT), ("taps", taps)),
        default,
        x.device,
    )


@lru_cache(maxsize=16)
def multiprocessors(device: torch.device) -> int:
    """Streaming multiprocessors of a CUDA device; 2 for the interpreter, so that split reductions
    are exercised."""
    return (
        torch.cuda.get_device_properties(device).multi_processor_count
        if device.type == "cuda"
        else 2
    )


def splits_for(
    tiles: int, pixels: int, config: Mapping[str, Any], processors: int
) -> tuple[int, int]:
    """(splits, pixels per split) that give about sixteen warps a multiprocessor, whole K blocks
    each."""
    wanted = max(1, round(16 / config["num_warps"] * processors / tiles))
    per_split = cdiv(cdiv(pixels, wanted), config["BLOCK_K"]) * config["BLOCK_K"]
    return cdiv(pixels, per_split), per_split


@dataclass(frozen=True)
class Schedule:
    """How a Gather is launched: `config` is what the kernel takes, `tiles` are one group's,
        `programs` those of all groups.

    The reduction is cut into `splits` parts of `rows` rows of taps and `span` channels (whole K
    blocks), channels slowest.
    """

    config: Config
    merged: bool
    tiles: int
    programs: int
    splits: int
    rows: int
    span: int


def schedule(
    plan: Gather, config: Mapping[str, Any], images: int, groups: int, processors: int
) -> Schedule:
    """Tiles and splits, from shapes, configuration and number of multiprocessors alone: results
    repeat bit for bit.

    config["SPLIT_K"] is the number of splits, as nearly as whole blocks allow; config["MERGED"]
    overrides plan.merged.
    """
    own = {k: v for k, v in config.items() if k not in ("SPLIT_K", "MERGED")}
    hp, wp = plan.phase_size
    merged = plan.scatter and plan.phases > 1 and bool(config.get("MERGED", plan.merged))
    tiles = cdiv(images * hp * wp, own["BLOCK_M"])
    across = (
        cdiv(plan.phases * plan.OUT, own["BLOCK_N"])
        if merged
        else plan.phases * cdiv(plan.OUT, own["BLOCK_N"])
    )
    programs = groups * tiles * across
    taps_h, taps_w = plan.taps
    wanted = config.get("SPLIT_K") or min(
        round(FILL / own["num_warps"] * processors / max(1, programs)),
        taps_h * taps_w * plan.reach // SHORTEST,
    )
    wanted = 1 if merged else max(1, wanted)  # merged layers have few channels and many pixels
    span = cdiv(cdiv(plan.reach, own["BLOCK_K"]), wanted) * own["BLOCK_K"]
    rows = cdiv(
        taps_h, max(1, wanted // cdiv(plan.reach, span))
    )  # channels first; too few of them: rows of taps as well
    return Schedule(
        own, merged, tiles, programs, cdiv(plan.reach, span) * cdiv(taps_h, rows), rows, span
    )


def repeated(vector: torch.Tensor | None, times: int) -> torch.Tensor | None:
    """[..., C] -> [..., times*C]: a channel vector seen by a convolution that became a matrix
    product."""
    return (
        vector if vector is None or times == 1 else vector.repeat(*[1] * (vector.dim() - 1), times)
    )


def group_stride(s: torch.Tensor | None, groups: int, channels: int) -> int:
    """Elements from one group's s to the next: 0 where one vector serves all."""
    return channels if s is not None and s.numel() == groups * channels and groups > 1 else 0


def channels_last(x: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """x as a kernel reads it: NHWC in memory. Copies only where it must."""
    x = x if dtype is None or x.dtype == dtype else x.to(dtype)
    _, c, h, w = x.shape
    # strides, not is_contiguous: with a 1 among its sizes torch calls a tensor contiguous in a
    # format whatever its strides say
    wanted = (h * w * c, 1, w * c, c)
    if all(size == 1 or have == want for size, have, want in zip(x.shape, x.stride(), wanted)):
        return x
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def empty_nhwc(
    n: int, c: int, h: int, w: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """An uninitialised [n, c, h, w] tensor, NHWC in memory; no view, or nobody could write over a
    convolution's result."""
    return torch.empty((n, c, h, w), dtype=dtype, device=device, memory_format=torch.channels_last)
