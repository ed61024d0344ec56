"""The iterations that are timed: networks, batch, loss and regularisers, as data; and the images
they see."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fastgan.bench.iterations import networks
from fastgan.errors import FastganError
from fastgan.objectives import Adversarial, Noise, Objective, Phase

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.objectives.base import Step

Networks = Callable[[float], dict[str, nn.Module]]


@dataclass(frozen=True)
class Suite:
    """One iteration: `critic` updates of D, one of G.

    networks(dropout) -> {"G", "D"}; dropout is 0 where gradients are compared. latent: of one
    sample; () where G takes the source image (`paired`). reuse of the fakes in G's update where
    critic is 1. gp, r1, l1: weights of the terms. images: how many the data set holds.
    """

    name: str
    what: str
    networks: Networks
    batch: int
    size: int
    channels: int = 3
    latent: tuple[int, ...] = (100, 1, 1)
    loss: str = "non-saturating"
    critic: int = 1
    gp: float = 0.0
    r1: float = 0.0
    paired: bool = False
    l1: float = 0.0
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    dropout: float = 0.0
    images: int = 4096

    @property
    def rounds(self) -> int:
        """Batches drawn in one iteration."""
        return self.critic + (self.critic > 1)

    @property
    def images_per_step(self) -> int:
        """Real images that D sees in one iteration."""
        return self.batch * self.critic

    def objective(self) -> Objective:
        """The same iteration for the engine."""
        if self.paired:
            return Translation(self.l1)
        return Adversarial(self.loss, self.latent, gp=self.gp, r1=self.r1, n_critic=self.critic)


@dataclass
class Translation(Objective):
    """pix2pix (Isola et al. 2017, eq. 4): D sees source and image side by side, G minimises
    adversarial + l1 * |image - fake|."""

    l1: float = 100.0
    noise: Mapping[str, Noise] = field(default_factory=dict)

    def phases(self) -> Sequence[Phase]:
        return (Phase("D", ("D",), self.d_loss), Phase("G", ("G",), self.g_loss, fresh=False))

    def generate(self, step: Step) -> Tensor:
        return step.nets.G(step.batch["source"])

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        from fastgan.objectives.losses import LOSSES

        source = step.batch["source"]
        on_real = step.nets.D(torch.cat([source, step.batch["image"]], 1))
        on_fake = step.nets.D(torch.cat([source, step.fake], 1))
        return {"adv": LOSSES["non-saturating"].d(on_real, on_fake)}

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        from fastgan.objectives.losses import LOSSES

        on_fake = step.nets.D(torch.cat([step.batch["source"], step.fake], 1))
        distance = (step.batch["image"].float() - step.fake.float()).abs().mean()
        return {"adv": LOSSES["non-saturating"].g(None, on_fake), "l1": self.l1 * distance}


def dcgan(
    batch: int,
    size: int = 64,
    channels: int = 3,
    width: int = 64,
    latent: int = 100,
    name: str = "",
) -> Suite:
    """The DCGAN of the PyTorch tutorial."""

    def build(dropout: float) -> dict[str, nn.Module]:
        return {
            "G": networks.DcganGenerator(size, channels, latent, width),
            "D": networks.DcganDiscriminator(size, channels, width),
        }

    return Suite(
        name or f"dcgan-{size}-b{batch}",
        f"DCGAN {size}x{size}x{channels}, base width {width}, batch {batch}",
        build,
        batch,
        size,
        channels,
        (latent, 1, 1),
    )


def _resnet(
    size: int, channels: int, latent: int, wide_g: int, wide_d: int, spectral: bool
) -> Networks:
    def build(dropout: float) -> dict[str, nn.Module]:
        from fastgan.models.resnet import Discriminator, Generator

        return {
            "G": Generator(size, channels, latent, wide_g),
            "D": Discriminator(size, channels, wide_d, spectral=spectral),
        }

    return build


def sngan(
    batch: int,
    size: int = 32,
    wide_g: int = 256,
    wide_d: int = 128,
    critic: int = 5,
    name: str = "",
) -> Suite:
    """SNGAN's CIFAR ResNets with spectral norm and the hinge loss (Miyato et al. 2018)."""
    return Suite(
        name or f"sngan-{size}-b{batch}",
        f"SNGAN ResNet {size}x{size}x3, {critic} updates of D, batch {batch}",
        _resnet(size, 3, 128, wide_g, wide_d, True),
        batch,
        size,
        latent=(128,),
        loss="hinge",
        critic=critic,
        betas=(0.0, 0.9),
    )


