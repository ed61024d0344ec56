"""PSNR, SSIM, IoU and the baselines against what they must be."""

import numpy as np
import pytest
import torch

from fastgan.metrics.baselines import filled, richardson_lucy
from fastgan.metrics.fidelity import iou, l1, psnr, ssim
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


def test_richardson_lucy_undoes_a_blur_without_noise():
    dots = torch.zeros(1, 1, 24, 24)
    dots[..., 8, 9], dots[..., 14, 15] = 3.0, 2.0
    seen = blur(dots, 1.5)
    better = flux(richardson_lucy(stretch(seen), 1.5, 30))
    assert (better - dots).square().mean() < 0.85 * (seen - dots).square().mean()
    assert better.argmax() == dots.argmax()
