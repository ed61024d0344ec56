"""InfoGAN (Chen et al. 2016).

A class code and two continuous codes go into the generator, and a third network, Q, must find them
again in the images.
"""

import torch
from torch import nn
from torch.nn import functional as F

import fastgan
from fastgan.objectives import LOSSES

CLASSES = 10


class InfoGan(fastgan.Objective):
    noise = {
        "z": fastgan.Noise((62,)),
        "kind": fastgan.Noise((), "categorical", classes=CLASSES),
        "style": fastgan.Noise((2,), "uniform"),
    }

    def phases(self):
        return [
            fastgan.Phase("D", ("D",), self.d_loss),
            fastgan.Phase("G", ("G", "Q"), self.g_loss, fresh=False),
        ]

    def generate(self, step):
        one_hot = (
            step.noise.kind[:, None] == torch.arange(CLASSES, device=step.noise.kind.device)
        ).float()
        return step.nets.G(torch.cat([step.noise.z, one_hot, step.noise.style], 1))

    def d_loss(self, step):
        return {"adv": LOSSES["non-saturating"].d(*step.pair("D", step.batch["image"], step.fake))}

    def g_loss(self, step):
        kind, style = step.nets.Q(step.fake).split([CLASSES, 2], 1)
        return {
            "adv": LOSSES["non-saturating"].g(None, step.nets.D(step.fake)),
            "class": F.cross_entropy(kind, step.noise.kind),
            "style": 0.1 * F.mse_loss(style, step.noise.style),
        }


def make_trainer(data="fashion-mnist", size=28, width=128, **options):
    pixels = size * size
    G = nn.Sequential(
        nn.Linear(62 + CLASSES + 2, width),
        nn.ReLU(),
        nn.Linear(width, pixels),
        nn.Tanh(),
        nn.Unflatten(1, (1, size, size)),
    )
    D = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, width), nn.LeakyReLU(0.1), nn.Linear(width, 1)
    )
    Q = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, width), nn.LeakyReLU(0.1), nn.Linear(width, CLASSES + 2)
    )
    return fastgan.Trainer(
        nets={"G": G, "D": D, "Q": Q}, objective=InfoGan(), data=data, size=size, **options
    )


if __name__ == "__main__":
    make_trainer(out="runs/infogan").fit(5000)
