"""Gradients between backward and update: clipped, and added up over the parts of a batch."""

import copy

import pytest
import torch
from run_support import QUIET, images, tiny
from torch import nn

import fastgan
from fastgan.graphs.host_reads import NoHostReads
from fastgan.objectives import Adversarial
from fastgan.precision import resolve
from fastgan.trainer.step.runner import StepRunner, clip_gradients

CPU = torch.device("cpu")


def smooth():
    """No batch norm, no dropout: a batch is the sum of its parts."""
    g = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Unflatten(1, (1, 4, 4)))
    d = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    return {"G": g, "D": d}


def runner(nets, objective, precision="fp32", rate=0.05, **options):
    optimizers = {n: torch.optim.SGD(net.parameters(), lr=rate) for n, net in nets.items()}
    return StepRunner(
        objective,
        nets,
        optimizers,
        seed=3,
        batch_size=12,
        precision=resolve(precision, CPU),
        **options,
    )


def steps(made, count=3):
    batch = {"image": torch.linspace(-1, 1, 12 * 16).view(12, 1, 4, 4).sin()}
    for step in range(count):
        positions = [torch.tensor(p) for p in made.positions(step)]
        logged = made.run([batch] * made.rounds, positions, {}, made.due(step))
    return logged


@pytest.mark.parametrize(
    "objective",
    [
        Adversarial(latent_shape=(4,)),
        Adversarial("relativistic", (4,), r1=1.0, lazy_r1=2),
        Adversarial("wasserstein", (4,), gp=10.0, n_critic=2),
        Adversarial("hinge", (4,), reuse=False),
    ],
    ids=["plain", "relativistic-r1", "gp", "fresh"],
)
def test_parts_add_up_to_the_whole_batch(objective):
    torch.manual_seed(0)
    nets = smooth()
    whole, parted = copy.deepcopy(nets), copy.deepcopy(nets)
    logged = steps(runner(whole, objective))
    in_parts = steps(runner(parted, objective, accumulate=3))
    assert logged.keys() == in_parts.keys()
    for name, net in whole.items():
        for a, b in zip(net.parameters(), parted[name].parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)
    for key in logged:
        torch.testing.assert_close(logged[key], in_parts[key], rtol=1e-4, atol=1e-5)
    moved = whole["G"][0].weight - nets["G"][0].weight
    assert moved.abs().max() > 1e-4


def test_clipping_is_torchs_over_all_networks_of_a_phase():
    torch.manual_seed(0)
    net = smooth()["D"]
    net(torch.randn(5, 16) * 30).sum().backward()
    expected = copy.deepcopy(net)
    for p, mine in zip(expected.parameters(), net.parameters(), strict=True):
        p.grad = mine.grad.clone()
    norm = torch.nn.utils.clip_grad_norm_(expected.parameters(), 0.5)
    with NoHostReads():
        mine = clip_gradients(net.parameters(), 0.5)
    torch.testing.assert_close(mine, norm)
    for a, b in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_no_phase_moves_further_than_its_clip_allows(accumulate):
    torch.manual_seed(0)
    nets = smooth()
    before = copy.deepcopy(nets)
    made = runner(nets, Adversarial(latent_shape=(4,)), rate=1.0, clip=1e-2, accumulate=accumulate)
    logged = steps(made, count=1)
    for name, net in nets.items():
        moved = torch.cat(
            [
                (a - b).flatten()
                for a, b in zip(net.parameters(), before[name].parameters(), strict=True)
            ]
        )
        assert moved.norm().item() == pytest.approx(1e-2, rel=1e-3)
        assert logged[f"{name}/gradient_norm"] > 1e-2


def test_a_run_with_both_goes_on_exactly_and_may_change_both(tmp_path):
    def made(out, **options):
        torch.manual_seed(0)
        nets = {
            "G": nn.Sequential(*smooth()["G"][:2], nn.Unflatten(1, (1, 4, 4))),
            "D": smooth()["D"],
        }
        return fastgan.Trainer(
            nets=nets, data=images(size=4), latent_shape=(4,), batch_size=8, out=out, watch=False,
            **{**QUIET, "accumulate": 2, "clip": 0.1, **options},
        )  # fmt: skip

    with made(tmp_path / "whole") as whole:
        whole.fit(4)
    with made(tmp_path / "cut") as cut:
        cut.fit(2)
    with made(tmp_path / "cut", resume=True) as cut:
        cut.fit(4)
    for a, b in zip(whole.nets["G"].parameters(), cut.nets["G"].parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(fastgan.FastganError, match=r"clip was 0.1 and is 0.2 now.*reschedule"):
        made(tmp_path / "cut", resume=True, clip=0.2)
    with made(tmp_path / "cut", resume=True, reschedule=True, clip=0.0, accumulate=1) as changed:
        assert "clip goes on with 0.0 instead of 0.1" in changed.rescheduled


def test_a_batch_that_has_no_such_parts_is_refused(tmp_path):
    with pytest.raises(fastgan.FastganError, match="8 images can't be worked off in 3 equal parts"):
        fastgan.Trainer(
            nets=smooth(), data=images(size=4), latent_shape=(4,), batch_size=8, accumulate=3,
            out=tmp_path / "run", **QUIET,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_what_is_not_the_same_in_parts_is_said(tmp_path, capfd):
    with tiny(None, accumulate=2):
        pass
    assert "2 parts of 4 images are not one batch of 8 for network G: batch norm" in (
        capfd.readouterr().err
    )
    with tiny(None):
        pass
    assert capfd.readouterr().err == ""
