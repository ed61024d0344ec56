"""Image to image (Isola et al. 2017).

The generator sees a source image and the discriminator sees the pair. An L1 term keeps the result
close to the target.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import fastgan
from fastgan.data import Aligned
from fastgan.objectives import LOSSES


class Pix2Pix(fastgan.Objective):
    def phases(self):
        return [
            fastgan.Phase("D", ("D",), self.d_loss),
            fastgan.Phase("G", ("G",), self.g_loss, fresh=False),
        ]

    def generate(self, step):
        return step.nets.G(step.batch["source"])

    def judge(self, step, images):
        return step.nets.D(torch.cat([step.batch["source"], images], 1))

    def d_loss(self, step):
        real, fake = self.judge(step, step.batch["image"]), self.judge(step, step.fake)
        return {"adv": 0.5 * LOSSES["non-saturating"].d(real, fake, step)}

    def g_loss(self, step):
        adversarial = LOSSES["non-saturating"].g(None, self.judge(step, step.fake))
        return {"adv": adversarial, "l1": 100 * F.l1_loss(step.fake, step.batch["image"])}


class UNet(nn.Module):
    def __init__(self, channels=1, width=16):
        super().__init__()
        self.channels, self.width = channels, width
        self.down1 = nn.Sequential(nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2))
        self.down2 = nn.Sequential(
            nn.Conv2d(width, 2 * width, 4, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU()
        )
        self.up2 = nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.BatchNorm2d(width),
            nn.Dropout(0.5),
            nn.ReLU(),
        )
        self.up1 = nn.Sequential(nn.ConvTranspose2d(2 * width, channels, 4, 2, 1), nn.Tanh())

    def forward(self, source):
        shallow = self.down1(source)
        return self.up1(torch.cat([shallow, self.up2(self.down2(shallow))], 1))


def make_trainer(targets, sources, size=None, width=16, **options):
    D = nn.Sequential(nn.Conv2d(2, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 4, 1, 1))
    data = Aligned(image=targets, source=sources)
    return fastgan.Trainer(UNet(1, width), D, objective=Pix2Pix(), data=data, size=size, **options)


if __name__ == "__main__":
    clothes = fastgan.data.open("fashion-mnist").array("image")
    outlines = (
        np.abs(np.diff(clothes.astype(np.int16), axis=2, append=0)).clip(0, 255).astype(np.uint8)
    )
    make_trainer(clothes, outlines, out="runs/pix2pix", batch_size=16).fit(3000)
