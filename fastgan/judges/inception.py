"""Inception v3 as FID knows it: the network of 2015-12-05 with 1008 classes, from a file that the
user gives.

Szegedy et al. 2016 (arXiv 1512.00567). TensorFlow's average pools leave the padding out, the last
pool takes the maximum, and images are scaled as TensorFlow 1 did. Module names are those of the
weights file.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan import files
from fastgan.errors import FastganError

NAMES = "pt_inception-2015-12-05-6726825d.pth or weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
LARGEST = 2**28
SIDE, WIDTH, CLASSES = 299, 2048, 1008

Spec = tuple[str, int, int | tuple[int, int], int]
"""(name, output channels, kernel, stride)."""


class Conv(nn.Module):
    """Convolution, batch norm, ReLU; padded to the same size where the stride is 1."""

    def __init__(
        self, before: int, after: int, kernel: int | tuple[int, int], stride: int, pad: bool = True
    ) -> None:
        super().__init__()
        tall, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (tall // 2, wide // 2) if pad and stride == 1 else 0
        self.conv = nn.Conv2d(before, after, (tall, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, each a chain of convolutions whose last ones may be two beside each
    other (`fork` of them), then a pool: "mean" or "max" of stride 1 before a convolution, or
    "halve"."""

    def __init__(self, before: int, branches: list[list[Spec]], pool: str, pooled: int = 0) -> None:
        super().__init__()
        self.chains: list[tuple[list[str], list[str]]] = []
        for branch in branches:
            chain, fork, width = [], [], before
            for name, after, kernel, stride in branch:
                self.add_module(f"branch{name}", Conv(width, after, kernel, stride))
                if name[-1] in "ab":
                    fork.append(f"branch{name}")
                else:
                    chain.append(f"branch{name}")
                    width = after
            self.chains.append((chain, fork))
        self.pool = pool
        if pooled:
            self.branch_pool = Conv(before, pooled, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for chain, fork in self.chains:
            made = x
            for name in chain:
                made = self.get_submodule(name)(made)
            parts += [self.get_submodule(name)(made) for name in fork] or [made]
        if self.pool == "halve":
            parts.append(F.max_pool2d(x, 3, 2))
        elif self.pool == "max":
            parts.append(self.branch_pool(F.max_pool2d(x, 3, 1, 1)))
        else:
            mean = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            parts.append(self.branch_pool(mean))
        return torch.cat(parts, 1)


def _a(before: int, pooled: int) -> Mixed:
    five: list[Spec] = [("5x5_1", 48, 1, 1), ("5x5_2", 64, 5, 1)]
    double: list[Spec] = [("3x3dbl_1", 64, 1, 1), ("3x3dbl_2", 96, 3, 1), ("3x3dbl_3", 96, 3, 1)]
    return Mixed(before, [[("1x1", 64, 1, 1)], five, double], "mean", pooled)


def _b(before: int) -> Mixed:
    double: list[Spec] = [("3x3dbl_1", 64, 1, 1), ("3x3dbl_2", 96, 3, 1), ("3x3dbl_3", 96, 3, 2)]
    return Mixed(before, [[("3x3", 384, 3, 2)], double], "halve")


def _c(before: int, c: int) -> Mixed:
    row, column = (1, 7), (7, 1)
    seven: list[Spec] = [("7x7_1", c, 1, 1), ("7x7_2", c, row, 1), ("7x7_3", 192, column, 1)]
    double: list[Spec] = [("7x7dbl_1", c, 1, 1), ("7x7dbl_2", c, column, 1)]
    double += [("7x7dbl_3", c, row, 1), ("7x7dbl_4", c, column, 1), ("7x7dbl_5", 192, row, 1)]
    return Mixed(before, [[("1x1", 192, 1, 1)], seven, double], "mean", 192)


def _d(before: int) -> Mixed:
    seven: list[Spec] = [("7x7x3_1", 192, 1, 1), ("7x7x3_2", 192, (1, 7), 1)]
    seven += [("7x7x3_3", 192, (7, 1), 1), ("7x7x3_4", 192, 3, 2)]
    return Mixed(before, [[("3x3_1", 192, 1, 1), ("3x3_2", 320, 3, 2)], seven], "halve")


def _e(before: int, pool: str) -> Mixed:
    row, column = (1, 3), (3, 1)
    three: list[Spec] = [("3x3_1", 384, 1, 1), ("3x3_2a", 384, row, 1), ("3x3_2b", 384, column, 1)]
    double: list[Spec] = [("3x3dbl_1", 448, 1, 1), ("3x3dbl_2", 384, 3, 1)]
    double += [("3x3dbl_3a", 384, row, 1), ("3x3dbl_3b", 384, column, 1)]
    return Mixed(before, [[("1x1", 320, 1, 1)], three, double], pool, 192)


class InceptionV3(nn.Module):
    """uint8 (n, 3, H, W) -> features (n, 2048) and class logits (n, 1008) without their bias, which
    FID and KID, and IS, are computed from."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, 1, pad=False)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, 1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, 1, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c = _c(768, 128), _c(768, 160)
        self.Mixed_6d, self.Mixed_6e = _c(768, 160), _c(768, 192)
        self.Mixed_7a = _d(768)
        self.Mixed_7b, self.Mixed_7c = _e(1280, "mean"), _e(2048, "max")
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = (resize(images.float()) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        features = x.mean((2, 3))
        return features, features @ self.fc.weight.T


def resize(images: Tensor, side: int = SIDE) -> Tensor:
    """(n, C, side, side) of float (n, C, H, W): bilinear as TensorFlow 1 did it, whose first pixels
    lie upon each other; no antialiasing."""
    for _ in range(2):
        count = images.shape[2]
        at = torch.arange(side, device=images.device) * (count / side)
        low = at.long().clamp_max(count - 1)
        part = (at - low).to(images.dtype)[:, None]
        high = (low + 1).clamp_max(count - 1)
        images = images[:, :, low] * (1 - part) + images[:, :, high] * part
        images = images.transpose(2, 3)
    return images


def load(path: Path) -> InceptionV3:
    """The network in eval mode, without gradients, with the weights of the known file. Raises
    FastganError for any other file."""
    if files.kind(path) != "file":
        raise FastganError(
            f"no file at {path}: --fid takes the standard Inception weights, {NAMES}, which "
            "fastgan does not download"
        )
    with files.explained(f"can't read {path}"):
        data = files.read(path, LARGEST, follow=True)
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise FastganError(
            f"{path} is not the standard file {NAMES} (SHA-256 {SHA256[:8]}...): other weights "
            "give other numbers than FID"
        )
    net = InceptionV3()
    net.load_state_dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    return net.eval().requires_grad_(False)


@torch.inference_mode()
def look(net: InceptionV3, images: Tensor, batch: int = 50) -> tuple[Tensor, Tensor]:
    """(features (n, 2048), logits (n, 1008)) on the CPU, of images uint8 (n, 1 or 3, H, W); grey
    ones have three equal channels. In float32, whatever the GPU would rather use."""
    device, found = net.fc.weight.device, []
    with torch.backends.cudnn.flags(allow_tf32=False):
        for part in images.split(batch):
            features, logits = net(part.to(device).expand(-1, 3, -1, -1))
            found.append((features.cpu(), logits.cpu()))
    features, logits = (torch.cat(parts) for parts in zip(*found))
    return features, logits
