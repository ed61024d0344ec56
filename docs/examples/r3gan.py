"""R3GAN's objective (Huang et al. 2024, arXiv 2501.05441).

The loss is relativistic: it compares each real with a fake. R1 on reals and R2 on fakes are
computed at every step.
"""

import torch
from torch import nn

import fastgan
from fastgan.objectives import LOSSES, Cosine, zero_centred_penalty


class R3Gan(fastgan.Objective):
    noise = {"z": fastgan.Noise((64, 1, 1))}

    def phases(self):
        return [fastgan.Phase("D", ("D",), self.d_loss), fastgan.Phase("G", ("G",), self.g_loss)]

    def schedule(self, step):
        return {"gamma": Cosine(2.0, 0.2, 10_000)(step)}

    def generate(self, step):
        return step.nets.G(step.noise.z)

    def d_loss(self, step):
        real, fake = step.batch["image"], step.fake
        half_gamma = 0.5 * step.scalar.gamma
        return {
            "adv": LOSSES["relativistic"].d(*step.pair("D", real, fake)),
            "r1": half_gamma * zero_centred_penalty(step.nets.D, real),
            "r2": half_gamma * zero_centred_penalty(step.nets.D, fake),
        }

    def g_loss(self, step):
        return {"adv": LOSSES["relativistic"].g(*step.pair("D", step.batch["image"], step.fake))}


def make_trainer(data="fashion-mnist", size=28, width=32, **options):
    G = nn.Sequential(
        nn.ConvTranspose2d(64, 2 * width, size // 4),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(width, 1, 4, 2, 1),
        nn.Tanh(),
    )
    D = nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, size // 4),
    )
    adam = lambda p: torch.optim.Adam(p, lr=2e-4, betas=(0.0, 0.99))
    return fastgan.Trainer(
        G, D, objective=R3Gan(), data=data, size=size, optimizers=adam, **options
    )


if __name__ == "__main__":
    make_trainer(out="runs/r3gan").fit(3000)
