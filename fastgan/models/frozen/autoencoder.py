"""A small convolutional autoencoder whose maps have zero mean and unit variance, and the networks
of a GAN on such maps; two stages as in latent diffusion (Rombach et al. 2022, arXiv 2112.10752)."""

from __future__ import annotations

import itertools

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from fastgan.errors import FastganError

LARGEST, HALVINGS = 16, 3
"""The largest side of a map, and how often an image is halved on its way there at most."""


def plan(size: int) -> tuple[int, int]:
    """(side of a map, halvings) for images of `size` pixels: halved down to 8 or less, three times
    at most. Raises FastganError for other sizes, naming the nearest."""

    def halved(side: int) -> tuple[int, int]:
        levels = 0
        while side > 8 and side % 2 == 0 and levels < HALVINGS:
            side, levels = side // 2, levels + 1
        return side, levels

    def fits(size: int) -> bool:
        side, levels = halved(size)
        return levels > 0 and side <= LARGEST

    if not fits(size):
        fitting = [s for s in range(10, LARGEST * 2**HALVINGS + 1) if fits(s)]
        near = sorted(sorted(fitting, key=lambda s: abs(s - size))[:2])
        raise FastganError(
            f"can't make maps of {size}x{size} images: use --size {near[0]} or {near[1]}"
        )
    return halved(size)


def widths(size: int, width: int) -> list[int]:
    """Channels after each halving: `width`, then twice as many."""
    return [width * min(2**i, 2) for i in range(plan(size)[1])]


def init_weights(module: nn.Module) -> None:
    """He et al. 2015, for the leaky ReLU that follows; biases 0."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, 0.2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Residual(nn.Module):
    """(B, channels, H, W) -> the same shape: what two 3x3 convolutions add, nothing at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.LeakyReLU(0.2)
        self.apply(init_weights)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.second(self.act(self.first(x))))


class Encoder(nn.Sequential):
    """Images (B, channels, size, size) in [-1, 1] -> maps (B, maps, s, s), s as `plan` says.

    The last layer is batch normalisation without weights: maps have zero mean and unit variance in
    each channel, and what brings them there, running_mean and running_var, lies in the checkpoint.
    """

    def __init__(self, size: int = 32, channels: int = 3, maps: int = 8, width: int = 32) -> None:
        wide = [channels, *widths(size, width)]
        layers: list[nn.Module] = []
        for outer, inner in itertools.pairwise(wide):
            layers += [nn.Conv2d(outer, inner, 4, 2, 1), nn.LeakyReLU(0.2)]
        layers += [Residual(wide[-1]), nn.Conv2d(wide[-1], maps, 1)]
        layers += [nn.BatchNorm2d(maps, affine=False)]
        super().__init__(*layers)
        self.size, self.channels, self.maps, self.width = size, channels, maps, width
        self.apply(init_weights)


class Decoder(nn.Sequential):
    """Maps (B, maps, s, s) -> images (B, channels, size, size) in [-1, 1]."""

    def __init__(self, size: int = 32, channels: int = 3, maps: int = 8, width: int = 32) -> None:
        wide = widths(size, width)[::-1]
        layers: list[nn.Module] = [nn.Conv2d(maps, wide[0], 3, padding=1), nn.LeakyReLU(0.2)]
        layers += [Residual(wide[0]), Residual(wide[0])]
        for inner, outer in itertools.pairwise(wide):
            layers += [nn.ConvTranspose2d(inner, outer, 4, 2, 1), nn.LeakyReLU(0.2)]
        layers += [nn.ConvTranspose2d(wide[-1], channels, 4, 2, 1), nn.Tanh()]
        super().__init__(*layers)
        self.size, self.channels, self.maps, self.width = size, channels, maps, width
        for layer in layers:
            init_weights(layer)


class FrozenEncoder(Encoder):
    """`Encoder`, in eval mode and without gradients for ever."""

    def __init__(self, size: int = 32, channels: int = 3, maps: int = 8, width: int = 32) -> None:
        super().__init__(size, channels, maps, width)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenEncoder:
        super().train(False)
        return self


class Generator(nn.Module):
    """z (B, latent) -> images (B, channels, size, size) in [-1, 1]: `body` makes maps of it, the
    frozen `decoder` images of these.

    width: channels of the decoder's outermost layer. base: channels of the body's largest map;
    those of the smaller one are twice as many.
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        maps: int = 8,
        width: int = 32,
        latent: int = 64,
        base: int = 64,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.maps, self.width = size, channels, maps, width
        self.latent, self.base = latent, base
        side, wide = plan(size)[0], [base]
        while side > 5 and side % 2 == 0:
            side, wide = side // 2, [min(2 * wide[0], 4 * base), *wide]
        layers: list[nn.Module] = [
            nn.Linear(latent, wide[0] * side**2, bias=False),
            nn.Unflatten(1, (wide[0], side, side)),
            nn.BatchNorm2d(wide[0]),
            nn.ReLU(True),
        ]
        for inner, outer in itertools.pairwise(wide):
            layers += [nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(outer), nn.ReLU(True)]
        layers += [nn.Conv2d(base, base, 3, padding=1, bias=False), nn.BatchNorm2d(base)]
        layers += [nn.ReLU(True), nn.Conv2d(base, maps, 3, padding=1)]
        self.body = nn.Sequential(*layers)
        self.decoder = Decoder(size, channels, maps, width).requires_grad_(False).eval()

    def make_maps(self, z: Tensor) -> Tensor:
        """z (B, latent) -> maps (B, maps, s, s), unbounded."""
        return self.body(z)

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(self.body(z))

    def train(self, mode: bool = True) -> Generator:
        super().train(mode)
        self.decoder.eval()
        return self


class MapDiscriminator(nn.Sequential):
    """Maps (B, maps, s, s) of images of `size` pixels -> logits (B, 1); spectral norm in every
    layer. base: channels of the first one."""

    def __init__(self, size: int = 32, maps: int = 8, base: int = 64) -> None:
        side, wide = plan(size)[0], base
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(maps, base, 3, padding=1))]
        layers += [nn.LeakyReLU(0.2)]
        while side > 5:
            layers += [spectral_norm(nn.Conv2d(wide, min(2 * wide, 4 * base), 4, 2, 1))]
            layers += [nn.LeakyReLU(0.2)]
            side, wide = side // 2, min(2 * wide, 4 * base)
        layers += [spectral_norm(nn.Conv2d(wide, wide, 3, padding=1)), nn.LeakyReLU(0.2)]
        layers += [nn.Flatten(), spectral_norm(nn.Linear(wide * side**2, 1))]
        super().__init__(*layers)
        self.size, self.maps, self.base = size, maps, base
