"""An autoencoder, then a GAN on its maps (two stages, as in Rombach et al. 2022, arXiv 2112.10752,
section 3, with a GAN in place of the diffusion)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional as F

from fastgan import arguments
from fastgan.errors import FastganError
from fastgan.objectives.adversarial import Adversarial
from fastgan.objectives.base import Noise, Objective, Phase

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fastgan.objectives.base import Step


def needed(nets: Mapping[str, Any], *names: str) -> None:
    """Raises FastganError for the first of the networks that isn't there."""
    if missing := [name for name in names if name not in nets]:
        raise FastganError(f"this objective needs a network {missing[0]!r}")


@dataclass
class Autoencoding(Objective):
    """ "encoder" maps images (B, C, H, W) to maps (B, *shape) of unit variance, "G" maps back.

    Loss: mean |G(encoder(x) + blur n) - x|, n ~ N(0, 1): maps that are near each other must look
    alike, which makes them easy for a generator to hit. Samples are what "G" makes of N(0, 1).

    Args:
        shape: Of one map: channels, height, width.
        blur: The standard deviation of the noise on maps.
    """

    shape: tuple[int, ...] = (8, 8, 8)
    blur: float = 0.1
    noise: Mapping[str, Noise] = field(init=False, repr=False)
    watched: ClassVar[bool] = False

    def __post_init__(self) -> None:
        arguments.number(self.blur, "blur")
        self.shape = arguments.shape(self.shape, "shape")
        self.noise = {"z": Noise(self.shape)}

    def phases(self) -> Sequence[Phase]:
        return (Phase("AE", ("encoder", "G"), self.ae_loss),)

    def generate(self, step: Step) -> Tensor:
        return step.nets.G(step.noise.z)

    def panels(self, step: Step, made: Tensor) -> Sequence[Tensor]:
        """The image, its reconstruction, and the sample."""
        if "image" not in step.batch:
            return (made,)
        images = step.batch["image"]
        return images, step.nets.G(step.nets.encoder(images)), made

    def ae_loss(self, step: Step) -> Mapping[str, Tensor]:
        images = step.batch["image"]
        maps = step.nets.encoder(images)
        made = step.nets.G(maps + self.blur * step.rand("blur", self.shape, "normal"))
        error = F.mse_loss(made.float(), images.float())
        step.log("psnr", 10 * (4 / error).log10())
        return {"l1": F.l1_loss(made.float(), images.float())}

    def check(self, nets: Mapping[str, Any]) -> None:
        needed(nets, "encoder", "G")


@dataclass
class OnMaps(Adversarial):
    """`Adversarial` where "D" judges maps: those that "encoder" makes of reals, and those that
    `G.make_maps` makes of z; samples are images, G(z).

    Args:
        blur: The standard deviation of the noise on all maps that D sees: what the decoder can't
            tell apart is no matter for D, either (instance noise: Soenderby et al. 2017, arXiv
            1610.04490).
    """

    blur: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.number(self.blur, "blur")

    def reals(self, step: Step) -> Tensor:
        if "maps" not in step.batch:
            with torch.no_grad():
                step.batch["maps"] = step.nets.encoder(step.batch["image"])
        return step.batch["maps"]

    def generate(self, step: Step) -> Tensor:
        return step.nets.G.make_maps(step.noise.z)

    def sample(self, step: Step) -> Tensor:
        return step.nets.G(step.noise.z)

    def augmented(self, step: Step, images: Tensor, which: str) -> Tensor:
        seen = super().augmented(step, images, which)
        if not self.blur:
            return seen
        return seen + self.blur * step.rand(f"blur/{which}", tuple(seen.shape[1:]), "normal")

    def check(self, nets: Mapping[str, Any]) -> None:
        super().check(nets)
        needed(nets, "encoder")


@torch.no_grad()
def carry(before: Mapping[str, nn.Module], after: Mapping[str, nn.Module]) -> None:
    """The trained encoder and decoder, as "encoder" and "G.decoder" of the next stage."""
    after["encoder"].load_state_dict(before["encoder"].state_dict())
    after["G"].get_submodule("decoder").load_state_dict(before["G"].state_dict())
