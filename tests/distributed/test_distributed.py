"""Two processes of half a batch compute what one of the whole batch does."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import fastgan
from fastgan.runs.checkpoint import Checkpoints

SCRIPT = """
import sys, numpy as np, torch
from torch import nn
import fastgan
torch.set_num_threads(1)
out, steps, resume, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "resume", sys.argv[4]
torch.manual_seed(0)
images = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 1), np.uint8)
augment = "color,translation,cutout" if kind == "sync" else "ada"
norm = [nn.BatchNorm1d] if kind == "sync" else []
G = nn.Sequential(
    nn.Linear(6, 16), *(n(16) for n in norm), nn.ReLU(), nn.Linear(16, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8))
)
D = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *(n(16) for n in norm), nn.LeakyReLU(0.2), nn.Linear(16, 1))
trainer = fastgan.Trainer(
    G, D, objective=fastgan.Adversarial(latent_shape=(6,), r1=0.1, augment=augment), data=images, batch_size=8, flip=True, out=out,
    resume=resume, log_every=2, checkpoint_every=100, sample_every=100, progress=False, watch=False,
    optimizers=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.5), sync_bn=True,
)
trainer.fit(steps)
trainer.close()
"""


def start(processes: int, command: list[str]) -> list[subprocess.Popen]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": str(processes),
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            command,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for rank in range(processes)
    ]


def run(processes: int, *arguments: str) -> None:
    started = start(processes, [sys.executable, "-c", SCRIPT, *arguments])
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
                found[key],
                value,
                rtol=2e-4,
                atol=2e-6,
                msg=lambda m, where=f"{other} {key}": f"{where}: {m}",
            )
    rows = {
        name: (tmp_path / name / "metrics.jsonl").read_text().count("\n")
        for name in ("one", "two", "mixed")
    }
    assert rows == {"one": 3, "two": 3, "mixed": 3}
    logged = {
        name: np.genfromtxt(tmp_path / name / "metrics.csv", delimiter=",", names=True)["lossD"]
        for name in rows
    }
    for other in ("two", "mixed"):
        np.testing.assert_allclose(logged["one"], logged[other], rtol=1e-4)


def test_a_batch_that_does_not_divide_is_refused():
    from fastgan.data import Stream

    data = fastgan.data.open(np.zeros((8, 4, 4, 1), np.uint8))
    with pytest.raises(fastgan.FastganError, match="batch size 3"):
        Stream(data, name="image", seed=0, batch_size=3, device="cpu", rank=0, world=2)


def test_a_failure_is_known_at_once_and_a_broken_collective_keeps_its_words(monkeypatch):
    from fastgan.distributed import fail_fast as alarms

    monkeypatch.setattr(alarms, "GRACE", 0.0)
    alarm = alarms.FailFast(torch.distributed.HashStore(), 0)
    try:
        assert not alarm.failed
        lost = r"lost another process .*\(NCCL error: unhandled system error\)$"
        with pytest.raises(fastgan.FastganError, match=lost), alarm.guarding():
            raise RuntimeError("NCCL error: unhandled system error\nand more")
        assert alarm.failed
    finally:
        alarm.stop()


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_norms_that_were_accelerated_before_are_not_passed_over_in_silence(kind):
    from fastgan.ops.norm import modules as norms
    from fastgan.ops.norm import sync

    norm = getattr(norms, f"BatchNorm{kind}d")(4)
    with pytest.raises(fastgan.FastganError, match=rf"BatchNorm{kind}d .* of fastgan's own"):
        sync.convert(torch.nn.Sequential(norm))
    plain = torch.nn.Sequential(torch.nn.BatchNorm2d(4))
    assert type(sync.convert(plain)[0]) is sync.SyncBatchNorm


FAILING = """
import atexit, os, sys, time, numpy as np, torch
import torch.distributed as dist
from torch import nn
import fastgan
from fastgan.cli import main as cli
torch.set_num_threads(1)
atexit.register(lambda: print("group left:", not dist.is_initialized(), flush=True))  # registered first, called last
out, how = sys.argv[1:]
rank = int(os.environ["RANK"])

class Failing(fastgan.Adversarial):
    calls = 0

    def g_loss(self, step):
        Failing.calls += 1
        if Failing.calls == 8 and rank == 1:  # the probe's dry pass is the first
            if how == "raises":
                raise fastgan.FastganError("no more images")
            if how == "stuck":
                raise RuntimeError("CUDA error")
            if how == "killed":
                os.kill(os.getpid(), 9)
        if Failing.calls == 8 and how == "stuck":
            time.sleep(600)  # as one waits for a GPU that waits for the process that has gone
        return super().g_loss(step)

def train():
    if how == "data" and rank == 1:
        with fastgan.distributed.context.join(torch.device("cpu")).together():
            raise fastgan.FastganError("no such file: images")
    torch.manual_seed(0)
    G = nn.Sequential(nn.ConvTranspose2d(4, 4, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1), nn.Tanh())
    D = nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4), nn.Flatten())
    images = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 1), np.uint8)
    options = {"out": out, "log_every": 2, "checkpoint_every": 3, "sample_every": 100, "watch": False}
    with fastgan.Trainer(
        G, D, objective=Failing(latent_shape=(4, 1, 1)), data=images, batch_size=8, progress=False, **options
    ) as trainer:
        trainer.fit(9)

import fastgan.distributed.context
cli.group.main = lambda **_: train()
cli.main([])
"""


def fail(out: Path, how: str) -> tuple[list[int], list[str], list[str], float]:
    """(exit codes, standard errors, standard outputs, seconds) of two processes, one of which
    fails."""
    began = time.monotonic()
    started = start(2, [sys.executable, "-c", FAILING, str(out), how])
    said = [p.communicate(timeout=90) for p in started]
    return (
        [p.returncode for p in started],
        [e.decode() for _, e in said],
        [o.decode() for o, _ in said],
        time.monotonic() - began,
    )


@pytest.mark.slow
def test_one_process_that_fails_ends_all_of_them(tmp_path):
    """In seconds, with one line each that names the cause, the last checkpoint whole, and the
    process group left."""
    codes, errors, outputs, seconds = fail(tmp_path / "run", "raises")
    assert codes == [2, 2], errors
    assert errors[1].splitlines()[-1] == "fastgan: no more images"
    assert (
        errors[0].splitlines()[-1] == "fastgan: process 1 failed and ended the run: no more images"
    )
    assert not any("Traceback" in e for e in errors)
    assert all("group left: True" in o for o in outputs)
    assert (
        seconds < 45
    )  # of which most is importing torch twice on one core; a collective would wait for 30 minutes
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [0, 3, 6]
    Checkpoints(tmp_path / "run" / "checkpoints").load()  # whole: its sums are compared


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "codes", "line"),
    [
        ("data", [2, 2], "fastgan: process 1 failed and ended the run: no such file: images"),
        ("stuck", [2, 1], "fastgan: process 1 failed and ended the run: RuntimeError: CUDA error"),
        (
            "killed",
            [2, -9],
            # and gloo's own words
            "fastgan: lost another process of this run: it was killed, or its machine is gone (",
        ),
    ],
)
def test_however_a_process_fails_the_other_says_why(how, codes, line, tmp_path):
    found, errors, _, seconds = fail(tmp_path / "run", how)
    assert errors[0].splitlines()[-1].startswith(line)
    assert found == codes
    assert seconds < 60
