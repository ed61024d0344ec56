"""What D is shown where an objective augments: reals and fakes, in both phases, penalties too."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from run_support import discriminator, generator, tiny
from torch import nn

import fastgan
from fastgan.objectives.base import Step
from fastgan.ops.augment import diffaugment
from fastgan.ops.random import stream_id
from fastgan.recipes.dcgan import Dcgan
from fastgan.recipes.training import augmented

POLICY = "color,translation,cutout"


def step_of(objective, nets, real, fake, position=0, phase="D"):
    nets = {**nets, "G": lambda z: fake}
    step = Step(
        objective,
        nets,
        5,
        batch={"image": real},
        noise={"z": torch.zeros(len(real), 1)},
        due={"r1": 1},
        position=torch.tensor(position),
    )
    step._phase, step._live = phase, phase == "G"
    return step


def pictures(seed, n=6):
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


class Spy(nn.Module):
    """sum(x^3): its input gradient, and so R1, depends on what it is shown."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach())
        return x.pow(3).flatten(1).sum(1)


@pytest.mark.parametrize("loss", ["non-saturating", "relativistic"])
def test_d_is_shown_reals_and_fakes_as_drawn_for_their_samples_in_both_phases(loss):
    objective = fastgan.Adversarial(loss, (1,), augment=POLICY, r1=1.0, r2=1.0)
    real, fake, spy = pictures(1), pictures(2).requires_grad_(), Spy()
    expected = {}
    for phase in "DG":
        for which, images in (("real", real), ("fake", fake)):
            expected[phase, which] = diffaugment(
                images.detach(),
                policy=POLICY,
                seed=5,
                position=torch.tensor(7),
                stream=stream_id(f"{phase}/augment/{which}"),
            )
    objective.d_loss(step_of(objective, {"D": spy}, real, fake, 7))
    wanted = [expected["D", w] for w in ("real", "fake", "real", "fake")]  # logits, R1, R2
    assert all(torch.equal(a, b) for a, b in zip(spy.seen, wanted, strict=True))
    spy.seen.clear()
    terms = objective.g_loss(step_of(objective, {"D": spy}, real, fake, 7, "G"))
    wanted = [expected["G", w] for w in ("real", "fake")][0 if loss == "relativistic" else 1 :]
    assert all(torch.equal(a, b) for a, b in zip(spy.seen, wanted, strict=True))
    assert torch.autograd.grad(terms["adv"], fake)[0].abs().sum() > 0
    assert not torch.equal(expected["D", "fake"], expected["G", "fake"])


def test_r1_is_the_gradient_through_the_augmentation():
    objective = fastgan.Adversarial("hinge", (1,), augment=POLICY, r1=3.0)
    real, fake, spy = pictures(1), pictures(2), Spy()
    found = objective.d_loss(step_of(objective, {"D": spy}, real, fake))["r1"]
    x = real.clone().requires_grad_()
    logits = spy(objective.augmented(step_of(objective, {}, x, fake), x, "real"))
    gradient = torch.autograd.grad(logits.sum(), x)[0]
    torch.testing.assert_close(found, 1.5 * gradient.square().flatten(1).sum(1).mean())


def test_draws_belong_to_the_sample_not_to_the_process():
    objective = fastgan.Adversarial("hinge", (1,), augment=POLICY)
    x = pictures(3)
    whole = objective.augmented(step_of(objective, {}, x, x, 4), x, "real")
    half = objective.augmented(step_of(objective, {}, x[3:], x, 7), x[3:], "real")
    torch.testing.assert_close(whole[3:], half)


class Own(fastgan.Adversarial):
    def g_loss(self, step):
        return {"adv": -step.nets.D(step.fake).mean()}


def test_what_can_not_augment_says_so():
    with pytest.raises(fastgan.FastganError, match="name color, translation, cutout in this order"):
        fastgan.Adversarial(augment="cutout,color")
    with pytest.raises(fastgan.FastganError, match="Own has a g_loss of its own"):
        Own(augment="color").check({"G": None, "D": None})
    config = Dcgan(augment="color")
    with pytest.raises(fastgan.FastganError, match="recipe dcgan knows no --augment"):
        augmented(fastgan.Objective(), config)
    assert augmented(fastgan.Adversarial("hinge"), config).augment == "color"


def test_a_run_records_it_and_one_from_before_goes_on(tmp_path):
    nets = {"G": generator(), "D": discriminator()}
    options = SimpleNamespace(plain=fastgan.Adversarial(latent_shape=(4, 1, 1)))
    options.color = dataclasses.replace(options.plain, augment="color")
    with tiny(tmp_path / "run", nets=nets, objective=options.color):
        run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["identity"]["stages"][0]["objective"]["args"]["augment"] == "color"
    with (
        pytest.raises(fastgan.FastganError, match="augment was color and is absent now"),
        tiny(tmp_path / "run", nets=nets, objective=options.plain, resume=True),
    ):
        pass
    with tiny(tmp_path / "plain", nets=nets, objective=options.plain):
        run = json.loads((tmp_path / "plain" / "run.json").read_text())
    assert "augment" not in run["identity"]["stages"][0]["objective"]["args"]
