"""What several recipes measure: whether a conditional generator makes the class it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastgan.recipes.config import Config

SAMPLES = 1000


def class_accuracy(config: Config, run: str) -> dict[str, float]:
    """The share of samples whose class a classifier of the reals names as told, beside its share on
    held-out reals; nothing without labels. The classifier is that of `fastgan evaluate`."""
    import torch

    from fastgan import paths
    from fastgan.metrics.classifier import cached
    from fastgan.trainer.load import sample

    dataset = config.open_data()
    if "label" not in dataset.fields or not dataset.classes:
        return {}
    reals = torch.from_numpy(dataset.array("image").copy()).permute(0, 3, 1, 2).contiguous()
    judge = cached(
        reals,
        torch.from_numpy(dataset.array("label").copy()),
        fingerprint=dataset.fingerprint,
        folder=paths.cache_dir() / "metrics",
        classes=dataset.classes,
    )
    told = torch.arange(SAMPLES) % len(dataset.classes)
    seen = judge.predict(sample(run, SAMPLES, seed=0, labels=told))
    return {
        f"samples of the class they were told ({SAMPLES})": float((seen == told).float().mean()),
        "the same of held-out reals": judge.accuracy,
    }
