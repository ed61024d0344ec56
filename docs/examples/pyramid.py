"""A two-stage Laplacian pyramid (Denton et al. 2015).

The first stage makes small images. The second has a generator of the detail that makes them large.
"""

import torch
from torch import nn
from torch.nn import functional as F

import fastgan
from fastgan.objectives import LOSSES


def up(images):
    return F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)


class Detail(fastgan.Objective):
    """Stage two: "G1" adds detail to an enlarged small image; "D1" judges both together."""

    noise = {"z": fastgan.Noise((16,)), "grain": fastgan.Noise((1, 16, 16), "uniform")}

    def phases(self):
        return [
            fastgan.Phase("D1", ("D1",), self.d_loss),
            fastgan.Phase("G1", ("G1",), self.g_loss, fresh=False),
        ]

    def coarse(self, step):
        return up(F.avg_pool2d(step.batch["image"], 2))

    def generate(self, step):
        return step.nets.G1(torch.cat([self.coarse(step), step.noise.grain], 1))

    def sample(self, step):
        small = up(step.nets.G(step.noise.z))
        return small + step.nets.G1(torch.cat([small, step.noise.grain], 1))

    def d_loss(self, step):
        coarse = self.coarse(step)
        real, fake = step.pair(
            "D1",
            torch.cat([step.batch["image"] - coarse, coarse], 1),
            torch.cat([step.fake, coarse], 1),
        )
        return {"adv": LOSSES["non-saturating"].d(real, fake)}

    def g_loss(self, step):
        return {
            "adv": LOSSES["non-saturating"].g(
                None, step.nets.D1(torch.cat([step.fake, self.coarse(step)], 1))
            )
        }


def make_trainer(data="fashion-mnist", steps=1000, width=64, **options):
    G = nn.Sequential(
        nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))
    )
    D = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))
    G1 = nn.Sequential(nn.Conv2d(2, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, 1, 3, 1, 1))
    D1 = nn.Sequential(
        nn.Conv2d(2, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 4, 2, 1)
    )
    stages = [
        fastgan.Stage(
            {"G": G, "D": D}, fastgan.Adversarial(latent_shape=(16,)), steps=steps, size=8
        ),
        fastgan.Stage({"G": G, "G1": G1, "D1": D1}, Detail(), size=16, ema=("G", "G1")),
    ]
    return fastgan.Trainer(stages=stages, data=data, **options)


if __name__ == "__main__":
    make_trainer(out="runs/pyramid").fit(3000)
