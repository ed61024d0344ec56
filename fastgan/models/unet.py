"""pix2pix's U-Net and PatchGAN (Isola et al. 2017, arXiv 1611.07004, section 6.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastgan.errors import FastganError
from fastgan.models.dcgan import init_weights, one_hot
from fastgan.ops.conv.repeated import repeated

LEVELS = 7
"""Most halvings of a U-Net."""


def halvings(size: int) -> int:
    """How often a side of `size` pixels can be halved. Raises FastganError below 2."""
    count = 0
    while size > 1 and size % 2 == 0:
        size, count = size // 2, count + 1
    if count < 2:
        raise FastganError(
            f"a U-Net halves its images at least twice, which {size * 2**count} pixels do not "
            "allow: use --size 32 or another multiple of 4"
        )
    return count


class UNet(nn.Module):
    """(B, inputs, size, size) -> (B, outputs, size, size) in [-1, 1].

    Encoder 4x4/2 convolutions down to a single pixel or an odd side, LEVELS at most, decoder with
    skip connections, dropout in its first three levels. Widths double inwards up to 8 * width.

    repeat: the decoder repeats pixels before 3x3 convolutions (`ops.conv.repeated`); False: 4x4
        kernels of their own, as in the article, which leave a grid.
    """

    def __init__(
        self,
        size: int = 32,
        inputs: int = 3,
        outputs: int = 3,
        width: int = 32,
        dropout: float = 0.5,
        repeat: bool = True,
    ) -> None:
        super().__init__()
        self.size, self.inputs, self.outputs, self.width = size, inputs, outputs, width
        self.dropout, self.repeat = dropout, repeat
        levels = min(halvings(size), LEVELS)
        widths = [width * min(2**i, 8) for i in range(levels)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, wide in enumerate(widths):
            inner = 0 < i < levels - 1  # no norm on pixels, nor on a single pixel
            self.down.append(
                nn.Sequential(
                    nn.Conv2d(inputs if i == 0 else widths[i - 1], wide, 4, 2, 1, bias=not inner),
                    *([nn.BatchNorm2d(wide)] if inner else []),
                    nn.LeakyReLU(0.2),
                )
            )
        for i in reversed(range(1, levels)):
            given = widths[i] * (1 if i == levels - 1 else 2)
            layers = [
                nn.ConvTranspose2d(given, widths[i - 1], 4, 2, 1, bias=False),
                nn.BatchNorm2d(widths[i - 1]),
            ]
            early = i >= levels - 3 and dropout > 0
            self.up.append(
                nn.Sequential(*layers, *([nn.Dropout(dropout)] if early else []), nn.ReLU())
            )
        self.last = nn.Sequential(nn.ConvTranspose2d(2 * width, outputs, 4, 2, 1), nn.Tanh())
        self.apply(init_weights)
        if repeat:
            for layer in [m for m in self.modules() if isinstance(m, nn.ConvTranspose2d)]:
                repeated(layer)

    def forward(self, source: Tensor) -> Tensor:
        skips = []
        h = source
        for layer in self.down:
            h = layer(h)
            skips.append(h)
        skips.pop()
        for layer in self.up:
            h = torch.cat([layer(h), skips.pop()], 1)
        return self.last(h)


class PatchDiscriminator(nn.Module):
    """(images (B, channels, H, W)[, source (B, given, H, W) or label (B,)]) -> logits (B, outputs,
    h, w), for each overlapping patch.

    given: channels of the source, or the number of classes where a label is given: both are put
        beside the image. layers: 4x4/2 convolutions before the two of stride 1. norm: batch
        normalisation from the second layer on. spectral: spectral norm of every layer.
    """

    def __init__(
        self,
        channels: int = 3,
        given: int = 0,
        width: int = 32,
        layers: int = 2,
        norm: bool = True,
        spectral: bool = False,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.channels, self.given, self.width, self.outputs = channels, given, width, outputs
        self.layers, self.norm, self.spectral = layers, norm, spectral
        widths = [channels + given, *(width * min(2**i, 8) for i in range(layers + 1))]
        self.blocks = nn.ModuleList()
        for i in range(layers + 1):
            normed = norm and i > 0
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(
                        widths[i], widths[i + 1], 4, 2 if i < layers else 1, 1, bias=not normed
                    ),
                    *([nn.BatchNorm2d(widths[i + 1])] if normed else []),
                    nn.LeakyReLU(0.2),
                )
            )
        self.last = nn.Conv2d(widths[-1], outputs, 4, 1, 1)
        self.apply(init_weights)
        if spectral:
            for layer in [m for m in self.modules() if isinstance(m, nn.Conv2d)]:
                torch.nn.utils.parametrizations.spectral_norm(layer)

    def features(self, images: Tensor, *given: Tensor) -> list[Tensor]:
        """The maps of all layers, the logits last."""
        h = images
        for value in given:
            if value.dim() == 1:
                value = one_hot(value, self.given, images).expand(-1, -1, *images.shape[2:])
            h = torch.cat([h, value.to(h.dtype)], 1)
        found = []
        for block in self.blocks:
            h = block(h)
            found.append(h)
        return [*found, self.last(h)]

    def forward(self, images: Tensor, *given: Tensor) -> Tensor:
        return self.features(images, *given)[-1]
