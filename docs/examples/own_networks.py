"""Your own networks on your own images: a Trainer, a loss by name, two optimisers.

Run: python own_networks.py [folder] [steps]
"""

import sys

import torch
from torch import nn

import fastgan


def generator(latent=100, width=32, channels=1):
    return nn.Sequential(
        nn.ConvTranspose2d(latent, 2 * width, 7, 1, 0, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, channels, 4, 2, 1),
        nn.Tanh(),
    )


def discriminator(width=32, channels=1):
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 7),
    )


def make_trainer(data="fashion-mnist", width=32, **options):
    return fastgan.Trainer(
        generator=generator(width=width),
        discriminator=discriminator(width=width),
        data=data,
        size=28,
        latent_shape=(100, 1, 1),
        loss="hinge",
        optimizers={
            "G": lambda p: torch.optim.Adam(p, lr=1e-4, betas=(0.0, 0.9)),
            "D": lambda p: torch.optim.Adam(p, lr=4e-4, betas=(0.0, 0.9)),
        },
        **options,
    )


if __name__ == "__main__":
    folder, steps = (sys.argv[1:] + ["fashion-mnist", "2000"][len(sys.argv) - 1 :])[:2]
    trainer = make_trainer(folder, out="runs/own", batch_size=64, seed=0)
    trainer.fit(steps=int(steps))
    images = trainer.sample(64)  # float NCHW in [0, 1]
    G = fastgan.load("runs/own")  # the averaged generator, ready to call
    print(tuple(images.shape), tuple(G(torch.randn(4, 100, 1, 1)).shape))
