"""Small changes that a classifier falls for, made by a generator (Xiao et al. 2018, AdvGAN).

A tool to find the weaknesses of a classifier of your own, and to make images to train it with. The
generator sees an image and adds a change of at most `BOUND`; a discriminator keeps the result
plausible, a hinge keeps the change small, and the frozen classifier's margin is what is attacked.
"""

import torch
from torch import nn
from torch.nn import functional as F

import fastgan
from fastgan.objectives import LOSSES

BOUND = 0.3  # of [-1, 1]


class Attack(fastgan.Objective):
    def __init__(self, classifier, hinge=0.1):
        self.classifier, self.hinge = classifier, hinge

    def own_nets(self):
        return {"C": self.classifier}  # in no phase: it is not trained

    def phases(self):
        return [
            fastgan.Phase("D", ("D",), self.d_loss),
            fastgan.Phase("G", ("G",), self.g_loss, fresh=False),
        ]

    def generate(self, step):
        return changed(step.nets.G, step.batch["image"])

    def d_loss(self, step):
        return {"adv": LOSSES["non-saturating"].d(*step.pair("D", step.batch["image"], step.fake))}

    def g_loss(self, step):
        logits, label = step.nets.C(step.fake), step.batch["label"]
        true = logits.gather(1, label[:, None])[:, 0]
        best = logits.scatter(1, label[:, None], -1e4).amax(1)  # of the wrong classes
        size = (step.fake - step.batch["image"]).flatten(1).norm(dim=1)
        return {
            "adv": LOSSES["non-saturating"].g(None, step.nets.D(step.fake)),
            "margin": 20 * F.relu(true - best + 0.5).mean(),
            "size": self.hinge * F.relu(size - 3.0).mean(),
        }


def changed(G, images):
    return (images + BOUND * G(images)).clamp(-1, 1)


def classifier(width=16):
    return nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(10),
    )


def make_trainer(data, target, width=16, **options):
    G = nn.Sequential(
        nn.Conv2d(1, width, 5, padding=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 5, padding=2),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 1, 3, padding=1),
        nn.Tanh(),
    )
    D = nn.Sequential(nn.Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 4, 2, 1))
    return fastgan.Trainer(G, D, objective=Attack(target.eval()), data=data, **options)


def fit(net, images, labels, steps=800):
    torch.manual_seed(0)
    net(images[:1])  # a lazy layer takes its size
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(steps):
        some = torch.randint(len(images), (100,))
        loss = F.cross_entropy(net(images[some]), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


if __name__ == "__main__":
    torch.manual_seed(0)
    clothes = fastgan.data.open("fashion-mnist")
    pixels, labels = clothes.array("image").copy(), torch.from_numpy(clothes.array("label").copy())
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    target = fit(classifier(), images[:8000], labels[:8000])
    data = fastgan.data.Aligned(image=pixels[:8000], label=labels[:8000].numpy())
    make_trainer(data, target, out="runs/advgan", batch_size=64, seed=0).fit(1000)
    G, held_out, answers = fastgan.load("runs/advgan"), images[8000:], labels[8000:]
    with torch.no_grad():
        attacked = changed(G, held_out)
        size = (attacked - held_out).abs().mean()
        noise = (held_out + size * torch.randn_like(held_out).sign()).clamp(-1, 1)
        for name, some in (("as they are", held_out), ("noise", noise), ("attacked", attacked)):
            share = (target(some).argmax(1) == answers).float().mean()
            print(f"{name}: accuracy {share:.1%}")
        print(f"mean change {size / 2:.1%} of the range from black to white")
