"""What a user types for several processes: torchrun around `fastgan train`."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_two_processes_train_one_run(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(port),
    ]
    options = [
        "--size",
        "16",
        "--steps",
        "4",
        "--batch-size",
        "16",
        "--sync-bn",
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        [*torchrun, "-m", "fastgan", "train", *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("done:") + done.stderr.count("done:") == 1, "one process speaks"
    assert json.loads((tmp_path / "run" / "run.json").read_text())
    assert any((tmp_path / "run" / "checkpoints").iterdir())
