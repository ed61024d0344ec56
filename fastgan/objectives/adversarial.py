"""The standard two-player objective: a generator, a discriminator, one of `LOSSES`, three gradient
regularisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from fastgan import arguments
from fastgan.errors import FastganError
from fastgan.objectives import losses, regularizers
from fastgan.objectives.augmentation import NONE, Augmented
from fastgan.objectives.base import Noise, Phase
from fastgan.objectives.ending import ending
from fastgan.objectives.losses import LOSSES

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step


@dataclass
class Adversarial(Augmented):
    """The standard objective: G against D (Goodfellow et al. 2014).

    "G" maps (z[, label]) to images in [-1, 1], "D" maps (images[, label]) to logits of any shape.

    Args:
        loss: A name of `fastgan.objectives.LOSSES`.
        latent_shape: The shape of one latent vector z.
        latent: Its kind: "normal" or "uniform".
        r1: The weight gamma of the gradient penalty on reals.
        r2: The weight gamma of the gradient penalty on fakes.
        gp: The weight lambda of WGAN-GP's penalty between reals and fakes.
        lazy_r1: Compute r1 only every k-th step, with k times the weight (Karras et al. 2020).
        n_critic: Updates of D for one of G.
        reuse: Whether G is trained on the fakes that D has just seen, as in the DCGAN tutorial,
            which saves one pass of G. Default: where n_critic is 1.
        conditional: Whether both networks are given the label.
        one_pass: As in `Objective`.
        augment: What changes reals and fakes alike before D sees them, penalties included:
            "color,translation,cutout" or a part of it in this order (DiffAugment, Zhao et al.
            2020), "ada" (Karras et al. 2020), or "none". A subclass with losses of its own gives
            D what `augmented` returns, and sets `augments`.
        augment_p: The strength of "ada" in [0, 1]. None: it follows how D overfits.
        gamma: A schedule that r1 and r2 are multiplied by at each step (Huang et al. 2024 let
            both fall); a dataclass of `fastgan.objectives`, so that a run can be loaded.
        drift: The weight of the mean squared logit of reals, which keeps a critic's near 0 (Karras
            et al. 2018: 0.001).
        perturb: r1 and r2 by the difference that normal noise of this standard deviation makes to
            logits, without a second derivative: right on average as it goes to 0, noisy at each
            step, and lost in the rounding of half precision where it is small. 0: exact.

    Raises:
        FastganError: There is no such loss or augmentation, or lazy_r1 or n_critic is below 1.

    Example:
        >>> import fastgan
        >>> objective = fastgan.Adversarial("hinge", (128,), r1=1.0, lazy_r1=16, n_critic=5)
        >>> [(phase.name, phase.repeat) for phase in objective.phases()]
        [('D', 5), ('G', 1)]
    """

    loss: str = "non-saturating"
    latent_shape: tuple[int, ...] = (100, 1, 1)
    latent: str = "normal"
    r1: float = 0.0
    r2: float = 0.0
    gp: float = 0.0
    lazy_r1: int = 1
    n_critic: int = 1
    reuse: bool | None = None
    conditional: bool = False
    one_pass: bool | None = None
    augments: ClassVar[bool] = False
    gamma: Callable[[int], float] | None = field(default=None, metadata={"later": True})
    drift: float = field(default=0.0, metadata={"later": True})
    perturb: float = field(default=0.0, metadata={"later": True})
    noise: Mapping[str, Noise] = field(init=False, repr=False)
    lazy: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        losses.check(self.loss)
        for name in ("lazy_r1", "n_critic"):
            arguments.whole(getattr(self, name), name, 1)
        for name in ("r1", "r2", "gp", "drift", "perturb"):
            arguments.number(getattr(self, name), name)
        for name in (
            "conditional",
            *(n for n in ("reuse", "one_pass") if getattr(self, n) is not None),
        ):
            arguments.flag(getattr(self, name), name)
        if self.gamma is not None:
            arguments.function(self.gamma, "gamma", "a function of the step")
        self.check_augment()
        self.latent_shape = arguments.shape(self.latent_shape, "latent_shape")
        self.noise = {"z": Noise(self.latent_shape, self.latent)}
        self.lazy = {"r1": self.lazy_r1} if self.r1 else {}

    def phases(self) -> Sequence[Phase]:
        reuse = self.n_critic == 1 if self.reuse is None else self.reuse
        return (
            Phase("D", ("D",), self.d_loss, repeat=self.n_critic),
            Phase("G", ("G",), self.g_loss, fresh=not reuse),
        )

    def schedule(self, step: int) -> Mapping[str, float]:
        return {"gamma": self.gamma(step)} if self.gamma is not None else {}

    def conditions(self, step: Step) -> tuple[Tensor, ...]:
        return (step.batch["label"],) if self.conditional else ()

    def reals(self, step: Step) -> Tensor:
        """The real images (B, C, H, W) that D sees."""
        return step.batch["image"]

    def generate(self, step: Step) -> Tensor:
        return step.nets.G(step.noise.z, *self.conditions(step))

    def shown(
        self, step: Step, images: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Reals and fakes, or `images` instead, as D is shown them."""
        real, fake = images or (self.reals(step), step.fake)
        return self.augmented(step, real, "real"), self.augmented(step, fake, "fake")

    def d_images(self, step: Step) -> tuple[Tensor, Tensor]:
        """Reals and fakes before augmentation, leaves of the graph where R1 or R2 is due: one pass
        of D gives logits and, differentiated, penalties."""
        real, fake = self.reals(step), step.fake
        if self.perturb:
            return real, fake
        if self.r1 and step.due("r1"):
            real = real.detach().requires_grad_()
        if self.r2:
            fake = fake.detach().requires_grad_()
        return real, fake

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        images, given = self.d_images(step), self.conditions(step)
        logits = step.pair("D", *self.shown(step, images), *given)
        terms = {"adv": self.judged(step, *logits), **self.penalties(step, images, logits)}
        if self.drift:
            terms["drift"] = self.drift * logits[0].float().square().mean()
        return terms

    def penalties(
        self, step: Step, images: tuple[Tensor, Tensor], logits: tuple[Tensor, Tensor]
    ) -> dict[str, Tensor]:
        """The gradient regularisers that are on, of D behind the augmentation. images: what
        `d_images` gave; logits: D's of these."""
        gamma = step.scalar.gamma if self.gamma is not None else 1.0
        due = {}  # weights, and which of reals and fakes
        if self.r1 and (every := step.due("r1")):
            due["r1"] = self.r1 * every, 0
        if self.r2:
            due["r2"] = self.r2, 1
        squares = self.squares(step, [i for _, i in due.values()], images, logits)
        terms = {
            name: 0.5 * gamma * weight * square
            for (name, (weight, _)), square in zip(due.items(), squares, strict=True)
        }
        if self.gp:
            real, fake = images
            epsilon = step.rand("gradient-penalty", (1,) * (real.dim() - 1))
            terms["gp"] = self.gp * regularizers.gradient_penalty(
                lambda mixed, *given: step.nets.D(self.augmented(step, mixed, "mixed"), *given),
                real.detach(),
                fake,
                epsilon,
                *self.conditions(step),
            )
        return terms

    def squares(
        self,
        step: Step,
        which: Sequence[int],
        images: tuple[Tensor, Tensor],
        logits: tuple[Tensor, Tensor],
    ) -> list[Tensor]:
        """E |grad_x D(x)|^2 on reals (0), fakes (1) or both, exact or by `perturb`."""
        if not self.perturb:
            return regularizers.squared_gradients(
                [logits[i] for i in which], [images[i] for i in which]
            )
        found = []
        for i in which:
            name, x = ("real", "fake")[i], images[i].detach()
            noise = step.rand(f"perturb/{name}", tuple(x.shape[1:]), "normal")
            moved = self.augmented(step, x + self.perturb * noise, name)
            on_moved = step.nets.D(moved, *self.conditions(step))
            found.append(regularizers.squared_difference(logits[i], on_moved, self.perturb))
        return found

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        loss, given = LOSSES[self.loss], self.conditions(step)
        if not loss.g_needs_real:
            fake = self.augmented(step, step.fake, "fake")
            return {"adv": loss.g(None, step.nets.D(fake, *given))}
        real_logits, fake_logits = step.pair("D", *self.shown(step), *given)
        return {"adv": loss.g(real_logits, fake_logits)}

    def check(self, nets: Mapping[str, Any]) -> None:
        own = [
            n for n in ("d_loss", "g_loss") if getattr(type(self), n) is not vars(Adversarial)[n]
        ]
        if self.augment != NONE and own and not self.augments:
            raise FastganError(
                f"{type(self).__name__} has a {own[0]} of its own that augments nothing: give D "
                "self.augmented(step, images, ...) there and set augments = True, or leave augment "
                "out"
            )
        for name in ("G", "D"):
            if name not in nets:
                raise FastganError(
                    f"the adversarial objective needs a network {name!r}: pass generator= and "
                    "discriminator="
                )

    def check_images(self, fake: Tensor, step: Step) -> None:
        real = self.reals(step)
        if fake.shape != real.shape:
            made, data = ("x".join(map(str, (*t.shape[2:], *t.shape[1:2]))) for t in (fake, real))
            remedy = "change the network, or --size and --channels"
            raise FastganError(
                f"the generator makes {made} (HxWxC) images, but the data are {data}: {remedy}"
            )
        last = ending(fake)
        if last in ("Sigmoid", "Relu", "Softmax") and bool(real.amin() < 0):
            raise FastganError(
                f"the generator ends in {last}, so its images are never negative, but the data "
                "are: end in Tanh"
            )
        logits = step.nets.D(fake.detach().requires_grad_(), *self.conditions(step))
        if not hasattr(logits, "grad_fn"):
            raise FastganError(
                f"the discriminator returns a {type(logits).__name__}, not one tensor of logits: "
                "return these alone, or write an Objective whose losses pick them"
            )
        last = ending(logits)
        if last in ("Sigmoid", "Softmax"):
            raise FastganError(
                f"the discriminator ends in {last}, but the losses take logits: remove its last "
                "layer"
            )
