"""Text to image: an image must be real and match its text (Tao et al. 2022, "DF-GAN", arXiv
2008.05865, eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.objectives.augmentation import Augmented
from fastgan.objectives.base import Noise, Phase

if TYPE_CHECKING:
    from fastgan.objectives.base import Step


def matching_penalty(
    discriminator: Callable[..., Tensor], images: Tensor, text: Tensor, power: float = 6.0
) -> Tensor:
    """E |grad D(x, t)|^power, the gradient in image and text together; at reals with their own
    text. Multiply by 2."""
    images, text = images.detach().requires_grad_(), text.detach().requires_grad_()
    logits = discriminator(images, text).float().sum()
    of_images, of_text = torch.autograd.grad(logits, (images, text), create_graph=True)
    squares = of_images.float().square().flatten(1).sum(1) + of_text.float().square().sum(1)
    return (squares + 1e-12).pow(power / 2).mean()


@dataclass
class Matching(Augmented):
    """The hinge loss on (real, its text), (fake, its text) and (real, another's text).

    "T" maps tokens (B, words) to texts (B, features) and learns in D's phase, "G" maps (z, text) to
    images, "D" maps (images, text[, another text]) to logits, one for each text. The batch holds
    "image" and "tokens".

    Args:
        latent: The numbers of one latent vector.
        penalty: The weight of `matching_penalty`.
        lazy_penalty: Compute it only every k-th step, with k times the weight.
        prompts: Captions of the samples of a run, where none are asked for.
    """

    latent: int = 32
    penalty: float = 2.0
    lazy_penalty: int = 4
    prompts: tuple[str, ...] = ()
    noise: Mapping[str, Noise] = field(init=False, repr=False)
    lazy: Mapping[str, int] = field(init=False, repr=False)
    loss = "hinge"

    def __post_init__(self) -> None:
        self.check_augment()
        self.noise = {"z": Noise((self.latent,))}
        self.lazy = {"penalty": self.lazy_penalty} if self.penalty else {}

    def phases(self) -> Sequence[Phase]:
        return Phase("D", ("D", "T"), self.d_loss), Phase("G", ("G",), self.g_loss, fresh=False)

    def generate(self, step: Step) -> Tensor:
        return step.nets.G(step.noise.z, step.nets.T(step.batch["tokens"]).detach())

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        tokens, D = step.batch["tokens"], step.nets.D
        text = step.nets.T(tokens)
        seen = lambda images: self.augmented(step, images, "real")
        on_real, on_wrong = D(seen(step.batch["image"]), text, text.roll(1, 0))
        on_fake = D(self.augmented(step, step.fake, "fake"), text)
        self.observe(step, on_real)
        # the neighbour's caption may be the same one, which is not wrong
        wrong = (tokens != tokens.roll(1, 0)).any(1, keepdim=True).float()
        step.log("logit_real", on_real.float().mean())
        step.log("logit_fake", on_fake.float().mean())
        step.log("logit_wrong", on_wrong.float().mean())
        mismatched = (wrong * F.relu(1 + on_wrong.float())).sum() / wrong.sum().clamp_min(1)
        terms = {
            "real": F.relu(1 - on_real.float()).mean(),
            "fake": 0.5 * F.relu(1 + on_fake.float()).mean(),
            "mismatched": 0.5 * mismatched,
        }
        if self.penalty and (every := step.due("penalty")):
            found = matching_penalty(lambda x, t: D(seen(x), t), step.batch["image"], text)
            terms["penalty"] = self.penalty * every * found
        return terms

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        text = step.nets.T(step.batch["tokens"]).detach()
        fake = self.augmented(step, step.fake, "fake")
        return {"adv": -step.nets.D(fake, text).float().mean()}

    def check(self, nets: Mapping[str, Any]) -> None:
        if missing := [name for name in ("G", "D", "T") if name not in nets]:
            raise FastganError(f"the objective Matching needs a network {missing[0]!r}")
