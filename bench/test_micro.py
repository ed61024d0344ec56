"""Micro-benchmarks of every registered operator: `pytest bench/ --benchmark-only`; new operators appear by themselves."""

import pytest
import torch

from fastgan.bench import micro

pytest.importorskip("pytest_benchmark")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASES = list(micro.cases(DEVICE))


def name(case: tuple) -> str:
    op, sample, type_name, direction = case
    return f"{op.name}-{sample.name}-{type_name}-{direction}"


@pytest.mark.parametrize("provider", micro.PROVIDERS)
@pytest.mark.parametrize("case", CASES, ids=map(name, CASES))
def test_op(benchmark, case, provider) -> None:
    call = micro.call(*case, provider, DEVICE)
    call()  # compiles and tunes
    benchmark.group = name(case) + (" (CPU)" if DEVICE.type == "cpu" else "")
    benchmark.extra_info["provider"] = provider
    benchmark.pedantic(call, rounds=10 if DEVICE.type == "cuda" else 3, iterations=1, warmup_rounds=1)
