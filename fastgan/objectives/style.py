"""What a style-based generator is trained by: mixed styles and even paths (Karras et al. 2019 and
2020, arXiv 1812.04948 and 1912.04958)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastgan import arguments
from fastgan.objectives.adversarial import Adversarial

if TYPE_CHECKING:
    from fastgan.objectives.base import Step

NET = "path"
"""The name among the networks of what path lengths are compared with."""


class RunningMean(nn.Module):
    """A buffer `mean` that moves by `share` of the way to what it is told."""

    mean: Tensor

    def __init__(self, share: float = 0.01) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("mean", torch.zeros(()))

    @torch.no_grad()
    def towards(self, value: Tensor) -> Tensor:
        self.mean.lerp_(value.to(self.mean.dtype), self.share)
        return self.mean.clone()


def path_lengths(images: Tensor, styles: Tensor, noise: Tensor) -> Tensor:
    """(B,): the root mean over layers of |J^T y|^2, J = d images / d styles (B, layers, latent) and
    y = noise (of the images' shape, N(0, 1)) over the root of the pixels (arXiv 1912.04958, section
    3.2)."""
    pixels = images.shape[2] * images.shape[3]
    product = (images.float() * noise).sum() / pixels**0.5
    (gradient,) = torch.autograd.grad(product, styles, create_graph=True)
    return (gradient.float().square().sum(2).mean(1) + 1e-12).sqrt()


@dataclass
class Style(Adversarial):
    """`Adversarial` with style mixing and path-length regularisation.

    "G" maps (z[, other, cut]) to images, and with styles=True to (images, styles); "D" maps images
    to logits. Samples are of one z.

    Args:
        mixing: The share of images whose styles come from two latent vectors.
        path: The weight of E (path length - its running mean)^2, a term of G's phase.
        lazy_path: Compute it only every k-th step, with k times the weight.
    """

    mixing: float = 0.9
    path: float = 2.0
    lazy_path: int = 4
    one_pass: bool | None = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mixing", "path"):
            arguments.number(getattr(self, name), name)
        arguments.whole(self.lazy_path, "lazy_path", 1)
        if self.path:
            self.lazy = {**self.lazy, "path": self.lazy_path}

    augments = True

    def own_nets(self) -> Mapping[str, nn.Module]:
        return {**super().own_nets(), **({NET: RunningMean()} if self.path else {})}

    def generate(self, step: Step) -> Tensor:
        if not self.mixing:
            return step.nets.G(step.noise.z)
        other = step.rand("other", self.latent_shape, "normal")
        chance, cut = step.rand("mix", (2,)).unbind(1)
        return step.nets.G(step.noise.z, other, cut.where(chance < self.mixing, 1.0))

    def sample(self, step: Step) -> Tensor:
        return step.nets.G(step.noise.z)

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        terms = dict(super().g_loss(step))
        if self.path and (every := step.due("path")):
            images, styles = step.nets.G(step.noise.z, styles=True)
            noise = step.rand("path", tuple(images.shape[1:]), "normal")
            lengths = path_lengths(images, styles, noise)
            total = step.total(
                torch.stack([lengths.detach().sum(), lengths.new_full((), len(lengths))])
            )
            mean = step.nets[NET].towards(total[0] / total[1])
            step.log("path_length", mean)
            terms["path"] = self.path * every * (lengths - mean).square().mean()
        return terms
