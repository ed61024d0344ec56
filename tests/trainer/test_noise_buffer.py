"""Noise drawn for many steps at once is the noise of each."""

import pytest
import torch

from fastgan.kernels.common import INTERPRET
from fastgan.objectives import Noise
from fastgan.objectives.base import draw
from fastgan.trainer.step.noise_buffer import NoiseBuffer


@pytest.mark.parametrize("rounds", [1, 3])
def test_noise_drawn_ahead_is_the_noise_of_each_step(rounds):
    noise = {
        "z": Noise((5,)),
        "u": Noise((2, 1), "uniform", 0.0, 3.0),
        "c": Noise((), "categorical", classes=7),
    }
    ahead = NoiseBuffer(noise, 11, 8, rounds)
    assert (ahead.steps == 1) == INTERPRET
    for step in (0, 1, ahead.steps - 1, ahead.steps, 5 * ahead.steps + 2, 1):
        drawn = ahead.of(step)
        assert len(drawn) == rounds
        for at, found in enumerate(drawn):
            expected = draw(noise, 11, torch.tensor((step * rounds + at) * 8), 8)
            assert all(torch.equal(found[name], expected[name]) for name in noise)
    assert NoiseBuffer({"z": Noise((128, 128))}, 0, 64, 6).steps == 1
    assert NoiseBuffer({}, 0, 64, 1).of(3) == [{}]
