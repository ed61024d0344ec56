"""Gradient regularisers of a discriminator. All return 0-dim tensors, means over samples, and all
but `squared_difference` are exact in second order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastgan.ops.conv.switch import no_weight_gradients


def input_gradient(
    discriminator: Callable[..., Tensor], images: Tensor, *conditions: Tensor
) -> Tensor:
    """d sum(D(images)) / d images with its graph, shape of `images`.

    `images` are detached first: no gradient reaches a generator.
    """
    images = images.detach().requires_grad_(True)
    logits = discriminator(images, *conditions)
    with no_weight_gradients():  # `inputs=` alone does not tell operators made in Python
        return torch.autograd.grad(logits.float().sum(), images, create_graph=True)[0]


def squared_gradients(logits: Sequence[Tensor], images: Sequence[Tensor]) -> list[Tensor]:
    """`zero_centred_penalty` of batches that D has seen already: E |grad_x D(x)|^2 of each.

    images: (B, C, H, W) leaves that require gradients; logits: D's of them, each of one batch
    alone.
    """
    if not images:
        return []
    total = torch.stack([some.float().sum() for some in logits]).sum()
    with no_weight_gradients():
        gradients = torch.autograd.grad(total, images, create_graph=True)
    return [g.float().square().flatten(1).sum(1).mean() for g in gradients]


def zero_centred_penalty(
    discriminator: Callable[..., Tensor], images: Tensor, *conditions: Tensor
) -> Tensor:
    """E |grad_x D(x)|^2: R1 on reals, R2 on fakes (Mescheder et al. 2018, eq. 9). Multiply by gamma
    / 2. `images` are detached first."""
    leaf = images.detach().requires_grad_(True)
    return squared_gradients([discriminator(leaf, *conditions)], [leaf])[0]


def squared_difference(logits: Tensor, moved: Tensor, sigma: float) -> Tensor:
    """E ((D(x + sigma e) - D(x)) / sigma)^2, whose mean over normal e is E |grad_x D(x)|^2 as sigma
    goes to 0: `zero_centred_penalty` without a second derivative (as in Lin et al. 2025, arXiv
    2501.08316). logits: D(x), moved: D(x + sigma e)."""
    change = (moved.float() - logits.float()).reshape(len(logits), -1).sum(1) / sigma
    return change.square().mean()


def gradient_penalty(
    discriminator: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    epsilon: Tensor,
    *conditions: Tensor,
) -> Tensor:
    """E (|grad_x D(x)| - 1)^2 at x = epsilon*real + (1-epsilon)*fake (Gulrajani et al. 2017, eq.
    3). Multiply by lambda = 10.

    epsilon: (B, 1, ..., 1) uniform in [0, 1), from `step.rand`. The root is taken of the sum +
    1e-12, so that a zero gradient has a finite derivative.
    """
    mixed = fake.detach() + epsilon * (real - fake.detach())
    gradient = input_gradient(discriminator, mixed, *conditions).float()
    return ((gradient.square().flatten(1).sum(1) + 1e-12).sqrt() - 1.0).square().mean()
