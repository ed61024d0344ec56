"""Recipe voice by command, its networks, and its objective."""

import wave

import numpy as np
import pytest
import torch
from exact_resume import goes_on_exactly
from run_support import commands, in_a_hurry
from tiny_recipes import flags, tiny
from torch import nn

from fastgan import recipes
from fastgan.data.sounds import vowels, wav
from fastgan.media.sounds import Sound
from fastgan.models.media.waves import Critic, Generator, PhaseShuffle
from fastgan.objectives.base import Step
from fastgan.objectives.media.waves import Waves

FEW = ["--batch-size=4", "--device=cpu", *flags("voice")]


def folder(path, count=100):
    made, which = vowels.draw(count, 1024, 4000)
    for i, sound in enumerate(made):
        file = path / vowels.NAMES[which[i]] / f"{i:02}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(wav.encode(sound, 4000))


@pytest.fixture
def fastgan(tmp_path, monkeypatch, capsys):
    """fastgan(args...) -> (code, what it printed, its errors), in a folder with sounds/."""
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "sounds")
    return commands(capsys)


def test_sounds_are_learned_written_measured_and_gone_on_with(fastgan, tmp_path):
    train = ["train", "--recipe=voice", "--data=sounds", "--steps=2", "--out=run", *FEW]
    code, out, err = fastgan(*train, "--held-out=0.5")
    assert code == 0, err
    assert "windows of 1,024 samples at 4,000 Hz (0.26 s), 5 classes" in out
    for picture in ("samples/00000002.png", "reals.png"):
        assert (tmp_path / "run" / picture).stat().st_size > 0
    assert fastgan("sample", "run", "--n=3")[1] == "3 sounds in voice.wav\n"
    with wave.open("voice.wav") as file:
        assert (file.getframerate(), file.getnframes()) == (4000, 3 * 1024 + 2 * 1000)
    assert fastgan("sample", "run", "--n=2", "--out=one/")[1] == "2 sounds in one/\n"
    assert len(list((tmp_path / "one").glob("*.wav"))) == 2
    assert fastgan("sample", "run", "--n=2", "--out=shown.png")[0] == 0
    code, out, err = fastgan("evaluate", "run")
    assert code == 0, err
    assert "noise of their spectrum" in out
    assert "untrained generator" in out
    assert "going on at step 2" in fastgan("train", "--resume=run", "--steps=3")[1]
    assert fastgan("export", "run", "--format=torch", "--out=voice.pt2")[0] == 0
    code, _, err = fastgan("export", "run", "--format=torch", "--uint8", "--out=b.pt2")
    assert (code, "--uint8 is for images, and this run makes sounds" in err) == (2, True)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--flip"], "--flip is for recipes that make images, and voice makes sounds"),
        (["--length=1000"], "--length is 1024, 4096 or 16384"),
        (["--data=none"], "none is not there"),
        (["--rate=10"], "rate"),
    ],
)
def test_what_does_not_fit_is_one_line(fastgan, tmp_path, typed, message):
    train = ["train", "--recipe=voice", "--data=sounds", "--steps=2", "--out=run", *FEW]
    code, _, err = fastgan(*train, *typed)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_few_sounds_are_not_measured(fastgan):
    fastgan("train", "--recipe=voice", "--data=sounds", "--steps=1", "--out=run", *FEW)
    code, _, err = fastgan("evaluate", "run")
    assert (code, "too few to measure against" in err) == (2, True)


def test_a_stopped_run_goes_on_exactly(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "sounds")
    options = {"data": "sounds", "batch_size": 4, "steps": 3, "device": "cpu", "progress": False}
    config = recipes.find("voice")(**options, **tiny("voice"))
    goes_on_exactly(config, 2, 3)


@pytest.mark.parametrize("length", [1024, 4096, 16384])
def test_networks_fit_their_lengths(length):
    G, D = Generator(length, 4, 1), Critic(length, 1)
    made = G(torch.randn(2, 4))
    assert made.shape == (2, 1, length)
    assert D(made).shape == (2, 1)


def test_phase_shuffle_moves_each_sample_and_mirrors_the_ends():
    x = torch.arange(6.0).expand(200, 2, 6)
    torch.manual_seed(0)
    moved = PhaseShuffle(2)(x)
    found = {tuple(row) for row in moved[:, 0].tolist()}
    assert found == {
        (2, 1, 0, 1, 2, 3), (1, 0, 1, 2, 3, 4), (0, 1, 2, 3, 4, 5),
        (1, 2, 3, 4, 5, 4), (2, 3, 4, 5, 4, 3),
    }  # fmt: skip
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(PhaseShuffle(2).eval()(x), x)


def test_the_critics_loss_is_the_written_out_one():
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 1))
    G = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Unflatten(1, (1, 6)))
    objective = Waves("wasserstein", (2,), gp=10.0, medium=Sound(8000))
    image = torch.randint(-32767, 32768, (4, 1, 6), dtype=torch.int16)
    step = Step(
        objective, {"G": G, "D": D}, 0, batch={"image": image}, noise={"z": torch.randn(4, 2)},
        position=torch.tensor(0),
    )  # fmt: skip
    step.phase = "D"
    terms = objective.d_loss(step)
    real, fake = image.double() / 32767, G(step.noise.z).double()
    w, b, v, c = (p.detach().double() for p in D.parameters())
    judge = lambda x: (x.flatten(1) @ w.T + b).tanh() @ v.T + c
    assert terms["adv"].item() == pytest.approx((judge(fake) - judge(real)).mean().item(), abs=1e-5)
    epsilon = step.rand("gradient-penalty", (1, 1)).double()
    mixed = (epsilon * real + (1 - epsilon) * fake).detach().requires_grad_()
    (slope,) = torch.autograd.grad(judge(mixed).sum(), mixed)
    gp = 10 * ((slope.flatten(1).square().sum(1) + 1e-12).sqrt() - 1).square().mean()
    assert terms["gp"].item() == pytest.approx(gp.item(), rel=1e-4)


def test_a_picture_has_low_tones_at_the_bottom():
    time = np.arange(4096) / 8000
    low = torch.from_numpy(np.sin(2 * np.pi * 200 * time)).float()[None, None]
    picture = Sound(8000).picture(low)[0, 0]
    assert picture[-16:].mean() > 2 * picture[:16].mean()
    assert torch.equal(
        Sound(8000).finished(torch.tensor([[[32767]]], dtype=torch.int16)), torch.ones(1, 1, 1)
    )


def test_a_run_that_is_older_than_the_options_goes_on_as_it_was(fastgan, tmp_path):
    """Its config.toml has neither loss nor r1: it was trained by the Wasserstein loss."""
    old = ["--loss=wasserstein", "--r1=0", "--gp=10"]
    begin = ["train", "--recipe=voice", "--data=sounds", "--steps=2", "--out=run", *FEW, *old]
    assert fastgan(*begin)[0] == 0
    config = tmp_path / "run" / "config.toml"
    lines = config.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("loss = ", "r1 = "))]
    assert len(kept) == len(lines) - 2
    config.write_text("".join(kept))
    code, out, err = fastgan("train", "--resume=run", "--steps=3")
    assert code == 0, err
    assert "going on at step 2" in out
