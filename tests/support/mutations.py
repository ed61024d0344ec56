"""The bugs that ``verify --quick`` must catch, as data: see tests/support/mutants.py. Each is a
mistake somebody makes."""

from __future__ import annotations

from mutants import Mutation
from mutations_further import FURTHER
from mutations_required import REQUIRED

CONV = "kernels/conv/*.py"
TOY = {"op": "scale_act", "family": "tests.support.toy_ops"}

MUTATIONS = (
    *REQUIRED,
    *FURTHER,
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
