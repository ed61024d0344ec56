"""Inversion that follows who is shown, and one latent in every class."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_support import commands, in_a_hurry, tiny

import fastgan
from fastgan.cli.looking.invert import columns_for
from fastgan.data import Dataset
from fastgan.data.rendered import AGES, faces
from fastgan.judges import identity
from fastgan.latent.directions import differentiable
from fastgan.latent.inversion import Distance, every_class, in_classes, invert
from fastgan.models.dcgan import ConditionalDiscriminator, ConditionalGenerator
from fastgan.objectives import Adversarial
from fastgan.trainer.reuse.restoring import open_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of drawn faces in five age groups of which "middle" has no image, and a plain one."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        in_a_hurry(patch)
        with tiny(folder / "plain") as trainer:
            trainer.fit(1)
        arrays = faces(24, 8)
        arrays["label"][arrays["label"] == 2] = 1
        kinds = {"image": "image", "label": "label", "identity": "label"}
        nets = {"G": ConditionalGenerator(8, 3, 4, 2, 5), "D": ConditionalDiscriminator(8, 3, 2, 5)}
        objective = Adversarial(latent_shape=(4, 1, 1), conditional=True)
        data = Dataset("faces", arrays, kinds, classes=AGES)
        with tiny(folder / "faces", nets=nets, data=data, objective=objective) as trainer:
            trainer.fit(1)
    return folder


def rows(images):
    """(n, C * H / 2) of the upper half, so large that the prior of the latent counts little."""
    return 1000 * images[:, :, :4].mean(3).flatten(1)


def test_the_embedding_is_followed_from_what_pixels_find(runs):
    """A photo of two halves: pixels find what suits both, the embedding knows one."""
    run = open_run(runs / "plain")
    upper, lower = run.images(2, seed=77)
    photo = torch.cat([upper[:, :4], lower[:, 4:]], 1)
    pixels = invert(run, photo, steps=20)
    steps = []
    found = invert(run, photo, steps=20, embed=rows, tell=steps.append)
    assert pixels.apart is None
    assert steps == [*range(1, 41)]
    target = rows(photo[None])
    for image, apart in zip((pixels.image, found.image), found.apart):
        assert float((rows(image[None]) - target).square().sum()) == pytest.approx(apart, rel=1e-3)
    assert found.apart[1] < 0.5 * found.apart[0], "at most 0.16 of eight runs"
    assert found.latents["z"].shape == (1, 4, 1, 1)


def test_without_an_embedding_it_is_what_it_was(runs):
    """Bit for bit, against the descent written out: the best four latents, Adam, the ramp."""
    run, photo, steps = open_run(runs / "faces"), torch.rand(3, 8, 8), 6
    target, labels = photo[None] * 2 - 1, torch.arange(128) % 5
    z = run.noise(128, 0)["z"]
    far = Distance(run, target.expand(128, -1, -1, -1), labels)
    best = far(differentiable(run, {"z": z}, labels)).argsort()[:4]
    z, labels = z[best].requires_grad_(), labels[best]
    far = Distance(run, target.expand(4, -1, -1, -1), labels)
    optimizer = torch.optim.Adam([z], lr=0.1)
    for step in range(steps):
        done = step / steps
        ramp = min(1.0, done / 0.05 + 0.05) * (
            0.5 - 0.5 * math.cos(math.pi * min(1, (1 - done) * 4))
        )
        optimizer.param_groups[0]["lr"] = 0.1 * ramp
        loss = far(differentiable(run, {"z": z}, labels))
        loss = loss + 0.05 * (z.flatten(1).square().mean(1) - 1).square()
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    made = differentiable(run, {"z": z}, labels).detach()
    winner = int(far(made).argmin())
    found = invert(run, photo, steps=steps)
    assert torch.equal(found.latents["z"], z.detach()[winner : winner + 1])
    assert torch.equal(found.image, ((made[winner] + 1) / 2).clamp(0, 1))
    assert found.label == int(labels[winner])


def test_the_class_stays_that_which_pixels_find(runs):
    """An embedding that knows no ages could choose any."""
    run, photo = open_run(runs / "faces"), torch.rand(3, 8, 8)
    pixels, found = (invert(run, photo, steps=2, embed=embed) for embed in (None, rows))
    assert pixels.label == found.label
    assert not torch.equal(pixels.latents["z"], found.latents["z"])


def test_an_embedding_without_a_gradient_is_told(runs):
    run, photo = open_run(runs / "faces"), torch.rand(3, 8, 8)
    for blind in (torch.no_grad()(rows), lambda images: rows(images).detach()):
        with pytest.raises(fastgan.FastganError, match="embed= gives no gradient"):
            invert(run, photo, steps=1, embed=blind)


def test_one_latent_in_every_class_that_had_images(runs):
    run = open_run(runs / "faces")
    found = invert(run, torch.rand(3, 8, 8), steps=2, label=3)
    numbers = every_class(run)
    assert numbers == [0, 1, 3, 4]
    made = in_classes(run, found.latents, numbers)
    assert made.shape == (4, 3, 8, 8)
    torch.testing.assert_close(made[2], found.image)
    assert len({float(image.sum()) for image in made}) == 4
    with pytest.raises(fastgan.FastganError, match="plain was trained without labels"):
        every_class(open_run(runs / "plain"))


def test_columns_are_one_row_or_a_square():
    found = {cells: columns_for(cells) for cells in (2, 7, 8, 9, 12, 102, 1002)}
    assert found == {2: 2, 7: 7, 8: 8, 9: 5, 12: 6, 102: 11, 1002: 32}


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(identity, "STEPS", 2)
    Image.fromarray(faces(1, 16)["image"][0]).save("photo.png")
    return commands(capsys)


def persons(path, count=20):
    """A file of each of so many persons twice, who are named by texts."""
    images = np.concatenate([faces(count, 8, age=age)["image"] for age in (0, 4)])
    np.savez(path, images=images, identity=np.array([f"p{i}" for i in range(count)] * 2))


def test_the_command_shows_a_face_in_every_class(runs, command):
    persons("persons.npz")
    options = ["--identity", "--data", "persons.npz", "--every-class", "--steps", 2]
    code, said, err = command("invert", runs / "faces", "photo.png", *options)
    assert code == 0, err
    assert "reconstructed as " in said
    assert "of 5 persons it never saw" in said
    told = re.search(r"squared distance ([\d.]+) after following pixels, ([\d.]+) now", said)
    before, after = told.groups()
    assert float(before) > 0
    assert float(after) > 0
    with Image.open("inverted.png") as picture:
        high = 18 + 80 + 3 + 3  # a caption, eight pixels ten times, gaps
        assert picture.size == (6 * (80 + 3) + 3, high), "photo, reconstruction, four ages"
        cells = [picture.crop((3 + 83 * i, 21, 83 + 83 * i, 101)) for i in range(6)]
    _, found, *classes = (np.asarray(cell, int) for cell in cells)
    nearest = min(abs(found - one).max() for one in classes)
    assert nearest <= 1, "the reconstruction is one of the classes, but for rounding"


def test_folders_of_persons_tell_who_is_shown(runs, command):
    for who in range(20):
        for age in (0, 4):
            path = Path(f"persons/{who:02d}/{age}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn = faces(20, 8, age=age, index=np.array([who]))["image"][0]
            Image.fromarray(drawn).save(path)
    options = ["--identity", "--data", "persons", "--steps", 1]
    code, said, err = command("invert", runs / "faces", "photo.png", *options)
    assert code == 0, err
    assert "of 5 persons it never saw" in said


BAD = {
    "no classes": (["plain", "--every-class"], "was trained without labels"),
    "data are not known": (["faces", "--identity"], "say where the images are, with --data"),
    "data alone": (["faces", "--data", "fashion-mnist"], "--data is for --identity"),
    "no persons": (["faces", "--identity", "--data", "forms.npz"], "does not say who is shown"),
    "few persons": (["faces", "--identity", "--data", "few.npz"], "3 persons with two images"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, runs, command, tmp_path):
    persons("few.npz", 3)
    np.savez("forms.npz", images=np.zeros((4, 8, 8, 3), np.uint8))
    (run, *options), told = BAD[case]
    before = sorted(path.name for path in tmp_path.iterdir())
    code, _, err = command("invert", runs / run, "photo.png", *options)
    assert (code, err.count("\n"), told in err) == (2, 1, True), err
    assert [name for name in before if name != "cache"] == sorted(
        path.name for path in tmp_path.iterdir() if path.name != "cache"
    )


def test_the_page_shows_how_a_face_network_is_given(runs, command, tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs/kinds/aging.md"
    (program,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    namespace = {}
    for ours, theirs in (("runs/faces", runs / "faces"), ("32, 32", "8, 8")):
        program = program.replace(ours, str(theirs))
    exec(program.replace("embed=network", "embed=network, steps=2"), namespace)
    assert namespace["ages"].shape == (4, 3, 8, 8)
