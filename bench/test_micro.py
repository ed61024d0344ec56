"""Micro-benchmarks of every registered operator: `pytest bench/ --benchmark-only`; new operators
appear by themselves."""

import pytest
import torch

from fastgan.bench import operators

pytest.importorskip("pytest_benchmark")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SAMPLES = [sample for sample in operators.samples(DEVICE) if operators.engines(sample, DEVICE)[0]]


@pytest.mark.parametrize("provider", ["auto", "eager"])
@pytest.mark.parametrize(
    "sample", SAMPLES, ids=[sample.name.replace(" | ", "-") for sample in SAMPLES]
)
def test_op(benchmark, sample, provider) -> None:
    sets = operators.inputs(sample, provider, sample.make(DEVICE), 1)
    engine = operators.engines(sample, DEVICE)[0][0]
    wanted = (
        provider
        if provider == "eager" or operators.automatic(sample, DEVICE, sample.make(DEVICE))
        else engine
    )
    (call,) = operators.calls(sample, operators.function(sample, wanted), sets)

    def timed() -> None:
        call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    timed()  # compiles and tunes
    benchmark.group = sample.name + (" (CPU)" if DEVICE.type == "cpu" else "")
    benchmark.extra_info["provider"] = provider
    benchmark.pedantic(
        timed, rounds=10 if DEVICE.type == "cuda" else 3, iterations=1, warmup_rounds=1
    )
