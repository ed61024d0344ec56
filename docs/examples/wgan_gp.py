"""WGAN-GP (Gulrajani et al. 2017), written out.

A critic with a gradient penalty, whose epsilon is drawn for each sample, takes five steps for one
of the generator.
"""

import torch
from torch import nn

import fastgan
from fastgan.objectives import gradient_penalty


class WganGp(fastgan.Objective):
    noise = {"z": fastgan.Noise((64,))}

    def phases(self):
        return [
            fastgan.Phase("D", ("D",), self.critic, repeat=5),
            fastgan.Phase("G", ("G",), self.generator),
        ]

    def generate(self, step):
        return step.nets.G(step.noise.z)

    def critic(self, step):
        real, fake = step.batch["image"], step.fake
        on_real, on_fake = step.pair("D", real, fake)
        penalty = gradient_penalty(step.nets.D, real, fake, step.rand("epsilon", (1, 1, 1)))
        return {"adv": on_fake.mean() - on_real.mean(), "gp": 10 * penalty}

    def generator(self, step):
        return {"adv": -step.nets.D(step.fake).mean()}


def make_trainer(data="fashion-mnist", size=28, width=128, **options):
    pixels = size * size
    G = nn.Sequential(
        nn.Linear(64, width),
        nn.ReLU(),
        nn.Linear(width, pixels),
        nn.Tanh(),
        nn.Unflatten(1, (1, size, size)),
    )
    D = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, width), nn.LeakyReLU(0.2), nn.Linear(width, 1)
    )
    return fastgan.Trainer(
        G,
        D,
        objective=WganGp(),
        data=data,
        size=size,
        optimizers=lambda p: torch.optim.Adam(p, lr=1e-4, betas=(0.0, 0.9)),
        **options,
    )


if __name__ == "__main__":
    make_trainer(out="runs/wgan-gp").fit(2000)
