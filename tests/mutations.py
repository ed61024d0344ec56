"""The bugs that ``verify --quick`` must catch, as data: see tests/mutants.py. Each is a mistake somebody makes."""

from __future__ import annotations

from mutants import Mutation

MUTATIONS = (
    Mutation(
        "toy: boundary block",
        "scale_act",
        "tests/toy_ops.py",
        "mask=i < N)",
        "mask=i < N + BLOCK)",
        "tl.store(",
        family="tests.toy_ops",
    ),
    Mutation(
        "toy: skipped block",
        "scale_act",
        "tests/toy_ops.py",
        "tl.program_id(0).to(tl.int64) * BLOCK",
        "(tl.program_id(0) // 2 * 2).to(tl.int64) * BLOCK",
        family="tests.toy_ops",
    ),
    Mutation(
        "wrong leaky slope in backward",
        "scale_act",
        "kernels/_common.py",
        "tl.where(p > 0, 1.0, SLOPE)",
        "tl.where(p > 0, 1.0, 0.01)",
        family="tests.toy_ops",
    ),
)
