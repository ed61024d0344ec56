"""Objectives of single kinds against formulas written out in float64: values and gradients."""

import math

import pytest
import torch

from fastgan.objectives import (
    Adversarial,
    Autoencoding,
    Cosine,
    Detail,
    Growing,
    Information,
    Matching,
    OnMaps,
    SemiSupervised,
)
from fastgan.objectives.base import Step
from fastgan.ops.random import normal, stream_id


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(terms, gold, inputs):
    """Values, and gradients in `inputs` (float64 leaves), of fp32 terms and of the formula."""
    for name, formula in gold.items():
        assert terms[name].item() == pytest.approx(formula.item(), rel=1e-5, abs=1e-6), name
        mine = torch.autograd.grad(terms[name], inputs, retain_graph=True, allow_unused=True)
        theirs = torch.autograd.grad(formula, inputs, retain_graph=True, allow_unused=True)
        for a, b in zip(mine, theirs, strict=True):
            assert (a is None) == (b is None), name
            if b is not None:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


def test_information():
    kinds, mean, log_std = (random(5, n, seed=n).requires_grad_() for n in (4, 2, 3))
    log_std = log_std[:, :2]
    objective = Information(3, 4, 2, weight_class=0.7, weight_codes=0.3)
    noise = {"class": torch.tensor([0, 3, 1, 1, 2]), "codes": random(5, 2, seed=9).tanh()}
    step = Step(objective, {}, 0, noise=noise)
    terms = objective.information(step, kinds, mean, log_std)
    of_class = -sum(
        kinds[i, c] - kinds[i].exp().sum().log() for i, c in enumerate(noise["class"].tolist())
    )
    density = (
        -((noise["codes"] - mean) ** 2) / (2 * (2 * log_std).exp())
        - log_std
        - 0.5 * math.log(2 * math.pi)
    )
    gold = {"class": 0.7 * of_class / 5, "codes": -0.3 * density.sum() / 5}
    assert_same(terms, gold, [kinds, mean])
    bound = math.log(4) - gold["class"].item() / 0.7
    assert float(step.logged["/mi_class"]) == pytest.approx(bound, rel=1e-5)
    bound = 2 * math.log(2) - gold["codes"].item() / 0.3
    assert float(step.logged["/mi_codes"]) == pytest.approx(bound, rel=1e-5)


def test_semi_supervised():
    real, fake = (random(5, 3, seed=n).requires_grad_() for n in range(2))
    objective = SemiSupervised(entropy=0.3, pull_away=0.2)
    terms = dict(objective.without_labels(Step(objective, {}, 0), real, fake))
    p_real = real.exp().sum(1) / (1 + real.exp().sum(1))
    p_fake = fake.exp().sum(1) / (1 + fake.exp().sum(1))
    p = real.exp() / real.exp().sum(1, keepdim=True)
    gold = {
        "adv": -0.5 * (p_real.log().mean() + (1 - p_fake).log().mean()),
        "entropy": -0.3 * (p * p.log()).sum() / 5,
    }
    assert_same(terms, gold, [real, fake])
    cosines = [
        (fake[i] @ fake[j]) / (fake[i].norm() * fake[j].norm())
        for i in range(5)
        for j in range(5)
        if i != j
    ]
    gold = {
        "matching": ((real.mean(0) - fake.mean(0)) ** 2).mean(),
        "pull_away": 0.2 * sum(c**2 for c in cosines) / 20,
    }
    assert_same(objective.matching(real, fake), gold, [real, fake])


def logits_of(x, w):
    """A discriminator whose input gradient is known: (x.w)^2 / 2, with gradient (x.w) w."""
    return 0.5 * (x.flatten(1) @ w) ** 2


