"""What a user types for several processes: torchrun around `fastgan train`, on one machine and with
an agent a machine, whose processes may die."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from fastgan.distributed import meeting
from fastgan.errors import FastganError
from fastgan.runs import restarts
from fastgan.runs.checkpoint import Checkpoints
from fastgan.runs.layout import REPORT

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="needs torch.distributed"
)
OPTIONS = [
    "--size",
    "16",
    "--base-width",
    "8",
    "--batch-size",
    "16",
    "--steps",
    "6",
    "--checkpoint-every",
    "2",
]
OPTIONS += ["--log-every", "2", "--precision", "fp32", "--sync-bn"]

DYING = """
import os, sys
from fastgan.cli.main import main
from fastgan.trainer.stages.active import ActiveStage
mark, train_step = sys.argv.pop(1), ActiveStage.train_step

def dies_once(self, step):
    if step == 3 and os.environ["RANK"] == "1" and not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), 9)
    return train_step(self, step)

ActiveStage.train_step = dies_once
main(sys.argv[1:])
"""


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def torchrun(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(*agents: subprocess.Popen) -> str:
    """All that they wrote, once they have ended well."""
    found = [agent.communicate(timeout=100) for agent in agents]
    assert [agent.returncode for agent in agents] == [0] * len(agents), found[0][1][-3000:]
    return "".join(out + err for out, err in found)


def weights(run: Path) -> dict[str, torch.Tensor]:
    groups, state = Checkpoints(run / "checkpoints").load()
    assert state["step"] == 6
    return {
        f"{net}/{key}": value for net, held in groups["nets"].items() for key, value in held.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("machines", [pytest.param(1, marks=pytest.mark.long), 2])
def test_processes_that_die_are_started_again_and_end_with_the_same_bits(machines, tmp_path):
    """On one machine, or with two agents that meet on the loopback as two machines would."""
    one = ["--standalone", "--nproc-per-node", "2"]
    whole = said(torchrun(*one, "-m", "fastgan", "train", *OPTIONS, "--out", f"{tmp_path}/whole"))
    assert whole.count("done:") == 1, "one process speaks"
    assert (tmp_path / "whole" / REPORT).is_file()
    want = weights(tmp_path / "whole")
    (tmp_path / "dying.py").write_text(DYING)
    program = [f"{tmp_path}/dying.py", f"{tmp_path}/died", "train", *OPTIONS, "--out"]
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    meet += ["--rdzv-id", "a-job", "--local-addr", "127.0.0.1"]
    two = ["--nnodes", "2", "--nproc-per-node", "1", *meet]
    run, agents = tmp_path / "run", [one] if machines == 1 else [two, two]
    started = [torchrun(*a, "--max-restarts", "1", *program, str(run)) for a in agents]
    heard = said(*started)
    assert (tmp_path / "died").exists()
    assert heard.count(f"started again by torchrun: going on with {run}") == 1
    assert "going on at step 2" in heard
    found = weights(run)
    assert found.keys() == want.keys()
    for key, value in want.items():
        assert torch.equal(found[key], value), key
    if machines == 2:
        facts = json.loads((run / "run.json").read_text())
        assert facts["job"]["id"] == "rendezvous a-job"


def test_a_job_knows_its_own_run_and_no_other(tmp_path, monkeypatch):
    from fastgan.cli.train import going_on

    typed = ["--out", str(tmp_path), "--for", "30m", "--steps", "9"]
    assert restarts.job() is None
    assert going_on(typed) == typed
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")  # torchrun's own default
    agent = restarts.job()
    assert str(os.getppid()) in agent
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    assert restarts.job() == "rendezvous 7"
    known = {"job": {"id": "rendezvous 7", "began": 1e9}}
    monkeypatch.setattr(restarts.RunFolder, "exists", lambda self: True)
    monkeypatch.setattr(restarts.RunFolder, "facts", lambda self: known)
    assert restarts.restarted(None) is None
    assert restarts.restarted(tmp_path) == 1e9
    assert going_on(typed) == ["--resume", str(tmp_path), "--for", "1s"]  # its time is over
    assert going_on(["--resume", "a"]) == ["--resume", "a"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "8")
    assert restarts.restarted(tmp_path) is None
    assert going_on(typed) == typed
    monkeypatch.setattr(restarts.RunFolder, "facts", lambda self: {})
    assert restarts.restarted(tmp_path) is None
    monkeypatch.setattr(restarts.RunFolder, "facts", lambda self: known)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    monkeypatch.setattr(restarts, "_mine", set())
    restarts.begun(tmp_path)
    assert restarts.restarted(tmp_path) is None, "a second run there, by the process that began it"


def test_processes_meet_whatever_an_earlier_start_left_in_their_store():
    store = torch.distributed.HashStore()
    names = []
    for late in (None, 2, 0):  # who comes later than the others, in each of three starts

        def come(rank, late=late, found=None):
            if rank == late:
                time.sleep(0.2)
            found.append(meeting.meet(store, rank, 3))

        found = []
        threads = [
            threading.Thread(target=come, args=(r,), kwargs={"found": found}) for r in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(found) == 3
        assert len(set(found)) == 1
        names.append(found[0])
        store.set("fastgan/meeting/word/1", "of one who came and died at once")
    assert len(set(names)) == 3


def test_who_waits_in_vain_says_so(monkeypatch):
    monkeypatch.setattr(meeting, "PATIENCE", 0.1)
    with pytest.raises(FastganError, match="the 2 processes of this run did not come together"):
        meeting.meet(torch.distributed.HashStore(), 1, 2)
