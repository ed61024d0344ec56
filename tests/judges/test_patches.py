"""Patches of images: the distance knows blur, noise and the floor, and sees only where it is told."""

import pytest
import torch
from torch.nn import functional as F

from fastgan.judges.distances import frechet_distance
from fastgan.judges.patches import SIDE, VISIBLE, Patches


def textured(count, seed):
    """Smooth random images with fine detail, (count, 1, 24, 24) in [-1, 1]."""
    dice = torch.Generator().manual_seed(seed)
    coarse, fine = (torch.randn(count, 1, side, side, generator=dice) for side in (6, 24))
    large = F.interpolate(coarse, size=24, mode="bilinear", align_corners=False)
    return (0.4 * large + 0.15 * fine).clamp(-1, 1)


def blurred(images):
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)


def measured(targets, **sets):
    patches = Patches(len(targets))
    for part in range(0, len(targets), 50):
        at = slice(part, part + 50)
        patches.add(targets[at], {name: images[at] for name, images in sets.items()})
    return patches.distances()


def test_others_of_the_kind_are_at_the_floor_and_blur_and_noise_far_above_it():
    targets, others = textured(200, 0), textured(200, 1)
    noise = 0.2 * torch.randn(targets.shape, generator=torch.Generator().manual_seed(2))
    one = targets.mean((0, 2, 3), keepdim=True).expand_as(targets)
    found = measured(
        targets, same=targets, others=others, blurred=blurred(others), noisy=others + noise, one=one
    )
    assert found["same"] == found[""]
    assert 0 <= found[""] < 0.05
    assert 0 <= found["others"] < 0.05
    assert found["blurred"] > 0.3
    assert found["noisy"] > 0.3
    assert found["one"] == pytest.approx(1, abs=0.02)


def test_a_pixel_aside_is_wrong_for_psnr_and_right_as_a_set():
    targets = textured(200, 0)
    assert measured(targets, moved=targets.roll(1, 3))["moved"] < 0.05


def test_patches_are_taken_where_they_are_told_to():
    targets = textured(100, 0)
    wrong = targets.clone()
    wrong[..., 12:] = 1
    left = torch.zeros(100, 1, 24, 24)
    left[..., :8] = 1
    patches = Patches(100)
    patches.add(targets, {"wrong": wrong}, left)
    found = patches.distances()
    assert found["wrong"] == found[""]
    assert measured(targets, wrong=wrong)["wrong"] > 0.3


def test_the_distance_is_frechets_of_scaled_patches_in_both_directions():
    dice = torch.Generator().manual_seed(3)
    targets, made = (torch.rand(800, 1, SIDE, SIDE, generator=dice) * 2 - 1 for _ in "ab")
    patches = Patches(800)
    patches.add(targets, {"made": made})
    half = patches.halves[0]
    a, b = (x.flatten(1).double().add(1).div(2) for x in (made, targets))
    cov = torch.cov(b.T) + VISIBLE**2 * torch.eye(SIDE * SIDE, dtype=torch.float64)
    root = torch.linalg.cholesky(torch.linalg.inv(cov))  # any root: the distance is of the plane
    a, b = ((x - b.mean(0)) @ root for x in (a, b))
    both = frechet_distance(a[half], b[~half]) + frechet_distance(a[~half], b[half])
    expected = both / 2 / float(b.var(0).sum())
    assert patches.distances()["made"] == pytest.approx(expected, rel=1e-6)


def test_too_few_patches_say_nothing():
    few, images = Patches(500), torch.rand(500, 1, SIDE, SIDE)  # a distance of 64 directions
    few.add(images, {"made": images})
    assert few.distances() == {}
    small = Patches(2)
    small.add(torch.zeros(2, 1, 4, 4), {})
    assert small.distances() == {}
