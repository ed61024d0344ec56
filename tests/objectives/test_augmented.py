"""What D is shown where an objective augments: reals and fakes, in both phases, penalties too."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from run_support import discriminator, generator, tiny
from torch import nn

import fastgan
from fastgan.objectives.augmentation import Strength
from fastgan.objectives.base import Step
from fastgan.objectives.staged.pyramid import Detail
from fastgan.objectives.translation.frames import NextFrame
from fastgan.objectives.translation.inpainting import Inpainting
from fastgan.objectives.translation.paired import Translation
from fastgan.objectives.translation.segmentation import Segmentation
from fastgan.ops.augment import diffaugment
from fastgan.ops.random import stream_id
from fastgan.recipes.dcgan import Dcgan
from fastgan.recipes.training import augmented
from fastgan.trainer.stages.stage import Stage

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
    step.phase, step.live = phase, phase == "G"
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
    wanted = [expected["D", w] for w in ("real", "fake")]  # of these logits, R1 and R2
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


class Bare(fastgan.Objective):
    pass


def test_what_can_not_augment_says_so():
    with pytest.raises(fastgan.FastganError, match="name color, translation, cutout in this order"):
        fastgan.Adversarial(augment="cutout,color")
    with pytest.raises(fastgan.FastganError, match="Own has a g_loss of its own"):
        Own(augment="color").check({"G": None, "D": None})
    bare, other = Stage({}, Bare()), Stage({}, fastgan.Adversarial("hinge"))
    before, after = augmented([bare, other], Dcgan(augment="color"))
    assert before is bare
    assert after.objective.augment == "color"
    with pytest.raises(
        fastgan.FastganError, match="Bare shows its discriminator nothing augmented"
    ):
        augmented([bare], Dcgan(augment="color"))
    with pytest.raises(fastgan.FastganError, match="says nothing in Segmentation: give a fixed"):
        Segmentation(augment="ada")
    with pytest.raises(fastgan.FastganError, match="nothing to augment for"):
        Translation(adversarial=0.0, augment="color").check({"G": None})


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


def observed(strength, logits, parts=1):
    """One update of ADA's strength from logits of one of so many processes."""
    step = step_of(fastgan.Adversarial(), {}, logits, logits)
    step.total = lambda value: value * parts
    strength.observe(logits, step)
    return {name: float(value) for name, value in step.logged.items()}


