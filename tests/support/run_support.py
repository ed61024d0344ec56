"""Tiny runs for the tests of what a run leaves and how it goes on: a few hundred parameters, images
of 8x8 pixels."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fastgan
from fastgan.cli import main as cli
from fastgan.monitor import pictures
from fastgan.reports import page
from fastgan.runs.checkpoint import Checkpoints, flatten


def in_a_hurry(monkeypatch):
    """Without curves, reports and flushes, which cost more than all steps of a tiny run and are
    tested where they matter."""
    monkeypatch.setattr(pictures, "curves", lambda rows, file: file.write(b""))
    monkeypatch.setattr(page, "build", lambda story: "")
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def commands(capture):
    """call(*words) -> (exit code, standard output, standard error) of a fastgan command. capture:
    pytest's capsys or capfd."""

    def call(*words):
        capture.readouterr()
        with pytest.raises(SystemExit) as done:
            cli.main([str(word) for word in words])
        return done.value.code or 0, *capture.readouterr()

    return call


QUIET = {"progress": False, "device": "cpu"}


def images(count=21, size=8, channels=1, seed=0):
    """uint8 (count, size, size, channels)."""
    return np.random.default_rng(seed).integers(
        0, 256, (count, size, size, channels), dtype=np.uint8
    )


def generator(width=4, norm=True, last=None):
    return nn.Sequential(
        nn.ConvTranspose2d(4, width, 4),
        nn.BatchNorm2d(width) if norm else nn.Identity(),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, 4, 2, 1),
        last or nn.Tanh(),
    )


def discriminator(width=4):
    return nn.Sequential(
        nn.Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 4), nn.Flatten()
    )


def mlp_pair():
    g = nn.Sequential(
        nn.Flatten(),
        nn.Linear(4, 8),
        nn.ReLU(),
        nn.Linear(8, 64),
        nn.Tanh(),
        nn.Unflatten(1, (1, 8, 8)),
    )
    d = nn.Sequential(
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)
    )
    return {"G": g, "D": d}


def tiny(out, *, resume=False, **changed):
    """A trainer of a tiny convolutional GAN; every option can be changed."""
    options = {
        "nets": {"G": generator(), "D": discriminator()} if "stages" not in changed else None,
        "data": images(),
        "latent_shape": (4, 1, 1),
        "batch_size": 8,
        "log_every": 5,
        "sample_every": 7,
        "checkpoint_every": 6,
        **QUIET,
        **changed,
    }
    return fastgan.Trainer(out=out, resume=resume, **options)


def rows(path):
    """Metric rows (or alerts) without what a clock put there."""
    if not path.exists():
        return []
    return [
        {k: v for k, v in json.loads(line).items() if k not in ("time", "images_per_s")}
        for line in path.read_text().splitlines()
    ]


def newest(path):
    """({path of a tensor: its bytes, type, shape}, everything else as JSON) of the newest
    checkpoint."""
    groups, state = Checkpoints(Path(path) / "checkpoints").load()
    tensors: dict[str, torch.Tensor] = {}
    trees = flatten(groups, tensors)
    return {
        k: (v.contiguous().numpy().tobytes(), v.dtype, tuple(v.shape)) for k, v in tensors.items()
    }, [trees, state]


def assert_same_run(left, right):
    """Weights, averages, optimiser state, statistics, metric rows, alerts and pictures of two
    finished runs, bit for bit."""
    left, right = Path(left), Path(right)
    (mine, facts), (others, other_facts) = newest(left), newest(right)
    assert facts == other_facts
    assert list(mine) == list(others)
    assert [k for k in mine if mine[k] != others[k]] == []
    assert rows(left / "metrics.jsonl") == rows(right / "metrics.jsonl")
    assert rows(left / "alerts.jsonl") == rows(right / "alerts.jsonl")
    for path in (left, right):
        assert_rows_whole(path)
    shared = {p.name for p in (left / "samples").glob("*.png")} & {
        p.name for p in (right / "samples").glob("*.png")
    }
    assert f"{facts[1]['step']:08d}.png" in shared
    for picture in [Path("reals.png"), *(Path("samples") / name for name in sorted(shared))]:
        assert (left / picture).read_bytes() == (right / picture).read_bytes(), picture


def assert_rows_whole(path):
    """No row repeated, none missing, and metrics.csv says the same as metrics.jsonl."""
    log_every = json.loads((path / "run.json").read_text())["identity"]["log_every"]
    step = newest(path)[1][1]["step"]
    assert [row["step"] for row in rows(path / "metrics.jsonl")] == list(
        range(log_every, step + 1, log_every)
    )
    assert len((path / "metrics.csv").read_text().splitlines()) == 1 + step // log_every


def leftovers(path):
    """Names of what interrupted writers left anywhere below `path`."""
    return sorted(
        str(p)
        for p in Path(path).rglob("*")
        if p.name.startswith((".partial-", ".replaced-")) or p.suffix == ".tmp"
    )
