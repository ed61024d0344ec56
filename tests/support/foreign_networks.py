"""Other people's networks, written from their descriptions with plain PyTorch: what `accelerate`
meets in the wild."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as spectral_norm_hook


class TutorialGenerator(nn.Module):
    """The DCGAN of the PyTorch tutorial: (B, nz, 1, 1) -> (B, nc, 64, 64)."""

    def __init__(self, nz: int = 100, ngf: int = 64, nc: int = 3) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf * 8, 4, 1, 0, bias=False),
            nn.BatchNorm2d(ngf * 8),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 8, ngf * 4, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ngf * 4),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 4, ngf * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ngf * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ngf),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf, nc, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.main(input)


class TutorialDiscriminator(nn.Module):
    """The tutorial's discriminator, ending in logits: (B, nc, 64, 64) -> (B, 1, 1, 1)."""

    def __init__(self, ndf: int = 64, nc: int = 3) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(nc, ndf, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf, ndf * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ndf * 2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf * 2, ndf * 4, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ndf * 4),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf * 4, ndf * 8, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ndf * 8),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(ndf * 8, 1, 4, 1, 0, bias=False),
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.main(input)


def tutorial_weights_init(m: nn.Module) -> None:
    """The tutorial's own initialiser, which goes by class names."""
    classname = m.__class__.__name__
    if classname.find("Conv") != -1:
        nn.init.normal_(m.weight.data, 0.0, 0.02)
    elif classname.find("BatchNorm") != -1:
        nn.init.normal_(m.weight.data, 1.0, 0.02)
        nn.init.constant_(m.bias.data, 0)


class UnetBlock(nn.Module):
    """pix2pix's block (Isola et al. 2017): x -> [x | up(inner(down(x)))]. The in-place LeakyReLU
    that opens it alters x itself, so the skip holds the activated tensor.
    """

    def __init__(
        self,
        outer,
        inner,
        channels=None,
        inside=None,
        outermost=False,
        norm_layer=nn.BatchNorm2d,
        use_dropout=False,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        norm = norm_layer.func if isinstance(norm_layer, functools.partial) else norm_layer
        bias = norm is nn.InstanceNorm2d
        channels = outer if channels is None else channels
        downconv = nn.Conv2d(channels, inner, 4, 2, 1, bias=bias)
        downrelu, uprelu = nn.LeakyReLU(0.2, True), nn.ReLU(True)
        if outermost:
            layers = [
                downconv,
                inside,
                uprelu,
                nn.ConvTranspose2d(inner * 2, outer, 4, 2, 1),
                nn.Tanh(),
            ]
        elif inside is None:
            layers = [
                downrelu,
                downconv,
                uprelu,
                nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias),
                norm_layer(outer),
            ]
        else:
            layers = [
                downrelu,
                downconv,
                norm_layer(inner),
                inside,
                uprelu,
                nn.ConvTranspose2d(inner * 2, outer, 4, 2, 1, bias=bias),
                norm_layer(outer),
            ]
            if use_dropout:
                layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.outermost:
            return self.model(x)
        return torch.cat([x, self.model(x)], 1)


