"""Simulated images that come to look real and keep their labels (Shrivastava et al. 2017, SimGAN).

The refiner sees simulated clothes, flat outlines here. A discriminator of patches sees reals and
refined images of now and before; an L1 term keeps the refined near the simulated, so that their
labels stay true. At the end a classifier that was fitted to refined images is tested on reals.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import fastgan
from fastgan.data import Aligned
from fastgan.models.pool import ImagePool
from fastgan.objectives import LOSSES


class Refining(fastgan.Objective):
    def __init__(self, size=28, keep=5.0, history=200):
        self.size, self.keep, self.history = size, keep, history

    def own_nets(self):
        return {"pool": ImagePool(self.history, 1, self.size, self.size)}

    def phases(self):
        return [
            fastgan.Phase("D", ("D",), self.d_loss),
            fastgan.Phase("G", ("G",), self.g_loss, fresh=False),
        ]

    def generate(self, step):
        return step.nets.G(step.batch["source"])

    def d_loss(self, step):
        seen = step.nets.pool(step.fake, step.rand("pool"))
        return {"adv": LOSSES["non-saturating"].d(*step.pair("D", step.batch["image"], seen))}

    def g_loss(self, step):
        adversarial = LOSSES["non-saturating"].g(None, step.nets.D(step.fake))
        return {"adv": adversarial, "same": self.keep * F.l1_loss(step.fake, step.batch["source"])}


class Refiner(nn.Module):
    """Begins as the identity: a correction is added before the tanh."""

    def __init__(self, width=24):
        super().__init__()
        self.width = width
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 5, padding=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, padding=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, x):
        return torch.tanh(self.body(x) + torch.atanh(x.clamp(-0.95, 0.95)))


def simulated(images, shade=120):
    """Flat outlines: what is brighter than a fifth is one grey."""
    return np.where(images > 50, shade, 0).astype(np.uint8)


def make_trainer(reals, sources, size=28, width=24, **options):
    D = nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 3, 1, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 1),
    )
    data = Aligned(image=reals, source=sources)
    return fastgan.Trainer(Refiner(width), D, objective=Refining(size), data=data, **options)


def accuracy(images, labels, reals, answers, steps=600):
    """A linear classifier of (images, labels), tested on reals, all in [0, 1]."""
    torch.manual_seed(0)
    net = nn.Linear(images[0].numel(), 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        some = torch.randint(len(images), (200,))
        loss = F.cross_entropy(net(images[some].flatten(1)), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float((net(reals.flatten(1)).argmax(1) == answers).float().mean())


if __name__ == "__main__":
    torch.manual_seed(0)
    clothes = fastgan.data.open("fashion-mnist")
    images, labels = clothes.array("image"), torch.from_numpy(clothes.array("label").copy())
    flat = simulated(images[:4000])  # simulated: these, with labels; real: the next, without
    trainer = make_trainer(images[4000:8000], flat, out="runs/simgan", batch_size=32, seed=0)
    trainer.fit(1500)
    G = trainer.ema["G"]  # the averaged refiner

    def floats(array):
        return torch.from_numpy(array.copy()).permute(0, 3, 1, 2).float() / 255

    with torch.no_grad():
        refined = (G(floats(flat) * 2 - 1) + 1) / 2
    reals, answers = floats(images[8000:]), labels[8000:]
    for name, some in (("simulated", floats(flat)), ("refined", refined)):
        share = accuracy(some, labels[:4000], reals, answers)
        print(f"fitted to {name}, tested on reals: {share:.1%}")
