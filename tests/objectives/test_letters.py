"""The objective of strings against its formulas, written out in float64."""

import math

import pytest
import torch

from fastgan.errors import FastganError
from fastgan.models.media.strings import Critic, Generator, gumbel, straight_through
from fastgan.objectives.base import Step
from fastgan.objectives.media.letters import Letters, negative_log_likelihood

B, LENGTH, SYMBOLS, LATENT, TAU = 5, 4, 3, 2, 0.7
CODES = torch.tensor([[1, 2, 0, 0], [2, 2, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0], [2, 1, 2, 0]])


def objective(**more):
    options = {
        "gp": 10.0,
        "length": LENGTH,
        "symbols": SYMBOLS,
        "adversarial": 0.5,
        "likelihood": 0.2,
    }
    return Letters("wasserstein", (LATENT,), **(options | more))


def a_step(seed=0):
    torch.manual_seed(seed)
    nets = {"G": Generator(LATENT, LENGTH, SYMBOLS, 3, TAU), "D": Critic(LENGTH, SYMBOLS, 6)}
    noise = {"z": torch.randn(B, LATENT), "gumbel": torch.rand(B, LENGTH, SYMBOLS)}
    step = Step(
        objective(), nets, 0, batch={"image": CODES.byte()}, noise=noise, position=torch.tensor(0)
    )
    step.phase, step.live = "G", True
    return step


def weights(net):
    return [p.detach().double().requires_grad_() for p in net.parameters()]


def after(x, h, w_x, w_h, b_x, b_h):
    """A gated recurrent unit's next state (Cho et al. 2014, as torch documents it)."""
    (rx, zx, nx), (rh, zh, nh) = (w_x @ x + b_x).chunk(3), (w_h @ h + b_h).chunk(3)
    r, z = (rx + rh).sigmoid(), (zx + zh).sigmoid()
    return (1 - z) * (nx + r * nh).tanh() + z * h


def written(step, given):
    """(strings (B, LENGTH, SYMBOLS) one-hot, the likelihoods of CODES (B,)), of one at a time."""
    f_w, f_b, *cell, o_w, o_b = given
    strings, nats = [], []
    eye = torch.eye(SYMBOLS).double()
    for i in range(B):
        start = (f_w @ step.noise.z[i].double() + f_b).tanh()
        h, x, going, row = start, torch.zeros(SYMBOLS).double(), torch.ones(()).double(), []
        for at in range(LENGTH):
            h = after(x, h, *cell)
            g = -(-step.noise.gumbel[i, at].double().log()).log()
            soft = ((o_w @ h + o_b + g) / TAU).exp()
            soft = soft / soft.sum()
            drawn = eye[soft.argmax()] + (soft - soft.detach())
            x = going * drawn + (1 - going) * eye[0]
            going = going * (1 - x[0].detach())
            row.append(x)
        strings.append(torch.stack(row))
        h, x, nll = start, torch.zeros(SYMBOLS).double(), 0.0
        for code in CODES[i].tolist():
            h = after(x, h, *cell)
            logits = o_w @ h + o_b
            nll = nll + logits.exp().sum().log() - logits[code]
            if code == 0:
                break
            x = eye[code]
        nats.append(nll)
    return torch.stack(strings), torch.stack(nats)


def judge(given, strings):
    x = strings.flatten(1)
    for w, b in zip(given[:-2:2], given[1:-2:2]):
        x = x @ w.T + b
        x = torch.where(x > 0, x, 0.2 * x)
    return x @ given[-2].T + given[-1]


