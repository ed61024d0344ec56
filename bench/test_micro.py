"""Micro-benchmarks of every registered operator: `pytest bench/ --benchmark-only`; new operators
appear by themselves."""

import pytest
import torch

from fastgan.bench import operator_calls

pytest.importorskip("pytest_benchmark")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SAMPLES = [s for s in operator_calls.samples(DEVICE) if operator_calls.engines(s, DEVICE)[0]]


@pytest.mark.parametrize("provider", ["auto", "eager"])
@pytest.mark.parametrize(
    "sample", SAMPLES, ids=[sample.name.replace(" | ", "-") for sample in SAMPLES]
)
def test_op(benchmark, sample, provider) -> None:
    sets = operator_calls.inputs(sample, provider, sample.make(DEVICE), 1)
    engine = operator_calls.engines(sample, DEVICE)[0][0]
    wanted = (
        provider
        if provider == "eager" or operator_calls.automatic(sample, DEVICE, sample.make(DEVICE))
        else engine
    )
    (call,) = operator_calls.calls(sample, operator_calls.function(sample, wanted), sets)

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
