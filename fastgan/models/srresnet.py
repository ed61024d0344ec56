"""Residual networks from images to images: SRResNet for larger ones, CycleGAN's and LaMa's for
equally large ones."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.errors import FastganError
from fastgan.models.dcgan import init_weights
from fastgan.models.layers.conditional import ClassAffine
from fastgan.models.layers.fourier import FourierBlock
from fastgan.ops.conv.repeated import repeated


class Residual(nn.Module):
    """x + convolution, activation, convolution; 3x3, the sides stay."""

    def __init__(self, width: int, norm: bool = False) -> None:
        super().__init__()
        self.width, self.norm = width, norm
        norms = [nn.InstanceNorm2d(width, affine=True) if norm else nn.Identity() for _ in "ab"]
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1),
            norms[0],
            nn.ReLU() if norm else nn.PReLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            norms[1],
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SRResNet(nn.Module):
    """(B, channels, h, w) -> (B, channels, factor h, factor w), `factor` a power of two.

    SRResNet (Ledig et al. 2017, arXiv 1609.04802, figure 4) without its batch normalisation, which
    Lim et al. 2017 (arXiv 1707.02921) found to hurt, and on top of bicubic enlargement: the last
    layer begins at zero, so training begins where the baseline is.
    """

    def __init__(
        self, channels: int = 3, width: int = 32, blocks: int = 4, factor: int = 4
    ) -> None:
        super().__init__()
        self.channels, self.width, self.blocks, self.factor = channels, width, blocks, factor
        self.inputs = channels
        if factor < 2 or factor & (factor - 1):
            raise FastganError(f"super-resolution is by 2, 4 or 8, not by {factor}")
        self.first = nn.Sequential(nn.Conv2d(channels, width, 5, 1, 2), nn.PReLU())
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        up: list[nn.Module] = []
        for _ in range(factor.bit_length() - 1):
            up += [nn.Conv2d(width, 4 * width, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU()]
        self.up = nn.Sequential(*up)
        self.last = nn.Conv2d(width, channels, 5, 1, 2)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, small: Tensor) -> Tensor:
        h = self.first(small)
        large = self.last(self.up(h + self.body(h)))
        return large + enlarged(small, self.factor).to(large.dtype)


def enlarged(small: Tensor, factor: int) -> Tensor:
    """Bicubic enlargement, the baseline of super-resolution."""
    return F.interpolate(small.float(), scale_factor=factor, mode="bicubic", align_corners=False)


class Translator(nn.Module):
    """(images (B, inputs, H, W)[, label (B,)]) -> images (B, outputs, H, W) in [-1, 1].

    CycleGAN's residual generator (Zhu et al. 2017, arXiv 1703.10593, appendix): two halvings,
    `blocks` residual blocks, two doublings, instance normalisation. classes: where not 0, each norm
    outside of the blocks is followed by the label's own affine map; planes beside the image, as in
    StarGAN, would be taken out again by the first instance norm. residual: the network's output is
    doubled and added to the image, so that what stays needs no learning; the sum lies in [-3, 3]. H
    and W are multiples of 4.
    """

    def __init__(
        self,
        inputs: int = 3,
        outputs: int = 3,
        width: int = 32,
        blocks: int = 3,
        classes: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.width = inputs, outputs, width
        self.blocks, self.classes, self.residual = blocks, classes, residual

        def normed(layer: nn.Module, wide: int) -> list[nn.Module]:
            told = [ClassAffine(wide, classes)] if classes else []
            return [layer, nn.InstanceNorm2d(wide, affine=True), *told, nn.ReLU()]

        self.layers = nn.Sequential(
            *normed(nn.Conv2d(inputs, width, 5, 1, 2), width),
            *normed(nn.Conv2d(width, 2 * width, 4, 2, 1), 2 * width),
            *normed(nn.Conv2d(2 * width, 4 * width, 4, 2, 1), 4 * width),
            *(Residual(4 * width, norm=True) for _ in range(blocks)),
            *normed(nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1), 2 * width),
            *normed(nn.ConvTranspose2d(2 * width, width, 4, 2, 1), width),
            nn.Conv2d(width, outputs, 5, 1, 2),
            nn.Tanh(),
        )
        self.apply(init_weights)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        if images.shape[2] % 4 or images.shape[3] % 4:
            raise FastganError(
                f"images of {images.shape[3]}x{images.shape[2]} can't be halved twice: use --size "
                f"{max(8, images.shape[2] // 4 * 4)}"
            )
        made = images
        for layer in self.layers:
            made = layer(made, label) if isinstance(layer, ClassAffine) else layer(made)
        return images + 2 * made if self.residual else made


class FourierResNet(nn.Module):
    """(B, inputs, size, size) -> (B, outputs, size, size) in [-1, 1].

    LaMa's generator (Suvorov et al. 2022, arXiv 2109.07161): halvings, `blocks` residual blocks of
    fast Fourier convolutions on the smallest map, doublings, batch normalisation. Sides are halved
    twice, from 128 pixels on three times, as the article's 256; channels double with each. The
    doublings repeat pixels before 3x3 convolutions (`ops.conv.repeated`).

    Raises:
        FastganError: The size can't be halved so often.
    """

    def __init__(
        self, size: int = 32, inputs: int = 3, outputs: int = 3, width: int = 32, blocks: int = 3
    ) -> None:
        super().__init__()
        self.size, self.inputs, self.outputs = size, inputs, outputs
        self.width, self.blocks = width, blocks
        times = 3 if size >= 128 else 2
        if size % 2**times:
            raise FastganError(
                f"Fourier blocks need images whose side can be halved {times} times, unlike {size} "
                f"pixels: use --size {max(size // 2**times, 1) * 2**times}"
            )
        widths = [width * 2**i for i in range(times + 1)]

        def normed(layer: nn.Module, wide: int) -> list[nn.Module]:
            return [layer.apply(init_weights), nn.BatchNorm2d(wide), nn.ReLU()]

        layers = normed(nn.Conv2d(inputs, width, 5, 1, 2, bias=False), width)
        for outer, inner in itertools.pairwise(widths):
            layers += normed(nn.Conv2d(outer, inner, 4, 2, 1, bias=False), inner)
        layers += [FourierBlock(widths[-1]) for _ in range(blocks)]
        for inner, outer in itertools.pairwise(widths[::-1]):
            layers += normed(nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False), outer)
        last = nn.Conv2d(width, outputs, 5, 1, 2).apply(init_weights)
        self.layers = nn.Sequential(*layers, last, nn.Tanh())
        for layer in [m for m in self.layers if isinstance(m, nn.ConvTranspose2d)]:
            repeated(layer)

    def forward(self, source: Tensor) -> Tensor:
        return self.layers(source)
