"""The objective of tables against its formulas, written out in float64."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from fastgan.errors import FastganError
from fastgan.objectives.base import Step
from fastgan.objectives.media.rows import (
    ConditionalRows,
    class_loss,
    condition_loss,
    gumbel_softmax,
)

GROUPS, NUMBERS, PACK, B = (2, 3, 2), 2, 2, 5
OBJECTIVE = ConditionalRows(
    groups=GROUPS, numbers=NUMBERS, told=2, chances=((0.9, 0.1), (0.2, 0.3, 0.5)), label=1,
    latent=3, pack=PACK, gp=10.0, tau=0.2,
)  # fmt: skip
WIDTH, SLOTS = sum(GROUPS) + NUMBERS, 5


class G(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 + SLOTS, WIDTH)

    def forward(self, z, condition):
        return self.layer(torch.cat([z, condition], 1))


def float_step():
    torch.manual_seed(0)
    D = nn.Sequential(nn.Linear(PACK * (WIDTH + SLOTS), 4), nn.Tanh(), nn.Linear(4, 1))
    image = torch.zeros(B, WIDTH)
    condition = torch.tensor([0, 1, 2, 4, 3])
    image[:, -NUMBERS:] = torch.rand(B, NUMBERS) - 0.5
    image[torch.arange(B), condition] = 1
    noise = {"z": torch.randn(B, 3), "gumbel": torch.rand(B, sum(GROUPS))}
    nets = {"G": G(), "D": D}
    step = Step(
        OBJECTIVE, nets, 0, batch={"image": image, "condition": condition}, noise=noise,
        position=torch.tensor(0),
    )  # fmt: skip
    step.phase, step.live = "D", True
    return step


def reference(step):
    """(rows, log-probabilities of what was told), a row and a group at a time, in float64."""
    weight, bias = (p.detach().double().requires_grad_() for p in step.nets.G.layer.parameters())
    rows, told = [], []
    for i in range(B):
        slot = int(step.batch.condition[i])
        given = torch.cat([step.noise.z[i].double(), torch.eye(SLOTS).double()[slot]])
        raw, row, start = weight @ given + bias, [], 0
        for size in GROUPS:
            logits = raw[start : start + size]
            u = step.noise.gumbel[i, start : start + size].double()
            e = ((logits - (-u.log()).log()) / 0.2).exp()
            row.append(e / e.sum())
            if start <= slot < start + size:
                told.append(logits[slot - start] - logits.exp().sum().log())
            start += size
        rows.append(torch.cat([*row, raw[start:].tanh(), torch.eye(SLOTS).double()[slot]]))
    return torch.stack(rows), torch.stack(told), (weight, bias)


def packs(rows):
    """Rows 0 and 1, 2 and 3, 4 and again 0."""
    return torch.stack([torch.cat([rows[a], rows[b]]) for a, b in ((0, 1), (2, 3), (4, 0))])


def judge(D):
    w, b, v, c = (p.detach().double().requires_grad_() for p in D.parameters())
    return lambda x: (x @ w.T + b).tanh() @ v.T + c, (w, b, v, c)


def test_the_generators_loss_is_the_written_out_one():
    step = float_step()
    terms = OBJECTIVE.g_loss(step)
    rows, told, of_g = reference(step)
    D, _ = judge(step.nets.D)
    adv, condition = -D(packs(rows)).mean(), -told.mean()
    assert terms["adv"].item() == pytest.approx(adv.item(), abs=1e-5)
    assert terms["condition"].item() == pytest.approx(condition.item(), abs=1e-5)
    found = torch.autograd.grad(sum(terms.values()), list(step.nets.G.parameters()))
    for mine, theirs in zip(found, torch.autograd.grad(adv + condition, of_g)):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-5)


def test_the_critics_loss_is_the_written_out_one():
    step = float_step()
    step.live = False
    terms = OBJECTIVE.d_loss(step)
    rows = reference(step)[0].detach()
    one_hot = torch.eye(SLOTS).double()[step.batch.condition]
    real = packs(torch.cat([step.batch.image.double(), one_hot], 1))
    fake, (D, of_d) = packs(rows), judge(step.nets.D)
    adv = D(fake).mean() - D(real).mean()
    epsilon = step.rand("gradient-penalty", (1,))[:3].double()
    mixed = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(D(mixed).sum(), mixed, create_graph=True)
    gp = 10 * ((slope.square().sum(1) + 1e-12).sqrt() - 1).square().mean()
    assert terms["adv"].item() == pytest.approx(adv.item(), abs=1e-5)
    assert terms["gp"].item() == pytest.approx(gp.item(), rel=1e-4)
    found = torch.autograd.grad(sum(terms.values()), list(step.nets.D.parameters()))
    for mine, theirs in zip(found, torch.autograd.grad(adv + gp, of_d)):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-3, atol=1e-5)


def test_a_classifier_learns_reals_and_judges_fakes_by_what_is_beside_their_class():
    """Label 1 is columns 2 to 4: blanked for C, and its shares are what C must say."""
    objective = dataclasses.replace(OBJECTIVE, classifier=0.7)
    assert [phase.name for phase in objective.phases()] == ["C", "D", "G"]
    step = float_step()
    step.nets["C"] = nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, 3))
    C, of_c = judge(step.nets["C"])
    kept = torch.ones(WIDTH).double()
    kept[2:5] = 0

    def loss(rows):
        said = C(rows * kept)
        return -(rows[:, 2:5] * (said - said.exp().sum(1, keepdim=True).log())).sum(1).mean()

    real = loss(step.batch.image.double())
    (found,) = objective.c_loss(step).values()
    assert found.item() == pytest.approx(real.item(), abs=1e-6)
    mine = torch.autograd.grad(found, list(step.nets["C"].parameters()))
    for a, b in zip(mine, torch.autograd.grad(real, of_c)):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-6)
    term = objective.g_loss(step)["class"]
    rows, _, of_g = reference(step)
    fake = 0.7 * loss(rows[:, :WIDTH])
    assert term.item() == pytest.approx(fake.item(), abs=1e-6)
    mine = torch.autograd.grad(term, list(step.nets.G.parameters()))
    for a, b in zip(mine, torch.autograd.grad(fake, of_g)):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-6)
    with pytest.raises(FastganError, match="needs a network 'C'"):
        objective.check({"G": 1, "D": 2})
    with pytest.raises(FastganError, match="classifier needs a label"):
        dataclasses.replace(objective, label=-1)


def test_the_classes_loss_is_least_where_it_says_the_shares():
    shares = torch.tensor([[0.7, 0.2, 0.1]])
    least = class_loss(shares.log(), shares)
    assert least.item() == pytest.approx(-(shares * shares.log()).sum().item(), abs=1e-6)
    assert class_loss(torch.zeros(1, 3), shares) > least


def test_samples_have_the_datas_own_frequencies_or_the_class_asked_for():
    n = 4000
    noise = {"choice": torch.rand(n, 2, generator=torch.Generator().manual_seed(0))}
    step = Step(OBJECTIVE, {}, 0, noise=noise)
    slots = OBJECTIVE.natural(step)
    shares = torch.bincount(slots, minlength=SLOTS) / n
    wanted = torch.tensor([0.45, 0.05, 0.1, 0.15, 0.25])
    torch.testing.assert_close(shares, wanted, atol=0.02, rtol=0)
    step = Step(OBJECTIVE, {}, 0, noise=noise, batch={"label": torch.full((n,), 2)})
    assert OBJECTIVE.natural(step).unique().tolist() == [4]


def test_gumbel_softmax_picks_by_probability():
    logits = torch.tensor([[math.log(0.7), math.log(0.3), 0.0]]).expand(4000, 3)
    u = torch.rand(4000, 3, generator=torch.Generator().manual_seed(1))
    made = gumbel_softmax(logits, u, (2, 1), 0.1)
    assert float((made[:, 0] > 0.5).float().mean()) == pytest.approx(0.7, abs=0.03)
    assert torch.equal(made[:, 2], torch.ones(4000))
    assert gumbel_softmax(logits[:1], torch.zeros(1, 3), (2, 1), 0.1).isfinite().all()


def test_a_condition_costs_what_its_own_column_says():
    logits = torch.tensor([[2.0, 0.0, 9.0, 9.0]])
    found = condition_loss(logits, torch.tensor([0]), (2, 2))
    assert float(found) == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_rows_that_do_not_fit_are_one_line():
    step = float_step()
    step.batch["image"] = torch.zeros(B, 4)
    with pytest.raises(FastganError, match="groups and numbers make 9"):
        OBJECTIVE.check_images(step.fake, step)
    with pytest.raises(FastganError, match="needs a network 'D'"):
        OBJECTIVE.check({"G": 1})
