"""Runs of strangers, in a folder of their own."""

import signal
import sys

import numpy as np
import pytest
import torch
from run_support import images, in_a_hurry, tiny

import fastgan
from fastgan.cli import main as cli
from fastgan.objectives import Linear


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)  # what waits for a FIFO would wait for ever
    yield tmp_path
    signal.alarm(0)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def command(capfd):
    """command(args...) -> (exit code, standard output, standard error)."""

    def run(*args):
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            cli.main([str(a) for a in args])
        out, err = capfd.readouterr()
        return done.value.code or 0, out, err

    return run


@pytest.fixture(scope="module")
def python_run(tmp_path_factory):
    """A run made from Python, with a schedule and everything else that run.json can hold."""
    path = tmp_path_factory.mktemp("stranger") / "run"
    torch.manual_seed(1)
    data = fastgan.data.open(images(), labels=[i % 3 for i in range(21)])
    with tiny(path, schedules={"G": {"lr": Linear(1e-3, 0.0, 10)}}, data=data) as trainer:
        trainer.fit(2)
    return path


@pytest.fixture(scope="module")
def command_run(tmp_path_factory):
    """A run of the command line whose schedule falls over --steps."""
    folder = tmp_path_factory.mktemp("command")
    np.save(folder / "images.npy", images(30))
    small = [
        "--size",
        "8",
        "--width",
        "2",
        "--latent",
        "4",
        "--batch-size",
        "4",
        "--n-critic",
        "1",
        "--log-every",
        "1",
    ]
    start = [
        "train",
        "--recipe",
        "wgan-gp",
        "--data",
        str(folder / "images.npy"),
        "--device",
        "cpu",
        *small,
        "--channels",
        "1",
    ]
    with pytest.raises(SystemExit) as done:
        cli.main([*start, "--steps", "2", "--out", str(folder / "run")])
    assert not done.value.code
    return folder / "run"