class Unet(nn.Module):
    """pix2pix's generator: (B, in, S, S) -> (B, out, S, S), S a multiple of 2^downs."""

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        downs: int = 4,
        ngf: int = 64,
        norm_layer=nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        wide = [ngf * min(2**level, 8) for level in range(downs)]
        block = None
        for level in reversed(range(1, downs)):
            dropout = block is not None and level >= 4
            block = UnetBlock(
                wide[level - 1],
                wide[level],
                inside=block,
                norm_layer=norm_layer,
                use_dropout=dropout,
            )
        self.model = UnetBlock(
            out_channels,
            ngf,
            channels=in_channels,
            inside=block,
            outermost=True,
            norm_layer=norm_layer,
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


class PatchGAN(nn.Module):
    """pix2pix's discriminator (70 x 70 patches with n_layers = 3): (B, in, S, S) -> a map of
    logits."""

    def __init__(
        self, in_channels: int = 6, ndf: int = 64, n_layers: int = 3, norm_layer=nn.BatchNorm2d
    ) -> None:
        super().__init__()
        bias = norm_layer is nn.InstanceNorm2d
        layers = [nn.Conv2d(in_channels, ndf, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        wide = 1
        for n in range(1, n_layers + 1):
            before, wide = wide, min(2**n, 8)
            layers += [
                nn.Conv2d(ndf * before, ndf * wide, 4, 2 if n < n_layers else 1, 1, bias=bias),
                norm_layer(ndf * wide),
                nn.LeakyReLU(0.2, True),
            ]
        layers += [nn.Conv2d(ndf * wide, 1, 4, 1, 1)]
        self.model = nn.Sequential(*layers)

    def forward(self, input: Tensor) -> Tensor:
        return self.model(input)


SPECTRAL_NORMS = {
    "parametrization": parametrizations.spectral_norm,
    "hook": spectral_norm_hook,
    "none": lambda module: module,
}


class ResBlockDown(nn.Module):
    """SNGAN's residual block of the discriminator (Miyato et al. 2018, figure 8), activations
    called as functions."""

    def __init__(
        self, sn, in_channels: int, out_channels: int, downsample: bool, first: bool = False
    ) -> None:
        super().__init__()
        self.first, self.downsample = first, downsample
        self.conv1 = sn(nn.Conv2d(in_channels, out_channels, 3, 1, 1))
        self.conv2 = sn(nn.Conv2d(out_channels, out_channels, 3, 1, 1))
        self.shortcut = (
            sn(nn.Conv2d(in_channels, out_channels, 1))
            if downsample or in_channels != out_channels
            else None
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.activation(self.conv1(x if self.first else self.activation(x))))
        skip = x
        if self.first and self.downsample:
            skip = nn.functional.avg_pool2d(skip, 2)
        if self.shortcut is not None:
            skip = self.shortcut(skip)
        if self.downsample:
            h = nn.functional.avg_pool2d(h, 2)
            skip = skip if self.first else nn.functional.avg_pool2d(skip, 2)
        return h + skip


class ResNetDiscriminator(nn.Module):
    """SNGAN's CIFAR discriminator: (B, 3, 32, 32) -> (B, 1) logits. `spectral`: parametrization,
    hook or none."""

    def __init__(
        self, width: int = 128, spectral: str = "parametrization", channels: int = 3
    ) -> None:
        super().__init__()
        sn = SPECTRAL_NORMS[spectral]
        self.block1 = ResBlockDown(sn, channels, width, downsample=True, first=True)
        self.block2 = ResBlockDown(sn, width, width, downsample=True)
        self.block3 = ResBlockDown(sn, width, width, downsample=False)
        self.block4 = ResBlockDown(sn, width, width, downsample=False)
        self.linear = sn(nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.block4(self.block3(self.block2(self.block1(x))))
        return self.linear(nn.functional.relu(h).sum((2, 3)))


class ResBlockUp(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1),
        )
        self.shortcut = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


class ResNetGenerator(nn.Module):
    """SNGAN's CIFAR generator: (B, nz) -> (B, 3, 8 bottom, 8 bottom)."""

    def __init__(self, width: int = 256, nz: int = 128, bottom: int = 4) -> None:
        super().__init__()
        self.width, self.bottom = width, bottom
        self.linear = nn.Linear(nz, width * bottom * bottom)
        self.blocks = nn.ModuleList([ResBlockUp(width, width) for _ in range(3)])
        self.bn = nn.BatchNorm2d(width)
        self.out = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.linear(z).view(-1, self.width, self.bottom, self.bottom)
        for block in self.blocks:
            h = block(h)
        return torch.tanh(self.out(nn.functional.relu(self.bn(h))))
