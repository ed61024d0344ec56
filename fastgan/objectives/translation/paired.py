"""Images from images: an adversarial loss says what looks real, and a pixel loss what is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.objectives import losses
from fastgan.objectives.augmentation import Augmented
from fastgan.objectives.base import Noise, Phase
from fastgan.objectives.losses import LOSSES
from fastgan.objectives.translation.degradations import noise_of

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step

    Loss = Callable[[Step], Mapping[str, Tensor]]


@dataclass
class Translation(Augmented):
    """G makes `batch["image"]` from a source image (Isola et al. 2017, arXiv 1611.07004).

    "G" maps sources to images in [-1, 1]; "D" maps (images[, sources]) to logits, and has
    `features` where they are matched. G's loss is adversarial * adv + pixel * |G(s) - y| + features
    * the mean over D's layers of |D_i(G(s)) - D_i(y)| (Wang et al. 2018, eq. 2); D's is half of the
    adversarial one, as in the paper.

    Args:
        degradation: What the source is made of where the batch has none, such as
            `degradations.Edges()`.
        loss: A name of `fastgan.objectives.LOSSES`.
        adversarial: The weight of the adversarial term; 0 trains G alone.
        pixel: The weight of the L1 distance to the target.
        features: The weight of feature matching.
        conditional: Whether D sees the source beside the image.
        crop: The side of the square that a training step cuts out of each image, and at the same
            place out of its source; 0: none. G and D must take images of any size.

    Raises:
        FastganError: There is no such loss.
    """

    degradation: Any = None
    loss: str = "non-saturating"
    adversarial: float = 1.0
    pixel: float = 100.0
    features: float = 0.0
    conditional: bool = True
    crop: int = 0
    noise: Mapping[str, Noise] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        losses.check(self.loss)
        self.check_augment()
        self.noise = dict(noise_of(self.degradation))
        if self.crop:
            self.noise |= {"place": Noise((2,), "uniform", 0.0, 1.0)}

    def phases(self) -> Sequence[Phase]:
        if not self.adversarial:
            return (Phase("G", ("G",), self.in_part(self.g_loss)),)
        return (
            Phase("D", ("D",), self.in_part(self.d_loss)),
            Phase("G", ("G",), self.in_part(self.g_loss), fresh=False),
        )

    def in_part(self, loss: Loss) -> Loss:
        """The loss on what `crop` leaves of the batch, which is cut once."""

        def cut_first(step: Step) -> Mapping[str, Tensor]:
            batch = step.batch
            if "whole" not in batch:
                batch["whole"] = batch["image"]
                batch["image"], batch["source"] = cut(
                    self.crop, step.noise.place, batch["image"], self.source(step)
                )
            return loss(step)

        return cut_first if self.crop else loss

    def source(self, step: Step) -> Tensor:
        """What G is given: the batch's source, or the degraded image, made once for a batch."""
        if "source" not in step.batch:
            step.batch["source"] = self.degradation(step.batch, step.noise)
        return step.batch["source"]

    def given(self, step: Step) -> tuple[Tensor, ...]:
        return (self.seen_source(step),) if self.conditional else ()

    def seen(self, step: Step, images: Tensor) -> Tensor:
        """`images` as D is shown them: reals, fakes and sources of a phase are changed alike."""
        return self.augmented(step, images, "pair")

    def seen_source(self, step: Step) -> Tensor:
        """The source as D is shown it, beside the image."""
        return self.seen(step, self.source(step))

    def generate(self, step: Step) -> Tensor:
        return step.nets.G(self.source(step))

    def panels(self, step: Step, made: Tensor) -> Sequence[Tensor]:
        target = (step.batch["image"],) if "image" in step.batch else ()
        return (self.source(step), made, *target)

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        real, fake = (self.seen(step, images) for images in (step.batch["image"], step.fake))
        logits = step.pair("D", real, fake, *self.given(step))
        return {"adv": 0.5 * self.judged(step, *logits)}

    def pixel_loss(self, step: Step) -> Tensor:
        return F.l1_loss(step.fake.float(), step.batch["image"])

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        terms = {"pixel": self.pixel * self.pixel_loss(step)} if self.pixel else {}
        if not self.adversarial:
            return terms
        loss, given, D = LOSSES[self.loss], self.given(step), step.nets.D
        image, fake = (self.seen(step, images) for images in (step.batch["image"], step.fake))
        if not self.features:
            real = D(image, *given) if loss.g_needs_real else None
            return terms | {"adv": self.adversarial * loss.g(real, D(fake, *given))}
        made = D.features(fake, *given)
        with torch.no_grad():
            wanted = D.features(image, *given)
        gaps = [F.l1_loss(a.float(), b.float()) for a, b in zip(made[:-1], wanted[:-1])]
        terms["features"] = self.features * torch.stack(gaps).mean()
        real = wanted[-1] if loss.g_needs_real else None
        return terms | {"adv": self.adversarial * loss.g(real, made[-1])}

    def check(self, nets: Mapping[str, Any]) -> None:
        self.check_augmented_for(self.adversarial)
        for name in ("G", "D") if self.adversarial else ("G",):
            if name not in nets:
                raise FastganError(f"an objective on images from images needs a network {name!r}")
        if self.features and not hasattr(nets["D"], "features"):
            raise FastganError("feature matching needs a discriminator that has `features`")

    def check_images(self, fake: Tensor, step: Step) -> None:
        real = step.batch["image"]
        if fake.shape != real.shape:
            made, data = ("x".join(map(str, (*t.shape[2:], *t.shape[1:2]))) for t in (fake, real))
            raise FastganError(
                f"the generator makes {made} (HxWxC) images, but the targets are {data}: change "
                "the network, or --size and --channels"
            )


def cut(side: int, place: Tensor, *images: Tensor) -> list[Tensor]:
    """The same square of each of several pictures: (B, C, side, side) of the first, (B, C, H, W),
    and as much of each other one, which is smaller by a whole factor or as large. place (B, 2) in
    [0, 1): down and across, from the first place at which it lies inside to the last; whole pixels
    of the smallest picture. H, W and side are multiples of its factor."""
    factors = [images[0].shape[2] // x.shape[2] for x in images]
    coarse = max(factors)
    corners = []
    for i, extent in enumerate(images[0].shape[2:]):
        last = (extent - side) // coarse
        corners.append((place[:, i].float() * (last + 1)).long().clamp(max=last) * coarse)
    sample = torch.arange(len(place), device=place.device)[:, None, None]
    found = []
    for x, factor in zip(images, factors):
        at = torch.arange(side // factor, device=place.device)
        rows, columns = (corner[:, None] // factor + at for corner in corners)
        part = x[sample, :, rows[:, :, None], columns[:, None]]  # channels come last
        found.append(part.permute(0, 3, 1, 2).contiguous())
    return found
