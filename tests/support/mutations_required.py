"""Bugs that must be caught, whatever else is planted: see mutations.py."""

from __future__ import annotations

from mutants import Mutation

NORM, CONV = "kernels/norm/*.py", "kernels/conv/*.py"

REQUIRED = (
    Mutation(
        "boundary block: norm writes its last tile whole",
        *(
            "batch_norm",
            NORM,
            "keep = (lane < L - tile * BLOCK_R)[:, None]",
            "keep = (lane < BLOCK_R)[:, None]",
        ),
        after="def apply_kernel",
        case="eval",
    ),
    Mutation(
        "boundary block: a convolution's last tile is live",
        *("conv_moments", CONV, "m % WP, m < IMAGES * HP * WP", "m % WP, m < IMAGES * HP * WP + 1"),
        after="def place",
        case="k4s2",
    ),
    Mutation(
        "boundary block: Adam runs past the end",
        *("adam_ema", "kernels/adam.py", "mask = i < n", "mask = i < n + BLOCK"),
    ),
    Mutation(
        "odd-channel mask: norm",
        *("batch_norm", NORM, "(c < C)[None, :]", "(c < C + 1)[None, :]"),
        after="def apply_kernel",
        case="eval",
    ),
    Mutation(
        "odd-channel mask: contracted channels of a convolution",
        *("conv_moments", CONV, "c, known = j, j < C", "c, known = j, j < C + 1"),
        after="def tap_product",
        case="k4s2",
    ),
    Mutation(
        "group straddle: a convolution's scale and shift of the wrong group",
        *(
            "conv_transpose_moments",
            CONV,
            "s_ptr + group * s_group, t_ptr + group * s_group",
            "s_ptr, t_ptr",
        ),
        after="def conv_forward_kernel",
        case="groups",
    ),
    Mutation(
        "group straddle: tiles run on into the next group",
        *(
            "conv_moments",
            CONV,
            "m % WP, m < IMAGES * HP * WP",
            "m % WP, m < IMAGES * HP * WP * 2 - group * IMAGES * HP * WP",
        ),
        after="def place",
        case="groups",
    ),
    Mutation(
        "group straddle: norm statistics of the neighbour",
        *("batch_norm", NORM, "segment // STATS_EVERY,", "segment // STATS_EVERY * 0,"),
        after="def apply_kernel",
        case="groups",
    ),
    Mutation(
        "padding before the activation: z is not masked again",
        *(
            "conv_moments",
            CONV,
            "a = tl.where(mask, act(p, ACT, SLOPE), 0.0)",
            "a = act(p, ACT, SLOPE)",
        ),
        case="k4s2",
    ),
    Mutation(
        "unmasked g: padding of the gradient is a + 0 b",
        *("conv_moments", CONV, "a = tl.where(mask, p, 0.0)", "a = p"),
        case="g on load",
    ),
    Mutation(
        "biased variance in the running statistics",
        *("batch_norm", NORM, "unbiased = var * (n / (n - 1.0))", "unbiased = var"),
        case="train",
    ),
    Mutation(
        "biased variance: unbiased where batch statistics are",
        *("moments", NORM, "var = m2 / L.to(tl.float32)", "var = m2 / (L.to(tl.float32) - 1.0)"),
    ),
    Mutation(
        "eps inside against outside the root",
        *(
            "batch_norm",
            NORM,
            "1.0 / tl.sqrt_rn(variance + eps)",
            "1.0 / (tl.sqrt_rn(variance) + eps)",
        ),
        case="eval",
    ),
    Mutation(
        "dropped last split: norm",
        *(
            "batch_norm",
            NORM,
            "n = tl.where(split < SPLITS, rows, 0)",
            "n = tl.where(split < SPLITS - 1, rows, 0)",
        ),
        case="split",
    ),
    Mutation(
        "dropped last split: norm backward",
        *(
            "batch_norm",
            NORM,
            "keep = (split < SPLITS)[:, None]",
            "keep = (split < SPLITS - 1)[:, None]",
        ),
        after="def merge_sums_kernel",
        case="split",
    ),
    Mutation(
        "dropped last split: weight gradient",
        *(
            "conv_moments",
            CONV,
            "return dw.permute",
            "dw = part[:-1].sum(0) if len(part) > 1 else dw\n    return dw.permute",
        ),
        case="k4s2",
    ),
    Mutation(
        "dropped last split: forward and dgrad",
        *("conv_moments", CONV, "for _ in range(PARTS):", "for _ in range(PARTS - 1):"),
        case="split",
    ),
    Mutation(
        "statistics before rounding",
        *(
            "conv_moments",
            CONV,
            "v = tl.where(keep, y.to(tl.float32), 0.0)",
            "v = tl.where(keep, act(acc, ACT_OUT, SLOPE_OUT), 0.0)",
        ),
        case="k4s2",
    ),
    Mutation(
        "wrong leaky slope in the forward of a norm",
        *(
            "batch_norm",
            "kernels/activations.py",
            "tl.where(p > 0, p, p * SLOPE)",
            "tl.where(p > 0, p, p * 0.01)",
        ),
        case="leaky",
    ),
    Mutation(
        "wrong leaky slope in the backward of a norm",
        *(
            "batch_norm",
            "kernels/activations.py",
            "tl.where(p > 0, 1.0, SLOPE)",
            "tl.where(p > 0, 1.0, 0.01)",
        ),
        case="leaky",
    ),
    Mutation(
        "int32 offset into the image store",
        *(
            "images_gather",
            "kernels/images.py",
            "tl.where(inside, index, 0) * size",
            "tl.where(inside, index, 0).to(tl.int32) * size",
        ),
        case="2^32",
    ),
    Mutation(
        "step off by one in Adam",
        *("adam_ema", "kernels/adam.py", "t = done.to(tl.int64) + 1", "t = done.to(tl.int64) + 2"),
    ),
    Mutation(
        "step off by one in Adam: not advanced",
        *(
            "adam_ema",
            "kernels/adam.py",
            "tl.store(step_ptr, done + advance)",
            "tl.store(step_ptr, done)",
        ),
    ),
    Mutation(
        "swapped real and fake in the losses",
        *(
            "adversarial",
            "kernels/loss.py",
            "vr, vf, dr, df = _terms(r, f, KIND, D)",
            "vr, vf, dr, df = _terms(f, r, KIND, D)",
        ),
    ),
    Mutation(
        "swapped real and fake in the running statistics",
        *(
            "batch_norm",
            NORM,
            "for segment in range(first, last):",
            "for back in range(first, last):\n        segment = last - 1 - back + first",
        ),
        after="def segment_forward_kernel",
        case="groups",
    ),
)
