"""Objectives of single kinds against formulas written out in float64: values and gradients."""

import math

import pytest
import torch

from fastgan.objectives import Information
from fastgan.objectives.base import Step


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
    bound = math.log(4) - float(gold["class"]) / 0.7
    assert float(step.logged["/mi_class"]) == pytest.approx(bound, rel=1e-5)
    bound = 2 * math.log(2) - float(gold["codes"]) / 0.3
    assert float(step.logged["/mi_codes"]) == pytest.approx(bound, rel=1e-5)
