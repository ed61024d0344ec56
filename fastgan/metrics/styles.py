"""Whether a space of latent vectors is smooth and in order (Karras et al. 2019, arXiv 1812.04948,
section 4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

STEP = 1e-2
"""Of the way between two latents; the paper's 1e-4 is within the rounding of small networks."""


@torch.no_grad()
def path_length(
    see: Callable[[Tensor], Tensor],
    between: Callable[[Tensor, Tensor, Tensor], Tensor],
    ends: tuple[Tensor, Tensor],
    seed: int = 0,
) -> float:
    """The mean of |f(t + STEP) - f(t)|^2 / STEP^2 over pairs of latents and places t between them
    (equation 2 and its form for w), f the features of what is made.

    see: latents (n, d) -> features (n, k). between: (a, b (n, d), t (n, 1)) -> (n, d). ends: two
    latents of each pair.
    """
    dice = torch.Generator().manual_seed(seed)
    t = torch.rand(len(ends[0]), 1, generator=dice, dtype=ends[0].dtype) * (1 - STEP)
    here, there = (see(between(*ends, at)).double() for at in (t, t + STEP))
    return float(((there - here) / STEP).square().sum(1).mean())


def separability(points: Tensor, answers: Tensor) -> float:
    """exp H(answer | what a linear classifier of the point says): 1 where hyperplanes part the
    answers. Where the point tells nothing, it is how uncertain they are anyway: compare with that
    of shuffled points.

    points: float (n, d), answers: int64 (n,), as a classifier of the images gave them. The linear
    classifier, multinomial logistic regression here where the paper has an SVM, is fitted on the
    first half and heard on all of the other; the paper keeps the half whose answers are surest.
    """
    count, half = int(answers.max()) + 1, len(points) // 2
    x = (points.float() - points.float().mean(0)) / points.float().std(0).clamp_min(1e-8)
    weight = torch.zeros(x.shape[1] + 1, count, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def logits(part: Tensor) -> Tensor:
        return part @ weight[:-1] + weight[-1]

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(logits(x[:half]), answers[:half]) + 1e-3 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    said, heard = logits(x[half:]).argmax(1), answers[half:]
    table = torch.bincount(said * count + heard, minlength=count * count).double()
    joint = table.view(count, count) / table.sum()
    known = joint.sum(1, keepdim=True)
    there = joint > 0
    entropy = -(joint[there] * (joint / known.clamp_min(1e-12))[there].log()).sum()
    return float(entropy.exp())
