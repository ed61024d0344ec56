"""PSNR, SSIM, IoU, tables of them and the baselines against what they must be."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastgan.metrics import fidelity as tables
from fastgan.metrics.baselines import biharmonic, filled, richardson_lucy
from fastgan.metrics.fidelity import fidelity, iou, l1, psnr, ssim
from fastgan.objectives.translation.degradations import blur, flux, stretch


def test_psnr_and_l1_of_a_known_difference():
    a, b = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    b[1] = 0.2
    assert psnr(a, b)[1].item() == pytest.approx(20, abs=1e-4)
    assert psnr(a, b)[0].item() == 100
    assert l1(a, b)[1].item() == pytest.approx(0.1)
    where = torch.zeros(2, 1, 4, 4)
    where[:, :, 0, 0] = 1
    b[1, 0, 0, 0] = 2.0
    assert psnr(a, b, where)[1].item() == pytest.approx(0, abs=1e-6)


def test_ssim_is_one_for_equals_and_the_formula_for_one_window():
    torch.manual_seed(0)
    a, b = (torch.rand(1, 1, 5, 5) * 2 - 1 for _ in "ab")
    assert ssim(a, a).item() == pytest.approx(1)
    at = torch.arange(5, dtype=torch.float64) - 2
    w = torch.exp(-(at**2) / 4.5)
    w = torch.outer(w, w) / w.sum() ** 2
    x, y = ((v[0, 0].double() + 1) / 2 for v in (a, b))
    mx, my = (w * x).sum(), (w * y).sum()
    vx, vy, xy = (
        (w * (x - mx) ** 2).sum(),
        (w * (y - my) ** 2).sum(),
        (w * (x - mx) * (y - my)).sum(),
    )
    expected = (2 * mx * my + 1e-4) * (2 * xy + 9e-4)
    expected = expected / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    assert ssim(a, b).item() == pytest.approx(expected.item(), rel=1e-9)


def test_iou_is_the_mean_of_both_sides():
    true, made = -torch.ones(1, 1, 2, 4), -torch.ones(1, 1, 2, 4)
    true[..., :2] = 1
    made[..., 1:3] = 1
    assert iou(made, true).item() == pytest.approx((2 / 6 + 2 / 6) / 2)
    assert iou(true, true).item() == 1


def test_a_harmonic_surface_is_filled_exactly_and_sees_nothing_of_the_hole():
    y, x = np.mgrid[0:12, 0:12]
    plane = torch.from_numpy((0.03 * y - 0.05 * x)[None, None]).double()
    hole = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    hole[..., 3:8, 4:9] = True
    torch.testing.assert_close(filled(plane, hole), plane, rtol=0, atol=1e-6)
    other = torch.where(hole, torch.ones_like(plane), plane)
    assert torch.equal(filled(other, hole), filled(plane, hole))


def second_differences(height, width):
    """The matrix of the Laplacian of an image, flattened: along each axis where the pixel has two
    neighbours there."""
    rows = np.zeros((height * width, height, width))
    for y in range(height):
        for x in range(width):
            row = rows[y * width + x]
            if 0 < y < height - 1:
                row[y - 1 : y + 2, x] += (1, -2, 1)
            if 0 < x < width - 1:
                row[y, x - 1 : x + 2] += (1, -2, 1)
    return torch.from_numpy(rows.reshape(height * width, -1))


def test_a_biharmonic_surface_is_that_of_a_dense_solve():
    """Holes within, along an edge and in a corner, of two images with channels of their own."""
    image = torch.randn(2, 2, 7, 6, generator=torch.Generator().manual_seed(0)).double()
    image[1, 1] = 0.25
    hole = torch.zeros(2, 1, 7, 6, dtype=torch.bool)
    hole[0, :, 2:5, 1:4] = hole[1, :, :3, :2] = hole[1, :, 6, 2:5] = True
    found = biharmonic(image, hole)
    curved = second_differences(7, 6)
    for i in range(2):
        inside = hole[i].flatten()
        A = curved.T @ curved
        for channel in range(2):
            flat = image[i, channel].flatten()
            wanted = flat.clone()
            right = -A[inside][:, ~inside] @ flat[~inside]
            wanted[inside] = torch.linalg.solve(A[inside][:, inside], right)
            # the condition number is below 1e5 here, the residual below 1e-8 of the start's
            torch.testing.assert_close(
                found[i, channel].flatten(), wanted, rtol=0, atol=1e-5, msg=f"{i} {channel}"
            )
    assert torch.equal(found[~hole.expand_as(found)], image[~hole.expand_as(found)])
    assert (found[1, 1] == 0.25).all()


def test_planes_are_filled_to_the_edge_and_curved_surfaces_better_than_by_a_harmonic_one():
    y, x = (torch.from_numpy(v)[None, None].double() for v in np.mgrid[0:16, 0:16] / 15)
    hole = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    hole[..., 1:9, 4:12] = True  # as near to the edge as a harmonic surface allows
    plane, error = 0.6 * y - 0.9 * x + 0.1, lambda made, right: (made - right).abs().max().item()
    for other in (False, True):
        hole[..., 12:, :3] = other  # a corner
        assert error(biharmonic(plane, hole), plane) < 1e-6
    hole[..., 12:, :3], hole[..., :2, :] = False, False
    for curved in (y**2 + x**2, x**3 - 2 * y**2, (2 * x).sin() * y):
        ours, harmonic = (error(fill(curved, hole), curved) for fill in (biharmonic, filled))
        assert ours < 0.05 * harmonic
    unseen = torch.where(hole, torch.full_like(plane, 7.0), plane).float()
    assert torch.equal(biharmonic(unseen, hole), biharmonic(plane.float(), hole))


def test_a_wide_hole_needs_few_rounds():
    """Conjugate gradients alone are far from the surface after so many: they need 1,700."""
    image = torch.rand(
        1, 1, 67, 80, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    hole = torch.zeros(1, 1, 67, 80, dtype=torch.bool)
    hole[..., 10:60, 12:70] = True
    few, many = (biharmonic(image, hole, rounds=rounds) for rounds in (150, 2000))
    torch.testing.assert_close(few, many, rtol=0, atol=1e-3)
    assert not torch.allclose(few, biharmonic(image, hole, rounds=10), atol=0.1)


def test_a_biharmonic_fill_without_anything_known_or_missing_ends():
    image = torch.rand(2, 1, 8, 8)
    hole = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    hole[1] = False
    found = biharmonic(image, hole)
    assert torch.equal(found[1], image[1])
    assert (found[0] == 0).all()


def test_psnr_is_told_apart_by_how_much_is_compared(monkeypatch):
    """Means of the images of a group, beside the numbers over all, which stay what they were."""
    shares = [1, 4, 5, 8, 2, 4]  # of 16 pixels; 4 is at a bound
    target = torch.zeros(6, 1, 4, 4)
    hole = (torch.arange(16) < torch.tensor(shares)[:, None]).view(6, 1, 4, 4)
    made = torch.where(hole, 0.1 * torch.arange(1, 7).view(6, 1, 1, 1), 9.0)
    step = lambda rows: SimpleNamespace(batch={"image": target[rows], "hole": hole[rows]})
    chunks = [(step(rows), made[rows]) for rows in (slice(0, 4), slice(4, 6))]
    monkeypatch.setattr(tables, "walk", lambda *a, **how: iter(chunks))
    options = {
        "baselines": {"half": lambda step: 0.05 * torch.ones_like(step.batch["image"])},
        "where": lambda step: step.batch["hole"],
    }
    plain = fidelity("run", {"image": target}, **options)
    found = fidelity("run", {"image": target}, shares=(0.25, 0.4, 0.9), **options)
    mean = lambda rows: float(np.mean([-20 * np.log10(0.05 * (i + 1)) for i in rows]))
    assert set(plain.rows["generator"]) == {"L1 in it", "PSNR in it, dB"}
    for name, row in plain.rows.items():
        assert found.rows[name].items() >= row.items()
    groups = {k: v for k, v in found.rows["generator"].items() if k not in plain.rows["generator"]}
    wanted = {"PSNR to 25 %": [0, 1, 4, 5], "PSNR 25-40 %": [2], "PSNR 40-90 %": [3]}
    assert groups == pytest.approx({name: mean(rows) for name, rows in wanted.items()}, rel=1e-6)
    assert found.rows["half"]["PSNR 40-90 %"] == pytest.approx(-20 * np.log10(0.025))
    assert "4 (to 25 %), 1 (25-40 %), 1 (40-90 %)" in str(found)
    assert max(map(len, str(found).splitlines())) <= 80
    assert str(plain).splitlines()[2:4] == str(found).splitlines()[2:4]


def test_richardson_lucy_undoes_a_blur_without_noise():
    dots = torch.zeros(1, 1, 24, 24)
    dots[..., 8, 9], dots[..., 14, 15] = 3.0, 2.0
    seen = blur(dots, 1.5)
    better = flux(richardson_lucy(stretch(seen), 1.5, 30))
    assert (better - dots).square().mean() < 0.85 * (seen - dots).square().mean()
    assert better.argmax() == dots.argmax()
