"""The arithmetic of several GPUs: its limits are right."""

import pytest

from fastgan.bench.experiments import scaling
from fastgan.bench.experiments.scaling import BACKWARD, Phase, efficiency, exposed, reduction


def test_a_reduction_is_two_rings():
    size = 1e9
    two = reduction(size, 2) - scaling.START
    assert two == pytest.approx(size / scaling.NVLINK)  # each sends its half, and the half's sum
    eight = reduction(size, 8) - scaling.START
    assert eight == pytest.approx(2 * 7 / 8 * size / scaling.NVLINK)
    between = reduction(size, 16) - reduction(size, 8) - scaling.HOP
    assert between == pytest.approx(size / 8 / scaling.INFINIBAND)


def test_what_is_exposed_is_at_least_the_last_bucket_and_at_most_all():
    phase = Phase("D", 1e-3, 10_000_000)
    assert exposed(phase, 1, 1e6) == 0
    last = reduction(4e6, 8)
    assert last * 0.99 <= exposed(phase, 8, 4e6) <= 10 * last
    assert exposed(phase, 8, 1e12) == pytest.approx(reduction(4e7, 8))
    slow = Phase("D", 100.0, 10_000_000)  # everything but the last bucket hides
    assert exposed(slow, 8, 4e6) == pytest.approx(last)
    assert exposed(slow, 8, 4e6) < BACKWARD


def test_networks_are_those_of_the_recipes_and_more_gpus_never_help_each():
    dcgan, r3gan = scaling.trainings()
    assert [p.parameters for p in dcgan.phases] == [2_765_568, 3_576_704]
    assert 90e6 < sum(p.parameters for p in r3gan.phases) < 110e6
    for training in (dcgan, r3gan):
        found = [efficiency(training, n) for n in (1, 2, 8, 16, 64, 1024)]
        assert found[0] == 1
        assert found == sorted(found, reverse=True)