def test_the_generators_loss_is_the_written_out_one():
    step = a_step()
    terms = objective().g_loss(step)
    of_g, of_d = weights(step.nets.G), weights(step.nets.D)
    strings, nats = written(step, of_g)
    assert torch.equal(step.fake.detach().double(), strings.detach())
    adv, nll = -0.5 * judge(of_d, strings).mean(), 0.2 * nats.mean()
    assert terms["adv"].item() == pytest.approx(adv.item(), abs=1e-6)
    assert terms["nll"].item() == pytest.approx(nll.item(), abs=1e-6)
    for key, value in (("adv", adv), ("nll", nll)):
        found = torch.autograd.grad(terms[key], list(step.nets.G.parameters()), retain_graph=True)
        wanted = torch.autograd.grad(value, of_g, retain_graph=True)
        assert sum(float(w.abs().sum()) for w in wanted) > 1e-3
        for mine, theirs in zip(found, wanted):
            torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-6)


def test_the_critics_loss_is_the_written_out_one():
    step = a_step(1)
    step.phase, step.live = "D", False
    terms = objective().d_loss(step)
    of_d = weights(step.nets.D)
    fake = written(step, weights(step.nets.G))[0].detach()
    real = torch.eye(SYMBOLS).double()[CODES]
    adv = judge(of_d, fake).mean() - judge(of_d, real).mean()
    epsilon = step.rand("gradient-penalty", (1, 1)).double()
    mixed = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(judge(of_d, mixed).sum(), mixed, create_graph=True)
    gp = 10 * ((slope.square().flatten(1).sum(1) + 1e-12).sqrt() - 1).square().mean()
    assert terms["adv"].item() == pytest.approx(adv.item(), abs=1e-6)
    assert terms["gp"].item() == pytest.approx(gp.item(), rel=1e-5)
    found = torch.autograd.grad(sum(terms.values()), list(step.nets.D.parameters()))
    wanted = torch.autograd.grad(adv + gp, of_d, allow_unused=True)
    for mine, theirs in zip(found, wanted):
        theirs = torch.zeros_like(mine) if theirs is None else theirs
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-3, atol=1e-5)


def test_a_draw_is_one_hot_and_as_often_as_softmax_says():
    logits = torch.tensor([[math.log(0.6), math.log(0.3), math.log(0.1)]]).expand(6000, 3)
    u = torch.rand(6000, 3, generator=torch.Generator().manual_seed(0))
    made = straight_through(logits, gumbel(u), 0.3)
    assert set(made.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(made.mean(0), torch.tensor([0.6, 0.3, 0.1]), atol=0.02, rtol=0)
    for edge in (torch.zeros(1, 3), torch.ones(1, 3)):
        assert straight_through(logits[:1], gumbel(edge), 0.3).isfinite().all()


def test_what_has_ended_stays_ended():
    torch.manual_seed(0)
    codes = Generator(2, 12, 3, 4)(torch.randn(64, 2), torch.rand(64, 12, 3)).argmax(2)
    ended = (codes == 0).cumsum(1) > 0
    assert ended.any()
    assert (codes[ended] == 0).all()


def test_the_likelihood_ends_with_the_first_end():
    logits = torch.zeros(2, 3, 4)
    logits[0, 1:, 3] = 50.0
    found = negative_log_likelihood(logits, torch.tensor([[0, 0, 0], [1, 2, 3]]))
    assert float(found) == pytest.approx((math.log(4) + 3 * math.log(4)) / 2)


def test_weights_of_0_leave_terms_out_and_both_are_refused():
    step = a_step()
    assert set(objective(likelihood=0.0).g_loss(step)) == {"adv"}
    alone = objective(adversarial=0.0)
    assert set(alone.g_loss(step)) == {"nll"}
    assert [phase.name for phase in alone.phases()] == ["G"]
    assert [phase.name for phase in objective().phases()] == ["D", "G"]
    with pytest.raises(FastganError, match="give one of them a weight"):
        objective(adversarial=0.0, likelihood=0.0)
    with pytest.raises(FastganError, match="likelihood must be at least 0"):
        objective(likelihood=-1.0)
    with pytest.raises(FastganError, match="symbols must be at least 2"):
        objective(symbols=1)
