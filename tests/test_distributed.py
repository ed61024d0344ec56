"""Two processes of half a batch compute what one of the whole batch does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastgan
from fastgan.engine.checkpoint import Checkpoints

SCRIPT = """
import sys, numpy as np, torch
from torch import nn
import fastgan
torch.set_num_threads(1)
out, steps, resume, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "resume", sys.argv[4]
torch.manual_seed(0)
images = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 1), np.uint8)
norm = [nn.BatchNorm1d] if kind == "sync" else []
G = nn.Sequential(
    nn.Linear(6, 16), *(n(16) for n in norm), nn.ReLU(), nn.Linear(16, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))
)
D = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *(n(16) for n in norm), nn.LeakyReLU(0.2), nn.Linear(16, 1))
trainer = fastgan.Trainer(
    G, D, objective=fastgan.Adversarial(latent_shape=(6,), r1=0.1), data=images, batch_size=8, flip=True, out=out,
    resume=resume, log_every=2, checkpoint_every=100, sample_every=100, progress=False, watch=False,
    optimizers=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.5), sync_bn=True,
)
trainer.fit(steps)
trainer.close()
"""


def run(processes: int, *arguments: str) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *arguments],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(processes)
    ]
    errors = [p.communicate(timeout=90)[1].decode() for p in started]
    assert all(p.returncode == 0 for p in started), "\n".join(errors)[-3000:]


def weights(path: Path) -> dict[str, torch.Tensor]:
    groups, _ = Checkpoints(path / "checkpoints").load()
    return {
        f"{kind}/{net}/{key}": value
        for kind in ("nets", "ema")
        for net, state in groups[kind].items()
        for key, value in state.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "sync"])
def test_two_ranks_equal_one_and_runs_resume_on_another_number_of_ranks(kind, tmp_path):
    run(1, str(tmp_path / "one"), "7", "new", kind)
    run(2, str(tmp_path / "two"), "7", "new", kind)
    run(2, str(tmp_path / "mixed"), "3", "new", kind)  # in the middle of a window of two steps
    run(1, str(tmp_path / "mixed"), "7", "resume", kind)
    one = weights(tmp_path / "one")
    for other in ("two", "mixed"):
        found = weights(tmp_path / other)
        assert one.keys() == found.keys()
        for key, value in one.items():
            torch.testing.assert_close(
                found[key], value, rtol=2e-4, atol=2e-6, msg=lambda m, where=f"{other} {key}": f"{where}: {m}"
            )
    rows = {name: (tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("one", "two", "mixed")}
    assert rows == {"one": 3, "two": 3, "mixed": 3}
    logged = {name: np.genfromtxt(tmp_path / name / "metrics.csv", delimiter=",", names=True)["lossD"] for name in rows}
    for other in ("two", "mixed"):
        np.testing.assert_allclose(logged["one"], logged[other], rtol=1e-4)


def test_a_batch_that_does_not_divide_is_refused():
    from fastgan.data import Stream

    data = fastgan.data.open(np.zeros((8, 4, 4, 1), np.uint8))
    with pytest.raises(fastgan.FastganError, match="batch size 3"):
        Stream(data, name="image", seed=0, batch_size=3, device="cpu", rank=0, world=2)