def test_relativistic_pairing_with_r1_and_r2():
    real, fake = random(6, 1, 2, 2, seed=1), random(6, 1, 2, 2, seed=2)
    w = random(4, seed=3).requires_grad_()
    gamma = Cosine(3.0, 1.0, 10)
    objective = Adversarial("relativistic", (2,), r1=1.0, r2=1.0, gamma=gamma)
    scalar = {"gamma": torch.tensor(objective.schedule(4)["gamma"])}
    D = lambda x: logits_of(x, w)
    step = Step(objective, {"D": D}, 0, batch={"image": real}, scalar=scalar, due={"r1": 1})
    step._fake = fake
    half = 0.5 * (1 + 2 * 0.5 * (1 + math.cos(0.4 * math.pi)))
    on_real, on_fake = D(real), D(fake)
    gold = {
        "adv": (1 + (on_fake - on_real).exp()).log().mean(),
        "r1": half * ((real.flatten(1) @ w) ** 2 * (w @ w)).mean(),
        "r2": half * ((fake.flatten(1) @ w) ** 2 * (w @ w)).mean(),
    }
    assert_same(objective.d_loss(step), gold, [w])
    gold = {"adv": (1 + (on_real - on_fake).exp()).log().mean()}
    assert_same(objective.g_loss(step), gold, [w])


def test_growing():
    real, fake = random(3, 1, 4, 4, seed=1), random(3, 1, 4, 4, seed=2)
    w = random(16, seed=3).requires_grad_()
    objective = Growing("wasserstein", (2,), drift=0.01, fade_steps=8)
    assert objective.schedule(0)["fade"] == 0
    assert objective.schedule(100)["fade"] == 1
    scalar = {"fade": torch.tensor(objective.schedule(2)["fade"], dtype=torch.float64)}
    D = lambda x, alpha: alpha * (x.flatten(1) @ w)
    step = Step(objective, {"D": D}, 0, batch={"image": real}, scalar=scalar)
    step._fake = fake
    means = real.view(3, 1, 2, 2, 2, 2).mean((3, 5))
    halved = means.repeat_interleave(2, 2).repeat_interleave(2, 3)
    on_real, on_fake = D(0.25 * real + 0.75 * halved, 0.25), D(fake, 0.25)
    gold = {"adv": on_fake.mean() - on_real.mean(), "drift": 0.01 * on_real.square().mean()}
    assert_same(objective.d_loss(step), gold, [w])


def test_detail():
    """D sees what enlarging loses of a real, beside the enlarged image; sampling adds it up."""
    real, w = random(3, 1, 4, 4), random(32, seed=3).requires_grad_()
    objective = Detail(2, 4, 5)
    assert [noise.shape for noise in objective.noise.values()] == [(5,), (1, 2, 2), (1, 4, 4)]
    D = lambda detail, coarse: torch.cat([detail, coarse], 1).flatten(1) @ w
    G2 = lambda coarse, grain: 0.5 * coarse + grain
    grain = random(3, 1, 4, 4, seed=5)
    step = Step(objective, {"D2": D, "G2": G2}, 0, batch={"image": real}, noise={"grain2": grain})
    small = real.view(3, 1, 2, 2, 2, 2).mean((3, 5))
    up = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], dtype=torch.float64)
    coarse = up @ small @ up.T
    on_real, on_fake = D(real - coarse, coarse), D(0.5 * coarse + grain, coarse)
    softplus = lambda x: (1 + x.exp()).log().mean()
    assert_same(objective.d_loss(step), {"adv": softplus(-on_real) + softplus(on_fake)}, [w])
    assert_same(objective.g_loss(step), {"adv": softplus(-on_fake)}, [w])

    nets = {"G": lambda z: z[:, :1, None, None], "G1": lambda c, g: g, "G2": G2}
    noise = {"z": random(3, 5), "grain1": random(3, 1, 2, 2, seed=7), "grain2": grain}
    sampled = objective.sample(Step(objective, nets, 0, noise=noise))
    first = noise["z"][:, :1, None, None] + noise["grain1"]
    torch.testing.assert_close(sampled, 1.5 * (up @ first @ up.T) + grain)