def test_adas_strength_follows_the_sign_of_d_on_reals_every_fourth_update():
    strength = Strength(target=0.5, kimg=0.2)
    up, down = torch.tensor([1.0, 2.0, 0.1, 3.0, 1.0, 1.0, 1.0, -3.0]), -torch.ones(8)
    for update in range(1, 9):
        logged = observed(strength, up)
        assert float(strength.strength) == pytest.approx(8 * 4 * (update // 4) / 200)
    assert logged == {"D/r_t": 0.75, "D/augment_p": pytest.approx(0.16)}
    for _ in range(12):
        observed(strength, down)
    assert float(strength.strength) == 0
    fixed = Strength(0.3)
    for _ in range(8):
        observed(fixed, down)
    assert float(fixed.strength) == pytest.approx(0.3)


def test_adas_strength_counts_the_images_of_all_processes():
    alone, one_of_two = Strength(target=0.5), Strength(target=0.5)
    for _ in range(4):
        observed(alone, torch.ones(8))
        observed(one_of_two, torch.ones(4), parts=2)
    assert float(alone.strength) == pytest.approx(8 * 4 / 500_000)
    assert torch.equal(alone.strength, one_of_two.strength)


def test_ada_is_a_network_of_the_run_and_its_strength_is_logged(tmp_path):
    objective = fastgan.Adversarial("hinge", (4, 1, 1), augment="ada", augment_p=0.3, r1=1.0)
    with tiny(tmp_path / "run", objective=objective, log_every=2) as trainer:
        assert set(trainer.nets) == {"G", "D", "augment"}
        trainer.fit(2)
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert row["D/augment_p"] == pytest.approx(0.3)
    assert -1 <= row["D/r_t"] <= 1
    assert fastgan.load(tmp_path / "run", network="augment").strength == pytest.approx(0.3)
    assert fastgan.sample(tmp_path / "run", 2).shape == (2, 1, 8, 8)


def test_a_run_goes_on_with_ada_and_without_it_again(tmp_path):
    """Its strength begins anew, is saved and loaded, and is left behind."""
    plain = fastgan.Adversarial(latent_shape=(4, 1, 1))
    ada = dataclasses.replace(plain, augment="ada", augment_p=0.25)
    with tiny(tmp_path / "run", objective=plain) as trainer:
        trainer.fit(2)
    with tiny(tmp_path / "run", objective=ada, resume=True, reschedule=True) as trainer:
        trainer.fit(4)
    changes = json.loads((tmp_path / "run" / "run.json").read_text())["changes"]
    assert [change["step"] for change in changes] == [2]
    assert "augment goes on with ada instead of None" in changes[0]["what"]
    assert "networks" not in changes[0]["what"]
    assert fastgan.load(tmp_path / "run", network="augment").strength == pytest.approx(0.25)
    with tiny(tmp_path / "run", objective=ada, resume=True) as trainer:
        trainer.fit(6)
    with tiny(tmp_path / "run", objective=plain, resume=True, reschedule=True) as trainer:
        assert set(trainer.nets) == {"G", "D"}
        trainer.fit(8)


def test_ada_is_refused_where_it_says_nothing():
    with pytest.raises(fastgan.FastganError, match="with the loss relativistic: give a fixed"):
        fastgan.Adversarial("relativistic", augment="ada")
    assert fastgan.Adversarial("relativistic", augment="ada", augment_p=0.3).own_nets()
    with pytest.raises(fastgan.FastganError, match="augment_p is the strength of ada"):
        fastgan.Adversarial(augment="color", augment_p=0.3)
    with pytest.raises(fastgan.FastganError, match=r"augment_p must lie in \[0, 1\], not 1.5"):
        fastgan.Adversarial(augment="ada", augment_p=1.5)


ALL_WAYS = [{"augment": POLICY}, {"augment": "ada", "augment_p": 0.9}]


@pytest.mark.parametrize("options", ALL_WAYS)
def test_an_image_and_its_source_are_changed_alike(options):
    """Reals, fakes, sources, frames and masks, each beside the others."""

    def shown(objective, image, source):
        nets = {**objective.own_nets(), "D": lambda x, given: seen.append((x, given)) or x}
        seen = []
        step = step_of(objective, nets, image, image)
        step.batch["source"] = source
        objective.d_loss(step)
        step.phase, step.live = "G", True
        objective.g_loss(step)
        return seen

    x = pictures(1)
    for given, real in (given_real[::-1] for given_real in shown(Translation(**options), x, x)):
        assert torch.equal(given, real)
        assert not torch.equal(given, x)
    for real, frames in shown(NextFrame(**options), x, torch.cat([x, -x, x], 1)):
        assert torch.equal(frames[:, :3], real)
        assert torch.equal(frames[:, 6:], real)
    mask = x[:, :1].sign()
    objective = Inpainting(**options)
    _, (_, given), *_ = shown(objective, x, torch.cat([x, mask], 1))
    step = step_of(objective, objective.own_nets(), x, x)
    assert torch.equal(given[:, :3], objective.seen(step, x))
    if options["augment"] == "ada":
        wanted = objective.seen(step, torch.cat([x, mask], 1))[:, 3:]
    else:
        wanted = Translation(augment="translation,cutout").seen(step, mask)
    torch.testing.assert_close(given[:, 3:], wanted)


@pytest.mark.parametrize("options", ALL_WAYS)
def test_detail_is_that_of_the_changed_image_beside_the_changed_enlarged_one(options):
    objective, x = Detail(1, 8, 5, **options), pictures(1)
    seen = []
    nets = {**objective.own_nets(), "D1": lambda detail, given: seen.append((detail, given))}
    step = step_of(objective, nets, x, x)
    step.nets["G1"] = lambda coarse, grain: x - coarse
    step.noise["grain1"] = None
    step.pair = lambda net, real, fake, given: [d.sum((1, 2, 3)) for d in shown(real, fake, given)]
    shown = lambda real, fake, given: seen.extend([(real, given), (fake, given)]) or (real, fake)
    objective.d_loss(step)
    for detail, coarse in seen:
        torch.testing.assert_close(detail + coarse, objective.augmented(step, x, "pair"))
    assert len(seen) == 2


def test_penalties_of_the_logits_graph_are_those_of_calls_of_their_own():
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Softplus(), nn.Linear(5, 1)).double()
    objective = fastgan.Adversarial("hinge", (1,), r1=3.0, r2=0.5)
    real, fake = pictures(1).double(), pictures(2).double()
    found = objective.d_loss(step_of(objective, {"D": D}, real, fake))
    for name, images, weight in (("r1", real, 1.5), ("r2", fake, 0.25)):
        alone = weight * fastgan.objectives.zero_centred_penalty(D, images)
        torch.testing.assert_close(found[name], alone)
        mine, theirs = (
            torch.autograd.grad(
                term, [p for p in D.parameters() if p.dim() == 2], retain_graph=True
            )
            for term in (found[name], alone)
        )
        torch.testing.assert_close(mine, theirs)


def test_perturbed_penalties_are_the_formula_and_near_the_exact():
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Softplus(), nn.Linear(5, 1)).double()
    options = {"r1": 3.0, "r2": 0.5}
    objective = fastgan.Adversarial("hinge", (1,), **options, perturb=0.01)
    real, fake = pictures(1).double(), pictures(2).double()
    step = step_of(objective, {"D": D}, real, fake)
    found = objective.d_loss(step)
    for name, which, images, weight in (("r1", "real", real, 1.5), ("r2", "fake", fake, 0.25)):
        noise = step.rand(f"perturb/{which}", (3, 8, 8), "normal").double()
        told = weight * ((D(images + 0.01 * noise) - D(images)) / 0.01).square().mean()
        torch.testing.assert_close(found[name], told.float(), rtol=1e-3, atol=0)  # logits in fp32
        weights = [p for p in D.parameters() if p.dim() == 2 and len(p) > 1]
        mine, theirs = (torch.autograd.grad(t, weights) for t in (found[name], told))
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    many = pictures(3, 1).double().expand(4000, 3, 8, 8).contiguous()
    nearly = objective.d_loss(step_of(objective, {"D": D}, many, many))["r1"]
    exact = fastgan.Adversarial("hinge", (1,), **options)
    wanted = exact.d_loss(step_of(exact, {"D": D}, many[:1], many[:1]))["r1"]
    assert abs(nearly / wanted - 1) < 0.1  # 4 deviations of the mean of 4,000 squared normals
