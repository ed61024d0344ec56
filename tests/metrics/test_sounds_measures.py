"""Log-mel spectrograms, and distances of sounds whose order is known."""

import math

import numpy as np
import pytest
import torch

from fastgan.data.sounds import vowels
from fastgan.media.spectrograms import bands, log_mel
from fastgan.metrics.sounds import features, measure, shaped_noise


def test_bands_rise_and_sum_to_one():
    made = bands(8000, 256, 32)
    assert made.shape == (32, 129)
    torch.testing.assert_close(made.sum(1), torch.ones(32))
    peaks = made.argmax(1)
    assert (peaks.diff() >= 0).all()


def test_a_tone_is_bright_in_its_band_alone():
    time = torch.arange(4096) / 8000
    mel = log_mel(torch.sin(2 * math.pi * 1000 * time)[None], 8000)[0]
    assert mel.shape == (64, 65)
    column = mel[:, 30]
    hertz = torch.linspace(0, 4000, 129)
    brightest = bands(8000, 256, 64)[column.argmax()] @ hertz
    assert float(brightest) == pytest.approx(1000, rel=0.05)
    assert float(column.max()) > 0.9
    assert float(column[-5:].max()) < 0.5
    assert float(log_mel(torch.zeros(1, 4096), 8000).max()) == 0


def test_louder_by_twenty_decibels_is_a_fifth_of_the_scale():
    sound = torch.from_numpy(vowels.draw(2, 1024, 8000)[0])
    loud, soft = log_mel(sound, 8000), log_mel(sound / 10, 8000)
    heard = soft > 0
    torch.testing.assert_close(
        (loud - soft)[heard], torch.full_like(loud[heard], 0.2), atol=1e-4, rtol=0
    )


def test_reals_are_nearer_than_noise_of_their_spectrum():
    made, _ = vowels.draw(200, 1024, 4000)
    sounds = torch.from_numpy(made)
    found = measure("run", sounds[:50], sounds[:50] * 0, sounds[50:150], sounds[150:], 4000).rows
    noise, floor = found["noise of their spectrum"], found["held-out reals (floor)"]
    assert found["generator"]["FD-mel"] < 0.5 * noise["FD-mel"]
    assert floor["KD-mel"] < 0.2 * noise["KD-mel"]
    assert found["untrained generator"]["FD-mel"] > noise["FD-mel"]


def test_shaped_noise_has_the_spectrum_and_is_noise():
    time = np.arange(1024) / 4000
    tones = torch.from_numpy(np.sin(2 * np.pi * 500 * time)).float().expand(4, -1)
    noise = shaped_noise(tones, 20, 0)
    power = torch.fft.rfft(noise).abs().square().mean(0)
    assert int(power.argmax()) == 128
    assert features(noise, 4000).shape == (20, 96)
    assert torch.equal(noise, shaped_noise(tones, 20, 0))