def wgan_gp(batch: int, size: int = 32, wide: int = 128, critic: int = 5, name: str = "") -> Suite:
    """WGAN-GP's CIFAR ResNets with the gradient penalty in each update of the critic (Gulrajani et
    al. 2017)."""
    return Suite(
        name or f"wgan-gp-{size}-b{batch}",
        f"WGAN-GP ResNet {size}x{size}x3, {critic} updates of the critic, batch {batch}",
        _resnet(size, 3, 128, wide, wide, False),
        batch,
        size,
        latent=(128,),
        loss="wasserstein",
        critic=critic,
        gp=10.0,
        betas=(0.0, 0.9),
    )


def r1(batch: int, size: int = 64, wide: int = 128, name: str = "") -> Suite:
    """R1 on a residual discriminator in every update (Mescheder et al. 2018): second order all the
    time."""
    return Suite(
        name or f"r1-{size}-b{batch}",
        f"residual networks {size}x{size}x3 with R1 in every update, batch {batch}",
        _resnet(size, 3, 128, wide, wide, False),
        batch,
        size,
        latent=(128,),
        r1=1.0,
        betas=(0.0, 0.99),
    )


def pix2pix(
    batch: int,
    size: int = 256,
    levels: int = 8,
    width: int = 64,
    patch_levels: int = 3,
    name: str = "",
) -> Suite:
    """pix2pix's U-Net and PatchGAN with the L1 term (Isola et al. 2017)."""

    def build(dropout: float) -> dict[str, nn.Module]:
        return {
            "G": networks.UNet(3, levels, width, dropout),
            "D": networks.PatchGan(6, width, patch_levels),
        }

    return Suite(
        name or f"pix2pix-{size}-b{batch}",
        f"pix2pix U-Net {size}x{size}x3 and PatchGAN, batch {batch}",
        build,
        batch,
        size,
        latent=(),
        paired=True,
        l1=100.0,
        dropout=0.5,
        images=512,
    )


GPU = [
    *(dcgan(batch) for batch in (128, 64, 16, 256, 1024)),
    sngan(64),
    wgan_gp(64),
    pix2pix(1),
    pix2pix(16),
    r1(64),
]
"""In order of worth."""

CPU = [dcgan(64, 32, 1)]
"""The DCGAN that a laptop trains."""

FOR_CPU = [
    *CPU,
    dcgan(16, 64, name="cpu-dcgan-64"),
    sngan(16, 32, 64, 64, 1, name="cpu-sngan"),
    r1(16, 32, 32, name="cpu-r1"),
]
"""`--suite cpu`: networks of each kind that a CPU trains."""

TINY = [
    dcgan(8, 16, 3, 8, 16, name="tiny-dcgan"),
    sngan(4, 16, 16, 16, 2, name="tiny-sngan"),
    wgan_gp(4, 16, 16, 2, name="tiny-wgan-gp"),
    pix2pix(2, 32, 5, 8, 2, name="tiny-pix2pix"),
    r1(4, 16, 16, name="tiny-r1"),
]
"""Each kind in seconds on one core: for finding mistakes, not for quoting."""

SUITES = {suite.name: suite for suite in [*GPU, *FOR_CPU, *TINY]}


_NAMES_FOR_CPU = tuple(suite.name for suite in FOR_CPU)


def choose(names: Sequence[str], device: torch.device, quick: bool) -> list[Suite]:
    """The suites named, or this device's own. Raises FastganError for an unknown name."""
    names = [n for name in names for n in (_NAMES_FOR_CPU if name == "cpu" else (name,))]
    for name in names:
        if name not in SUITES:
            raise FastganError(f"no suite {name!r}: choose from {', '.join(SUITES)}")
    if names:
        return [SUITES[name] for name in names]
    if device.type == "cuda":
        return (
            [suite for suite in GPU if suite.name in ("dcgan-64-b128", "dcgan-64-b16")]
            if quick
            else list(GPU)
        )
    return [*CPU, *(TINY[1:] if quick else TINY)]


@functools.lru_cache(maxsize=2)
def pictures(size: int, channels: int, count: int) -> np.ndarray:
    """uint8 (count, size, size, channels): the bundled Fashion-MNIST images, scaled bilinearly,
    each tinted if in colour."""
    import fastgan.data

    grey = fastgan.data.open("fashion-mnist").array("image")[:count]
    images = torch.from_numpy(np.array(grey)).permute(0, 3, 1, 2).float()
    scaled = nn.functional.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False
    )
    if channels > 1:
        tint = torch.rand(len(scaled), channels, 1, 1, generator=torch.Generator().manual_seed(0))
        scaled = scaled * (0.5 + 0.5 * tint)
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def arrays(suite: Suite) -> dict[str, np.ndarray]:
    """The suite's data: "image", and for pairs "source", which is the image upside down and
    inverted."""
    found: dict[str, Any] = {
        "image": pictures(suite.size, suite.channels, max(suite.images, suite.batch))
    }
    if suite.paired:
        found["source"] = np.ascontiguousarray(255 - found["image"][:, ::-1])
    return found
