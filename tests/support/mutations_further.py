"""What else went wrong somewhere in a kernel, or might: see mutations.py."""

from __future__ import annotations

from mutants import Mutation

NORM, CONV = "kernels/norm/*.py", "kernels/conv/*.py"

FURTHER = (
    Mutation(
        "norm: backward forgets the mean of dp",
        *("batch_norm", NORM, "(k0[None, :] + x * k1[None, :])", "(x * k1[None, :])"),
        after="def dx_of",
        case="train",
    ),
    Mutation(
        "norm: raw sums, not pivoted",
        *("moments", NORM, "x -= pivot[None, :]", "x -= 0.0"),
        after="def welford_rows",
    ),
    Mutation(
        "norm: cumulative average off by one",
        *("batch_norm", NORM, "- SEGMENTS + segment + 1)", "- SEGMENTS + segment + 2)"),
        case="cumulative",
    ),
    Mutation(
        "spectral: sigma squared",
        *(
            "spectral_sigma",
            "kernels/spectral/kernels.py",
            "sigma = square_v * scale_v if LAST_IS_V",
            "sigma = square_v if LAST_IS_V",
        ),
    ),
    Mutation(
        "spectral: the overlap of one block of rows for that of all",
        *(
            "spectral_weights",
            "kernels/spectral/kernels.py",
            "mask=i < count, other=0.0)",
            "mask=i < 1, other=0.0)",
        ),
    ),
    Mutation(
        "spectral: last column of a weight left out",
        *(
            "spectral_sigma",
            "kernels/spectral/kernels.py",
            "& (m < w)[None, :]",
            "& (m < w - 1)[None, :]",
        ),
        after="def row_product_kernel",
    ),
    Mutation(
        "losses: softplus overflows",
        *(
            "adversarial",
            "kernels/loss.py",
            "return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + small",
            "return tl.log(1.0 + tl.exp(x))",
        ),
        after="def softplus",
    ),
    Mutation(
        "losses: the real half divided by the number of fakes",
        *("adversarial", "kernels/loss.py", "tl.div_rn(value_r, nr)", "tl.div_rn(value_r, nf)"),
    ),
    Mutation(
        "average: the live value moves by what is left of the average",
        *(
            "average",
            "kernels/average.py",
            "lerp(average, live, share)",
            "lerp(live, average, share)",
        ),
    ),
    Mutation(
        "average: the tail of a piece is left out",
        *(
            "average",
            "kernels/average.py",
            "mask = i < tl.load(row + 2)",
            "mask = i < tl.load(row + 2) - 1",
        ),
    ),
    Mutation(
        "Adam: decoupled decay after the step",
        *("adam_ema", "kernels/adam.py", "p = p * shrink", "g = g + p * (1.0 - shrink)"),
    ),
    Mutation(
        "Adam: the low-precision copy of the old parameter",
        *(
            "adam_ema",
            "kernels/adam.py",
            "p = p + tl.div_rn(m * minus_step_size, denominator)\n        tl.store(param_ptr + i, "
            "p, mask=mask)",
            "tl.store(param_ptr + i, p + tl.div_rn(m * minus_step_size, denominator), mask=mask)",
        ),
    ),
    Mutation(
        "Adam: a skipped step still moves",
        *("adam_ema", "kernels/adam.py", "limit = tl.where(skip, 0, n)", "limit = n"),
        case="skipped",
    ),
    Mutation(
        "images: mirrored about the wrong column",
        *("images_gather", "kernels/images.py", "(2 * column + 1) * C", "(2 * column + 2) * C"),
        case="flip",
    ),
    Mutation(
        "DiffAugment: the adjoint shifts the same way",
        *("diffaugment", "kernels/augment.py", "shift_h = -shift_h", "shift_h = shift_h"),
    ),
    Mutation(
        "resampling: the row below at the small map's width",
        *(
            "upsample2",
            "kernels/resample.py",
            "below = tl.full((), 2, tl.int64) * w * C",
            "below = tl.full((), 1, tl.int64) * w * C",
        ),
    ),
    Mutation(
        "resampling: the sum rounded before the last of four",
        *(
            "avg_pool2",
            "kernels/resample.py",
            "v += tl.load(large_ptr + large + below + C,",
            "v = v.to(small_ptr.dtype.element_ty).to(tl.float32)\n"
            "    v += tl.load(large_ptr + large + below + C,",
        ),
    ),
    Mutation(
        "resampling: odd-channel mask",
        *("upsample2", "kernels/resample.py", "& (c < C)", "& (c < C + 1)"),
    ),
    Mutation(
        "resampling: the boundary tile of pixels",
        *("avg_pool2", "kernels/resample.py", "(p < pixels)", "(p < pixels + 1)"),
    ),
    Mutation(
        "resampling: rows of the small map counted by the large one's width",
        *("avg_pool2", "kernels/resample.py", "(p // w)", "(p // (2 * w))"),
    ),
    Mutation(
        "resampling: the backward without its factor",
        *(
            "avg_pool2",
            "fastgan/ops/resample.py",
            "_run(g, not ctx.up, ctx.factor), None, None",
            "_run(g, not ctx.up, 1.0), None, None",
        ),
    ),
    Mutation(
        "bias: its gradient summed over one image",
        *("add_bias", "fastgan/ops/bias.py", "rows = dense(g)", "rows = dense(g[:1])"),
    ),
    Mutation(
        "convolution: a tap of the wrong phase",
        *(
            "conv_transpose_moments",
            CONV,
            "ky0, kx0 = (ry + PH) % SH, (rx + PW) % SW",
            "ky0, kx0 = (ry + PH) % SH, (rx + PW + 1) % SW",
        ),
        case="k4s2",
    ),
    Mutation(
        "convolution: parts of a reduction overlap",
        *("conv_moments", CONV, "tl.minimum(row0 + rows, taps_h)", "taps_h"),
        case="k4s2",
    ),
    Mutation(
        "convolution: the scale applied to parts and to their sum",
        *(
            "conv_moments",
            CONV,
            "acc = add_parts(part_ptr + first, PARTS, PART, at, keep, BLOCK_M, BLOCK_N)",
            "acc = add_parts(part_ptr + first, PARTS, PART, at, keep, BLOCK_M, BLOCK_N)\n"
            "    acc *= tl.load(scale_ptr) if scale_ptr is not None else 1.0",
        ),
        after="def conv_forward_sum_kernel",
        case="split",
    ),
    Mutation(
        "convolution: the group's scale and shift in parts",
        *("conv_moments", CONV, "u_ptr + group * u_group, v_ptr + group * u_group", "u_ptr, v_ptr"),
        after="def conv_split_kernel",
        case="groups",
    ),
    Mutation(
        "merged phases: a weight where the phase has no tap",
        *(
            "conv_transpose_moments",
            CONV,
            "(ky >= 0) & (ky < KH) & (kx >= 0) & (kx < KW)",
            "(ky >= 0) & (ky < KH) & (kx >= 0)",
        ),
        case="last",
    ),
    Mutation(
        "merged phases: pixels counted as if every phase were whole",
        *(
            "conv_transpose_moments",
            CONV,
            "tl.sum(keep.to(tl.float32), 0)",
            "tl.sum(live.to(tl.float32), 0) + n * 0",
        ),
        after="def finish_forward",
        case="merged odd",
    ),
    Mutation(
        "convolution: ds without x",
        *("conv_moments", CONV, "tl.sum(dp * x.to(tl.float32), 0)", "tl.sum(dp, 0)"),
        case="k4s2",
    ),
)
