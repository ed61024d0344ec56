"""`pytest bench/`: the operator rows of `fastgan bench`, judged and called the same way, on
pytest-benchmark's clock."""

import pytest
import torch

from fastgan.bench import operator_calls, operators
from fastgan.bench.iterations.measure import sync

pytest.importorskip("pytest_benchmark")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SAMPLES = [s for s in operator_calls.samples(DEVICE) if operator_calls.engines(s, DEVICE)[0]]


@pytest.mark.parametrize("provider", ["auto", "eager"])
@pytest.mark.parametrize(
    "sample", SAMPLES, ids=[sample.name.replace(" | ", "-") for sample in SAMPLES]
)
def test_op(benchmark, sample, provider) -> None:
    made = sample.make(DEVICE)
    auto = operator_calls.automatic(sample, DEVICE, made)
    if provider == "auto":
        provider = auto or operator_calls.engines(sample, DEVICE)[0][0]
    apart = operators.Judge(sample, made).disagreement(provider, auto)
    assert apart is None or apart < operators.AGREES[sample.type_name]
    caller = operator_calls.Caller(sample, provider, auto, DEVICE, made)

    def timed() -> None:
        caller.step()
        sync(DEVICE)

    benchmark.group = sample.name + (" (CPU)" if DEVICE.type == "cpu" else "")
    benchmark.extra_info |= {"provider": provider, "calls": caller.count}
    with caller.flags():
        benchmark.pedantic(timed, rounds=10 if DEVICE.type == "cuda" else 3, warmup_rounds=1)
