"""The bugs that ``verify --quick`` must catch, as data: see tests/support/mutants.py. Each is a
mistake somebody makes."""

from __future__ import annotations

from mutants import Mutation

NORM, CONV = "kernels/norm/*.py", "kernels/conv/*.py"
TOY = {"op": "scale_act", "family": "tests.support.toy_ops"}

MUTATIONS = (
    # The bugs that must be caught, whatever else is planted.
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
            "splits = tl.minimum(tl.maximum(SPLITS - begin, 0), unit)",
            "splits = tl.minimum(tl.maximum(SPLITS - 1 - begin, 0), unit)",
        ),
        case="split",
    ),
    Mutation(
        "dropped last split: norm backward",
        *("batch_norm", NORM, "keep = (i < count)[:, None]", "keep = (i < count - 1)[:, None]"),
        after="def merged_sums",
        case="split",
    ),
    Mutation(
        "merged before the last part is there",
        *(
            "batch_norm",
            NORM,
            'scope="gpu") == count - 1',
            'scope="gpu") == tl.maximum(count - 2, 0)',
        ),
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
    # what else went wrong somewhere, or might
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
    # three times the gradient in the table of activations, jitted and in PyTorch
    Mutation(
        "activation: three times the gradient",
        *("affine_act", "kernels/activations.py", "d = y * (1.0 - y)", "d = 3.0 * y * (1.0 - y)"),
        case="activation",
    ),
    Mutation(
        "activation: three times the gradient told by the output",
        *("conv2d", "kernels/activations.py", "d = z * (1.0 - z)", "d = 3.0 * z * (1.0 - z)"),
        case="activation",
    ),
    Mutation(
        "activation: three times the derivative in the row",
        *(
            "conv_moments",
            "kernels/activations.py",
            "return z * (1 + p * (1 - z))",
            "return 3 * z * (1 + p * (1 - z))",
        ),
        case="second order",
    ),
    Mutation(
        "activation: three times the derivative by the output in the row",
        *(
            "conv2d",
            "kernels/activations.py",
            "lambda y, slope: y * (1 - y)",
            "lambda y, slope: 3 * y * (1 - y)",
        ),
        case="second order",
    ),
    Mutation(
        "loss: three times the gradient",
        *(
            "adversarial",
            "kernels/loss.py",
            "df = f if D else f - 1.0",
            "df = f if D else 3.0 * (f - 1.0)",
        ),
    ),
    Mutation(
        "loss: three times the formula in the row",
        *(
            "adversarial",
            "fastgan/ops/loss_table.py",
            "f.mean() - r.mean()",
            "3 * (f.mean() - r.mean())",
        ),
    ),
    # the machinery on its own op
    Mutation(
        "toy: boundary block",
        **TOY,
        file="tests/support/toy_ops.py",
        pattern="mask=i < N)",
        replacement="mask=i < N + BLOCK)",
        after="tl.store(",
    ),
    Mutation(
        "toy: a block computed twice, its neighbour never",
        **TOY,
        file="tests/support/toy_ops.py",
        pattern="tl.program_id(0).to(tl.int64) * BLOCK",
        replacement="(tl.program_id(0) // 2 * 2).to(tl.int64) * BLOCK",
    ),
)
