"""Sample grids and training curves."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fastgan.data.pixels import decode
from fastgan.errors import FastganError
from fastgan.monitor import pictures
from fastgan.monitor.pictures import charts, formats


def test_a_grid_shows_every_pixel_of_every_image_in_reading_order():
    images = torch.rand(7, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    picture = np.asarray(pictures.grid(images, columns=3, padding=2, scale=3))
    assert picture.shape == (3 * (15 + 2) + 2, 3 * (12 + 2) + 2, 3)
    for index in range(7):
        y, x = 2 + (index // 3) * 17, 2 + (index % 3) * 14
        cell = picture[y : y + 15, x : x + 12]
        expected = (
            (images[index].permute(1, 2, 0).numpy() * 255 + 0.5)
            .astype(np.uint8)
            .repeat(3, 0)
            .repeat(3, 1)
        )
        assert (cell == expected).all()
    assert (picture[-17:-2, 17:] == 255).all(), "cells without an image are paper"


@pytest.mark.parametrize(("side", "factor"), [(8, 10), (28, 3), (32, 3), (64, 1), (256, 1)])
def test_small_images_are_magnified_by_a_whole_number(side, factor):
    assert pictures.grid(np.zeros((1, 1, side, side)), padding=0).size == (
        side * factor,
        side * factor,
    )


def test_odd_values_and_types_become_pixels():
    values = np.array([-1.0, 0.0, 0.5, 1.0, 7.0, math.nan]).reshape(1, 1, 1, 6)
    assert np.asarray(pictures.grid(values, padding=0, scale=1))[0, :, 0].tolist() == [
        0,
        0,
        128,
        255,
        255,
        0,
    ]
    assert (
        np.asarray(
            pictures.grid(torch.full((1, 1, 1, 1), 0.5, dtype=torch.bfloat16), padding=0, scale=1)
        )[0, 0, 0]
        == 128
    )
    assert (
        np.asarray(pictures.grid(np.full((1, 1, 1, 1), 9, np.uint8), padding=0, scale=1))[0, 0, 0]
        == 9
    )


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 2, 8, 8), (2, 5, 8, 8), (0, 3, 8, 8)])
def test_other_shapes_are_refused_by_name(shape):
    with pytest.raises(FastganError, match="shape"):
        pictures.grid(np.zeros(shape))


def test_grids_are_written_to_paths_and_open_files(tmp_path):
    images = torch.rand(4, 1, 28, 28)
    pictures.save_grid(tmp_path / "new" / "grid.png", images)
    buffer = io.BytesIO()
    pictures.save_grid(buffer, images)
    assert (tmp_path / "new" / "grid.png").read_bytes() == buffer.getvalue()
    assert Image.open(buffer).format == "PNG"


def rows(count=200):
    dice = np.random.default_rng(0)
    return [
        {
            "step": 25 * i,
            "loss/D": float(dice.normal(1, 0.1)),
            "loss/G": float(dice.normal(3, 0.3)),
            "time": 1e9 + i,
            "D/logit_real": 2.0,
            "D/logit_fake": -2.0,
            "D/acc_real": 0.9,
        }
        for i in range(1, count + 1)
    ]


def test_metrics_are_drawn_in_the_panel_they_belong_to():
    wanted = {
        "loss/D": "loss",
        "loss/G/adv": "loss",
        "D/logit_real": "logits of D",
        "D2/acc_fake": "accuracy of D",
        "diversity": "diversity of samples",
        "lr/G": "learning rate",
        "images_per_s": "images per second",
        "gp": "other",
        "accumulated": "other",
        "step": None,
        "time": None,
        "images": None,
    }
    assert {key: charts.panel_of(key) for key in wanted} == wanted


def test_each_panel_adds_height_and_colour():
    few = pictures.draw_curves([{"step": 1, "loss/D": 1.0}, {"step": 2, "loss/D": 2.0}])
    many = pictures.draw_curves(rows())
    assert few.width == many.width
    assert few.height < many.height
    colours = {tuple(c) for c in np.asarray(many).reshape(-1, 3)}
    assert {(0, 114, 178), (213, 94, 0)} <= colours


@pytest.mark.parametrize(
    "table",
    [
        [],
        [{"step": 5, "loss/D": 1.0}],
        [{"step": 5, "loss/D": math.nan}, {"step": 6, "loss/D": math.inf}],
        [{"step": 5, "loss/D": 0.0}, {"step": 6, "loss/D": 0.0, "late": 1e-9}],
        [{"step": 5, "x": 1e30}, {"step": 6, "x": -1e30}, {"step": 7, "x": None, "y": True}],
    ],
)
def test_hardly_any_or_odd_metrics_still_make_a_picture(table, tmp_path):
    pictures.curves(
        table,
        tmp_path / "curves.png",
        title="a title that is far too long for the width of any picture " * 5,
    )
    assert Image.open(tmp_path / "curves.png").size[0] == 960


def test_non_finite_values_are_gaps_with_a_red_tick():
    def reddish(table):
        picture = np.asarray(pictures.draw_curves(table)).astype(int)
        return ((picture[..., 0] > 180) & (picture[..., 1] < 60) & (picture[..., 2] < 60)).sum()

    table = rows(100)
    before = reddish(table)  # a pixel or two where orange and blue curves cross
    table[50]["loss/D"] = math.nan
    assert reddish(table) > before + 5


def test_smoothing_keeps_length_constants_and_gaps():
    values = np.full(100, 3.0)
    values[40] = math.nan
    smoothed = charts.smooth(values, 9)
    assert np.isnan(smoothed[40])
    assert np.allclose(np.delete(smoothed, 40), 3.0)
    noise = np.random.default_rng(0).normal(size=1000)
    assert charts.smooth(noise, 20).std() < 0.5 * noise.std()


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3.2, 7.7), (0, 30_000), (1e-6, 4e-6), (-1e9, 1e9)]
)
def test_ticks_are_few_round_and_inside(low, high):
    found = charts.ticks(low, high, 5)
    assert 3 <= len(found) <= 8
    assert all(low - 1e-9 * abs(high) <= tick <= high * (1 + 1e-9) for tick in found)
    gaps = np.diff(found)
    mantissa = gaps[0] / 10 ** math.floor(math.log10(gaps[0]))
    assert np.allclose(gaps, gaps[0])
    assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 1e-6


def test_transparent_images_lie_on_white_in_a_grid_and_keep_their_alpha_alone(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    image[3, :4], image[3, 4:] = 0, 255
    drawn = pictures.pixels(image[None])[0]
    assert (drawn[:4] == 255).all()
    assert np.array_equal(drawn[4:], image[:3, 4:].transpose(1, 2, 0))
    formats.save_still(pictures.still(image), tmp_path / "one.png")
    assert np.array_equal(
        decode((tmp_path / "one.png").read_bytes(), None, 4).transpose(2, 0, 1), image
    )
