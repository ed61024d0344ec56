"""Semi-supervised learning (Salimans et al. 2016).

The discriminator has K + 1 logits and sees a labelled and an unlabelled stream. The generator
learns to match the means of its features.
"""

import torch
from torch import nn
from torch.nn import functional as F

import fastgan


class Classifier(nn.Module):
    """Images -> (features, K logits); "fake" is class K + 1, whose logit is 0 (section 5)."""

    def __init__(self, size=28, width=128, classes=10):
        super().__init__()
        self.size, self.width, self.classes = size, width, classes
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(size * size, width),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.3),
            nn.Linear(width, width),
        )
        self.head = nn.Sequential(nn.LeakyReLU(0.2), nn.Linear(width, classes))

    def forward(self, images):
        features = self.body(images)
        return features, self.head(features)


class SemiSupervised(fastgan.Objective):
    noise = {"z": fastgan.Noise((100,), "uniform")}

    def phases(self):
        return [
            fastgan.Phase("D", ("D",), self.d_loss),
            fastgan.Phase("G", ("G",), self.g_loss, fresh=False),
        ]

    def generate(self, step):
        return step.nets.G(step.noise.z)

    def d_loss(self, step):
        _, on_labelled = step.nets.D(step.batch["labelled"])
        (_, on_real), (_, on_fake) = step.pair("D", step.batch["image"], step.fake)
        real, fake = on_real.logsumexp(1), on_fake.logsumexp(1)
        step.log("accuracy", (on_labelled.argmax(1) == step.batch["labelled_label"]).float().mean())
        return {
            "labelled": F.cross_entropy(on_labelled, step.batch["labelled_label"]),
            "unlabelled": 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean()),
        }

    def g_loss(self, step):
        with torch.no_grad():
            wanted = step.nets.D(step.batch["image"])[0].mean(0)
        return {"matching": F.mse_loss(step.nets.D(step.fake)[0].mean(0), wanted)}


def make_trainer(
    labelled="fashion-mnist", unlabelled="fashion-mnist", size=28, width=128, **options
):
    G = nn.Sequential(
        nn.Linear(100, width),
        nn.Softplus(),
        nn.Linear(width, size * size),
        nn.Tanh(),
        nn.Unflatten(1, (1, size, size)),
    )
    data = {"image": unlabelled, "labelled": labelled}
    return fastgan.Trainer(
        G, Classifier(size, width), objective=SemiSupervised(), data=data, size=size, **options
    )


if __name__ == "__main__":
    make_trainer(out="runs/semi-supervised", batch_size=100).fit(5000)
