"""Recipe inpainting with Fourier convolutions, and what its measure says."""

import json

import numpy as np
import pytest
import torch
from exact_resume import goes_on_exactly
from run_support import commands, in_a_hurry

from fastgan import recipes
from fastgan.models.srresnet import FourierResNet
from fastgan.models.unet import UNet
from fastgan.objectives.base import Step, draw
from fastgan.recipes import ImageSpec


@pytest.fixture
def few(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    np.savez("few.npz", images=np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8))


def tiny(**options):
    given = {"data": "few.npz", "size": 16, "width": 2, "batch_size": 4, "steps": 3}
    return recipes.find("inpainting")(
        **{**given, "device": "cpu", "progress": False, "fourier": 1, **options}
    )


def test_known_pixels_are_those_of_the_image_with_either_generator():
    image = torch.rand(4, 3, 16, 16) * 2 - 1
    for fourier, kind in ((0, UNet), (2, FourierResNet)):
        parts = tiny(fourier=fourier).build(ImageSpec(16, 3))
        assert type(parts.nets["G"]) is kind
        noise = draw(parts.objective.noise, 0, torch.tensor(0), 4)
        step = Step(parts.objective, parts.nets, 0, batch={"image": image}, noise=noise)
        made, hole = parts.objective.generate(step), parts.objective.hole(step).expand_as(image)
        assert torch.equal(made[~hole], image[~hole])
        assert (made[hole] != image[hole]).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_fourier_run_goes_on_exactly(precision, few):
    straight, _ = goes_on_exactly(tiny(precision=precision), 2, 3)
    start = tiny().build(ImageSpec(16, 1)).nets["G"].state_dict().keys()
    trained = straight.nets["G"].state_dict()
    assert trained.keys() == start
    assert all(torch.isfinite(value).all() for value in trained.values())


def test_evaluate_keeps_its_numbers_and_tells_them_apart_by_the_hole(few, capsys):
    call = commands(capsys)
    small = ["--data=few.npz", "--size=32", "--width=2", "--batch-size=4", "--device=cpu"]
    code, _, error = call(
        *("train", "--recipe=inpainting", "--fourier=1", "--steps=1", "--out=run"),
        *(*small, "--held-out=0.8"),
    )
    assert not code, error
    code, text, error = call("evaluate", "run", "--json")
    assert not code, error
    rows = json.loads(text)["rows"]
    assert rows.keys() == {"generator", "harmonic fill", "biharmonic fill", "targets"}
    for name, row in rows.items():
        if name != "targets":
            assert list(row)[:3] == ["L1 in it", "PSNR in it, dB", "FD-patches"]
            assert {"PSNR to 20 %", "PSNR 20-30 %"} <= set(row)
