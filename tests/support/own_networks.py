"""Networks as users write them, in a module of their own."""

import torch
from torch import nn


class Kept(nn.Module):
    """Keeps its constructor arguments as attributes."""

    def __init__(self, latent, width=4, slope=0.2, act=None):
        super().__init__()
        self.latent, self.width, self.slope, self.act = latent, width, slope, act
        self.net = nn.Sequential(
            nn.ConvTranspose2d(latent, width, 4),
            nn.LeakyReLU(slope),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),
            act or nn.Tanh(),
        )

    def forward(self, z):
        return self.net(z)


class Lost(nn.Module):
    """Keeps no attribute for `width`."""

    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(4, width, 4), nn.ConvTranspose2d(width, 1, 4, 2, 1), nn.Tanh()
        )

    def forward(self, z):
        return self.net(z)


class Renamed(Lost):
    """Keeps `gain` under another name: made again from its default it would have the same weights
    and other pictures."""

    def __init__(self, gain=1.0):
        super().__init__(4)
        self.factor = gain

    def forward(self, z):
        return torch.tanh(self.factor * self.net(z))


class Deep(Lost):
    """Hides its argument in a layer."""

    def __init__(self, slope=0.2):
        super().__init__(4)
        self.net.insert(1, nn.LeakyReLU(slope))


def critic():
    return nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4), nn.Flatten()
    )


def build(size, channels, latent):
    """What `--model own_networks:build` calls."""
    assert (size, channels) == (8, 1)
    return Kept(latent), critic()


def build_named():
    return {"G": Kept(4), "D": critic()}


def build_wrongly(size):
    raise ValueError(f"no network\nfor {size}")


def build_nothing():
    return None


class Prepared(nn.Module):
    """Computes its first weights by what is left out of initialisers elsewhere."""

    def __init__(self):
        super().__init__()
        first = torch.linalg.qr(torch.randn(3, 4, 4), mode="complete").Q[0]
        self.weight = nn.Parameter(first)
        with torch.no_grad():
            self.unit = nn.functional.normalize(self.weight)
        self.register_buffer("product", torch.mv(self.weight.detach(), torch.ones(4)))
        self.norm = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        nn.init.orthogonal_(self.norm.parametrizations.weight.original)


class Measured(nn.Module):
    """Computes with gradients by what is left out of networks without memory."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.norm = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        unit = nn.functional.normalize(self.weight)
        (unit.square().sum() + self.norm.weight.sum()).backward()
        self.live = unit.requires_grad and self.norm.weight.requires_grad
        whole = torch.empty(3, 4)
        nn.functional.normalize(self.weight.detach(), out=whole)
        self.register_buffer("unit", whole)
