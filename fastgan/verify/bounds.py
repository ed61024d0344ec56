"""Every numeric bound of ``fastgan verify``, in one place. An output must meet all three; an op's
exceptions (``Op.bounds``) print with their reasons.

Gold is float64 on the same rounded inputs. A correct rounding to nearest costs at most eps/2 per
element and about 0.2 eps in relative L2:

type  eps      relative L2  why
bf16  7.8e-3   2.5e-3       one rounding is 1.7e-3; a second one (z or g, then the output): 2.4e-3
fp16  9.8e-4   3.5e-4       likewise: 2.1e-4, twice 3.0e-4
tf32  9.8e-4   6e-4         operands cut to 10 bits: two, each uniform in [0, eps)
fp32  1.2e-7   1e-5         sums of up to 10^6 terms; normalisation amplifies by |mean|/std
fp32 outputs of 16-bit inputs: 5e-5; nothing between input and output was rounded to 16 bits that
gold did not round too
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastgan.verify.registry import Bound

L2 = {"bf16": 2.5e-3, "fp16": 3.5e-4, "tf32": 6e-4, "fp32": 1e-5}
L2_ACCUMULATED = 5e-5
EPS = {"bf16": 2.0**-7, "fp16": 2.0**-10, "tf32": 2.0**-10, "fp32": 2.0**-23}

# Worst element against the largest of the reference, so that one bad border pixel cannot hide: 1.5
# times half a unit in the last place in 16 bits.
PEAK = {"bf16": 6e-3, "fp16": 7.5e-4, "tf32": 2e-3, "fp32": 5e-5}
PEAK_ACCUMULATED = 2e-4

# At most this many times PyTorch's own error in the same type, which is never taken for less than
# eps/4 (about one rounding).
RATIO = 2.0
FLOOR = 0.25

# Engines that are PyTorch's own code (cpu: its convolutions and products put together another
# way) have no rounding of ours to answer for. They are judged by
# what PyTorch itself does on the device they ran on, since its sums there go in another order than
# a CPU's, and its 16-bit gradients are rounded where gold's are not: twice that error counts where
# it is more than the general bounds. Those give way up to CEILING roundings of the type and no
# further, since yardstick and engine could be wrong together; in fp32 that is below the general
# bounds, which hold. Our kernels are judged by the general bounds and PyTorch's error on a CPU.
PYTORCH = ("reference", "cudnn", "cpu")
CEILING = 4.0

# A loss or a mean of a few values has no average: PyTorch's error there varies and may be 0, so the
# floor is one unit in the last place.
FEW = 64
FLOOR_FEW = 1.0


@dataclass(frozen=True)
class Limits:
    """What one output of one check must meet."""

    l2: float
    own: float
    peak: float


def limits(
    type_name: str,
    out_dtype: torch.dtype,
    numel: int,
    own_error: float,
    exception: Bound | None = None,
    yardstick: tuple[float, float] | None = None,
) -> Limits:
    """The limits for an output of ``out_dtype`` and ``numel`` elements in a check of type
    ``type_name``, where PyTorch's own error is ``own_error``.

    yardstick: for an engine of :data:`PYTORCH`, PyTorch's own (L2, peak) errors on its device.
    """
    accumulated = type_name in ("bf16", "fp16") and out_dtype in (torch.float32, torch.float64)
    floor = (FLOOR_FEW if numel < FEW else FLOOR) * torch.finfo(out_dtype).eps
    if type_name == "tf32":
        floor = max(floor, FLOOR * 2.0**-10)
    l2 = L2_ACCUMULATED if accumulated else L2[type_name]
    peak = PEAK_ACCUMULATED if accumulated else PEAK[type_name]
    ratio = RATIO
    if exception is not None:
        l2 = l2 if exception.l2 is None else exception.l2
        peak = peak if exception.peak is None else exception.peak
        ratio = ratio if exception.ratio is None else exception.ratio
    if yardstick is not None:
        here, here_peak = yardstick
        ceiling = CEILING * EPS[type_name]
        own_error = max(own_error, here)
        l2 = max(l2, min(RATIO * here, ceiling))
        peak = max(peak, min(RATIO * here_peak, ceiling))
    return Limits(l2, ratio * max(own_error, floor), peak)


# Activation masks may differ where |x*s + t| < 8 eps (|x*s| + |t|): a few roundings each of s, t,
# the product and the sum.
MASK_EPS = 8.0