def test_matching():
    """Three kinds of pairs, and the joint gradient in image and text to the sixth power."""
    real, fake, table = random(4, 1, 2, 2), random(4, 1, 2, 2, seed=1), random(3, 4, seed=2)
    w, table = random(4, 4, seed=3).requires_grad_(), table.requires_grad_()
    score = lambda x, t: 0.1 * torch.einsum("bi,ij,bj->b", x.flatten(1), w, t)[:, None]

    def D(images, *texts):
        logits = tuple(score(images, text) for text in texts)
        return logits if len(logits) > 1 else logits[0]

    objective = Matching(2, penalty=2.0, lazy_penalty=3)
    tokens = torch.tensor([[0], [1], [2], [2]])
    batch = {"image": real, "tokens": tokens}
    nets = {"D": D, "T": lambda rows: table[rows[:, 0]]}
    step = Step(objective, nets, 0, batch=batch, due={"penalty": 3})
    step._fake = fake
    text = table[tokens[:, 0]]
    wrong = score(real, text[[3, 0, 1, 2]])[[0, 1, 2]]  # the last one has its neighbour's caption
    x, t = real.flatten(1), text.detach()
    norm2 = 0.01 * ((t @ w.T).square().sum(1) + (x @ w).square().sum(1))
    hinge = lambda logits: logits.clamp(min=0).mean()
    gold = {
        "real": hinge(1 - score(real, text)),
        "fake": 0.5 * hinge(1 + score(fake, text)),
        "mismatched": 0.5 * hinge(1 + wrong),
        "penalty": 6 * (norm2**3).mean(),
    }
    assert_same(objective.d_loss(step), gold, [w, table])
    terms = objective.g_loss(step)
    assert_same(terms, {"adv": -score(fake, text.detach()).mean()}, [w, table])


def test_autoencoding():
    """The decoder is given maps with noise of a known size, and the error is L1."""
    real, w = random(3, 1, 2, 2), random(4, seed=3).requires_grad_()
    objective = Autoencoding((1, 2, 2), blur=0.3)
    encoder = lambda x: x * w.view(1, 1, 2, 2)
    nets = {"encoder": encoder, "G": lambda maps: maps.square()}
    position = torch.tensor(5)
    step = Step(objective, nets, 9, batch={"image": real}, position=position)
    terms = objective.ae_loss(step)
    drawn = normal(9, position, 3, (1, 2, 2), stream=stream_id("/blur")).double()
    made = (real * w.view(1, 1, 2, 2) + 0.3 * drawn) ** 2
    assert_same(terms, {"l1": (made - real).abs().sum() / 12}, [w])
    error = ((made - real) ** 2).sum() / 12
    assert float(step.logged["/psnr"]) == pytest.approx(10 * math.log10(4 / error.item()), rel=1e-5)
    shown = objective.panels(step, real)
    for panel, gold in zip(shown, [real, encoder(real) ** 2, real], strict=True):
        assert torch.equal(panel, gold)


def test_on_maps():
    """D sees maps, of reals and of G, each with noise of its own; no gradient reaches the encoder,
    which is called once; samples are decoded."""
    real, fake = random(4, 1, 4, 4, seed=1), random(4, 2, 2, 2, seed=2)
    w, e = random(8, seed=3).requires_grad_(), random(1, seed=4).requires_grad_()
    objective = OnMaps("hinge", (5,), r1=0.6, blur=0.2)
    calls = []

    def encoder(x):
        calls.append(len(x))
        return e * x.view(4, 1, 2, 2, 2, 2).mean((3, 5)).expand(-1, 2, -1, -1)

    class G:
        make_maps = staticmethod(lambda z: z[:, :1, None, None] + fake)

        def __call__(self, z):
            return self.make_maps(z).sum()

    D = lambda maps: logits_of(maps, w)
    position = torch.tensor(7)
    nets, z = {"encoder": encoder, "D": D, "G": G()}, random(4, 5, seed=6)
    step = Step(
        objective, nets, 9, batch={"image": real}, noise={"z": z}, due={"r1": 1}, position=position
    )
    assert torch.equal(objective.generate(step), z[:, :1, None, None] + fake)
    assert torch.equal(objective.sample(step), (z[:, :1, None, None] + fake).sum())
    step._fake = fake.requires_grad_()
    step.live = True
    n = {
        which: 0.2 * normal(9, position, 4, (2, 2, 2), stream=stream_id(f"/blur/{which}")).double()
        for which in ("real", "fake")
    }
    maps = e.detach() * real.view(4, 1, 2, 2, 2, 2).mean((3, 5)).expand(-1, 2, -1, -1) + n["real"]
    gold = {
        "adv": (1 - D(maps)).clamp(min=0).mean() + (1 + D(fake + n["fake"])).clamp(min=0).mean(),
        "r1": 0.3 * ((maps.flatten(1) @ w) ** 2 * (w @ w)).mean(),
    }
    assert_same(objective.d_loss(step), gold, [w, fake, e])
    assert calls == [4]
    assert_same(objective.g_loss(step), {"adv": -D(fake + n["fake"]).mean()}, [fake])
