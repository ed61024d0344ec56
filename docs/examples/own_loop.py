"""Your own training loop on fastgan's parts.

Streams of images need no DataLoader, their order follows from (seed, position), and losses take
logits.
"""

import torch
from torch import nn

import fastgan
from fastgan.data import Stream
from fastgan.objectives import LOSSES


def main(data="fashion-mnist", steps=200, batch_size=64, width=64):
    dataset = fastgan.data.open(data)
    stream = Stream(dataset, name="image", seed=0, batch_size=batch_size, device="cpu")
    pixels = dataset.fields["image"].shape[0] * dataset.fields["image"].shape[1]
    G = nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, pixels), nn.Tanh())
    D = nn.Sequential(nn.Linear(pixels, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))
    adam_g, adam_d = torch.optim.Adam(G.parameters(), 2e-4), torch.optim.Adam(D.parameters(), 2e-4)
    hinge = LOSSES["hinge"]
    for step in range(steps):
        real, fake = (
            stream.batch(step * batch_size)["image"].flatten(1),
            G(torch.randn(batch_size, 32)),
        )
        adam_d.zero_grad()
        hinge.d(D(real), D(fake.detach())).backward()
        adam_d.step()
        adam_g.zero_grad()
        hinge.g(None, D(fake)).backward()
        adam_g.step()
    return G


if __name__ == "__main__":
    main()
