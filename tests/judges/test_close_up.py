"""Patches of sets: reals are at 0, one colour at 1, blur between, noise and grids beyond."""

import pytest
import torch
from torch.nn import functional as F

from fastgan.judges.classifier import shrink
from fastgan.judges.distances import frechet_distance
from fastgan.judges.patches import COUNT, VISIBLE, close_up, some_patches


def distances(reals, sets):
    drawn = {name: some_patches(images, 1) for name, images in sets.items()}
    return close_up(some_patches(reals, 0), drawn)


def smooth(count, seed):
    """(count, 3, 64, 64) in [0.1, 0.9], soft shapes."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=64, mode="bilinear", align_corners=False) * 0.8 + 0.1


def textured(count, seed):
    dice = torch.Generator().manual_seed(seed)
    return (smooth(count, seed) + 0.1 * torch.randn(count, 3, 64, 64, generator=dice)).clamp(0, 1)


def blurred(images, side):
    return F.avg_pool2d(images, side, 1, side // 2, count_include_pad=False)


def test_what_lacks_detail_lies_between_the_reals_and_one_colour():
    reals, others = textured(200, 0), textured(200, 1)
    one = reals.mean((0, 2, 3), keepdim=True).expand_as(reals)
    sets = {"others": others, "bit": blurred(others, 3), "much": blurred(others, 7), "one": one}
    found = distances(reals, sets)
    assert 0 <= found["others"] < 0.05
    assert found["others"] + 0.2 < found["bit"] < found["much"] < found["one"]
    assert found["one"] == pytest.approx(1, abs=0.02)


def test_a_grid_that_the_small_network_never_sees_is_further_than_one_colour():
    """As transposed convolutions leave one: in 64 pixels, of which it is shown 32."""
    reals, others = smooth(200, 0), smooth(200, 1)
    at = torch.arange(64)
    grid = others + 0.03 * (1 - 2 * ((at[:, None] + at) % 2))
    assert (shrink(grid) - shrink(others)).abs().max() < 0.004
    noise = torch.randn(others.shape, generator=torch.Generator().manual_seed(2))
    found = distances(reals, {"grid": grid, "seen": others + 0.05 * noise})
    assert found["grid"] > 1
    assert found["seen"] > 1


def test_what_no_eye_can_see_counts_little():
    reals, others = smooth(200, 0), smooth(200, 1)
    found = distances(reals, {"others": others, "rounded": (others * 255).round() / 255})
    assert found["rounded"] == pytest.approx(found["others"], abs=0.01)


def test_the_distance_is_frechets_of_the_scaled_patches():
    reals, made = (
        torch.rand(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1)
    )
    a, b = (x.flatten(1).double() for x in (made, reals))
    a, b = (
        x[torch.randint(COUNT, (COUNT, 1, 1), generator=torch.Generator().manual_seed(s)).flatten()]
        for x, s in ((a, 1), (b, 0))
    )
    root = torch.linalg.cholesky(
        torch.linalg.inv(torch.cov(b.T) + VISIBLE**2 * torch.eye(64, dtype=torch.float64))
    )
    expected = frechet_distance(a @ root, b @ root) / float((b @ root).var(0).sum())
    assert distances(reals, {"made": made})["made"] == pytest.approx(expected, rel=1e-6)


def test_reals_of_one_colour_say_nothing():
    flat = torch.full((64, 1, 8, 8), 0.5)
    assert distances(flat, {"samples": torch.rand(64, 1, 8, 8)}) == {}


def test_rows_and_bytes_are_the_same_images():
    images = torch.randint(256, (50, 3, 16, 20), dtype=torch.uint8)
    rows = torch.tensor([7, 3, 40])
    expected = some_patches(images[rows].double() / 255, 5)
    assert torch.equal(some_patches(images, 5, rows), expected)
