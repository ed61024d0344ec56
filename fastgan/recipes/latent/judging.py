"""What several recipes measure: whether a conditional generator makes the class it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from fastgan.trainer.reuse.subject import Subject

SAMPLES = 1000
PAIRS = 500
"""Of latents, for path lengths."""

LEAST = 20
"""Reals of a class, for a distance within it."""


def class_accuracy(subject: Subject) -> dict[str, float]:
    """The share of samples whose class a classifier of the reals names as told, beside its share on
    held-out reals, and the mean over classes of the kernel distance between samples that were told
    a class and reals of it, which a generator of one image a class doesn't pass; nothing without
    labels. The classifier, and its features, are those of `fastgan evaluate`."""
    import torch

    from fastgan.judges import instruments
    from fastgan.judges.distances import kernel_distance

    if not subject.labelled:
        return {}
    reals = instruments.reals_of(subject.reals)
    judge = instruments.fitted(subject.reals, reals)
    told = torch.arange(SAMPLES) % len(judge.names)
    made = subject.sample(SAMPLES, labels=told)
    found = {
        f"samples of the class they were told ({SAMPLES})": float(
            (judge.predict(made) == told).float().mean()
        ),
        "the same of held-out reals": judge.accuracy,
    }
    labels = torch.from_numpy(subject.reals.array("label").copy())
    classes = [k for k in told.unique().tolist() if int((labels == k).sum()) >= LEAST]
    if classes:
        features = judge.features(made)
        distances = [
            kernel_distance(
                features[told == k], judge.features(reals[labels == k][:SAMPLES].float() / 255)
            )
            for k in classes
        ]
        found["KD-small within classes"] = sum(distances) / len(distances)
    return found


def called_real(subject: Subject) -> dict[str, float]:
    """The share of samples that a classifier, fitted to tell others of them from reals, calls real,
    beside that of held-out reals. 2,000 of each where there are as many, half of them for the
    fit."""
    import torch

    from fastgan.judges.classifier import fit

    pixels = subject.reals.array("image")
    each = min(len(pixels), 2 * SAMPLES)
    dice = torch.Generator().manual_seed(subject.seed)
    order = torch.randperm(len(pixels), generator=dice)[:each]
    reals = torch.from_numpy(pixels[order.numpy()]).permute(0, 3, 1, 2).contiguous()
    fakes = subject.sample(each).mul(255).round().byte()
    if fakes.shape != reals.shape or each < 100:
        return {}
    half = each // 2
    labels = torch.tensor([0, 1]).repeat_interleave(half)
    judge = fit(torch.cat([reals[:half], fakes[:half]]), labels, classes=["real", "generated"])
    shares = [
        float((judge.predict(x[half:].float() / 255) == 0).float().mean()) for x in (fakes, reals)
    ]
    return dict(zip(("samples called real", "held-out reals called real"), shares))


def reconstruction(subject: Subject) -> dict[str, float]:
    """How far images are from what a run's "encoder" and decoder make of them, which is as near as
    its samples can come: L1 and PSNR, images in [0, 1], and FD-small of 1,000 reconstructions or
    half of all against others, as `fastgan evaluate` splits them. The autoencoder has seen all."""
    import torch

    from fastgan.judges import instruments
    from fastgan.judges.distances import frechet_distance
    from fastgan.metrics import fidelity
    from fastgan.metrics.judged import Split

    dataset = subject.reals
    reals = instruments.reals_of(dataset)
    split = Split.of(reals, SAMPLES, subject.seed)
    encoder, G = subject.load("encoder"), subject.load()
    decoder = getattr(G, "decoder", G)  # a run in its first stage has nothing else
    features = instruments.fitted(dataset, reals).features
    far, ratio, made, reference = [], [], [], []
    with torch.no_grad():
        for rows in split.floor.split(100):
            images = reals[rows].float() / 127.5 - 1
            again = decoder(encoder(images))
            far.append(fidelity.l1(again, images))
            ratio.append(fidelity.psnr(again, images))
            made.append(features((again + 1) / 2))
        for rows in split.reference.split(1000):
            reference.append(features(reals[rows].float() / 255))
    return {
        "L1 of reconstructions": float(torch.cat(far).mean()),
        "their PSNR in dB": float(torch.cat(ratio).mean()),
        "their FD-small": frechet_distance(torch.cat(made), torch.cat(reference)),
    }


def order_of_styles(subject: Subject) -> dict[str, float]:
    """How far images move for a small step between latents, in the features of the small judge, and
    how uncertain the class of an image is beside what a linear classifier tells from its latent, in
    the space of styles w, in that of latents z, and in shuffled w, which tell nothing (1: certain).
    Without labels only the first."""
    import torch

    from fastgan.judges import instruments
    from fastgan.latent.walk import slerp
    from fastgan.metrics.styles import path_length, separability
    from fastgan.models.stylegan2 import Generator

    G = cast(Generator, subject.load())
    judge = instruments.fitted(subject.reals, instruments.reals_of(subject.reals))
    dice = torch.Generator().manual_seed(subject.seed)
    z = torch.randn(2 * SAMPLES, G.latent, generator=dice)
    w = G.map(z)

    def images(styles: torch.Tensor) -> torch.Tensor:
        return ((G.synthesis(styles[:, None].expand(-1, G.layers, -1)) + 1) / 2).clamp(0, 1)

    def features(styles: torch.Tensor) -> torch.Tensor:
        return torch.cat([judge.features(images(part)) for part in styles.split(100)])

    def halves(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return points[:PAIRS], points[PAIRS : 2 * PAIRS]

    found = {
        "path length in w": path_length(features, torch.lerp, halves(w)),
        "path length in z": path_length(lambda p: features(G.map(p)), slerp, halves(z)),
    }
    if judge.task == "classes":
        answers = torch.cat([judge.predict(images(part)) for part in w.split(100)])
        for name, points in (("w", w), ("z", z)):
            found[f"separability of the class in {name}"] = separability(points, answers)
        shuffled = w[torch.randperm(len(w), generator=dice)]
        found["separability of the class in shuffled w"] = separability(shuffled, answers)
    return found
