"""Nothing is lost or left behind by kills of real processes and signals."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from fork_client import TINY, Server, command
from run_support import assert_same_run, images, leftovers, newest, rows


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    np.save(folder / "images.npy", images(30))
    server = Server(folder)
    yield server
    server.process.stdin.close()
    server.process.wait(10)


@pytest.mark.slow
def test_kill_9_costs_nothing_that_was_saved(server, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    chance = random.Random(0)
    server.begin(command(tmp_path / "counted", 4), pause=0)
    events = server.until_started() + server.until_end()[0]
    operations = max(int(event[1]) for event in events if event[0] == "op") + 1
    argv, saved, entered, inside, kills, op, seen = command(killed, 200), 0, 0, 0, 0, 0, set()
    while op < operations or kills < 30:
        pid = server.begin(argv, pause=0.002)
        at = int(server.until_started(go=False)[-1][1])
        assert saved <= at <= entered, "what was saved is lost"
        assert leftovers(killed) == []
        assert [row["step"] for row in rows(killed / "metrics.jsonl")] == list(range(2, at + 1, 2))
        assert (
            len(list((killed / "checkpoints").iterdir())) <= 3
        )  # the last two, and one more when killed before dropping it
        saved, aim, done, last = at, (op if kills % 4 else None), 0, None
        server.say("go")
        if aim is None:  # anywhere
            time.sleep(chance.uniform(0, 0.15))
            os.kill(pid, signal.SIGKILL)
        else:
            op += 1
        while (event := server.event())[0] != "ended":
            last = event
            if event[0] == "enter":
                entered = int(event[1])
            elif event[0] == "exit":
                saved, done = int(event[1]), done + 1
                assert done < 4 or aim is None, f"no save had an operation {aim}"
            elif event[:2] == ["op", str(aim)] and done == 1:
                os.kill(pid, signal.SIGKILL)
                seen.add(event[2])
        assert int(event[1]) == -signal.SIGKILL, server.log.read_text()
        kills += 1
        inside += last is not None and last[0] in ("enter", "op")
        argv = ["train", "--resume", str(killed), "--steps", "200"]
    assert kills >= 20
    assert inside >= 10
    assert seen >= {"mkdir", "write", "write-rest", "fsync", "replace", "unlink", "rmdir"}
    steps = saved + 7
    assert server.run([*argv[:-1], str(steps)])[1] == 0
    assert server.run(command(straight, steps)) == (0, 0)
    assert_same_run(straight, killed)
    assert leftovers(killed) == []
    print(f"{kills} kills, {inside} of them inside a save, {steps} steps")


def test_a_kill_before_the_first_checkpoint_leaves_nothing_in_the_way(server, tmp_path):
    out = tmp_path / "run"
    for aim in (0, 3, 9, 14):
        pid = server.begin(command(out, 4), pause=0.01)
        while (event := server.event())[:2] != ["op", str(aim)]:
            assert event[0] in ("enter", "op")
        os.kill(pid, signal.SIGKILL)
        assert server.until_end()[1] == -signal.SIGKILL
        assert out.exists()
        assert server.run(["train", "--resume", str(out)]) == (None, 2)
        assert "interrupted before it began" in server.log.read_text()
    assert server.run(command(out, 4)) == (0, 0)
    assert leftovers(tmp_path) == []
    assert_same_run(out, out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_finish_the_step_and_save(server, number, code, tmp_path):
    """A real `fastgan train`, stopped in the middle, gone on with as its last line says."""
    np.save(tmp_path / "images.npy", images(30))
    argv = [
        "train",
        *TINY,
        "--data",
        "images.npy",
        "--log-every",
        "2",
        "--out",
        "my run",
        "--steps",
        "100000",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastgan", *argv],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # nohup ignores SIGHUP
    )
    metrics = tmp_path / "my run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    last = out.splitlines()[-1]
    step = newest(tmp_path / "my run")[1][1]["step"]
    assert (
        last
        == f"stopped by {number.name} after step {step}, saved; go on: fastgan train --resume 'my "
        "run'"
    )
    assert "Traceback" not in err
    assert step < 100000
    again = [
        "train",
        "--resume",
        str(tmp_path / "my run"),
        "--steps",
        str(step + 5),
        "--data",
        str(tmp_path / "images.npy"),
    ]
    assert server.run(again) == (step, 0)
    straight = [*argv[:-4], "--out", str(tmp_path / "straight"), "--steps", str(step + 5)]
    assert server.run([str(tmp_path / a) if a == "images.npy" else a for a in straight]) == (0, 0)
    assert_same_run(tmp_path / "straight", tmp_path / "my run")


def test_a_second_sigint_ends_at_once(server, tmp_path):
    pid = server.begin(command(tmp_path / "run", 5), step_pause=60)
    server.expect("started")
    server.say("go")
    server.expect("step")
    began = time.monotonic()
    os.kill(pid, signal.SIGINT)
    time.sleep(0.3)
    os.kill(pid, signal.SIGINT)
    assert server.until_end()[1] == 130
    assert time.monotonic() - began < 10
    assert "Traceback" not in server.log.read_text()
    assert server.run(["train", "--resume", str(tmp_path / "run"), "--steps", "2"]) == (0, 0)
