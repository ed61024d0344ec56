"""Nothing is lost or left behind: kills of real processes, signals, and a fault at every file
operation."""

import builtins
import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from run_support import assert_same_run, images, in_a_hurry, leftovers, newest, rows, tiny

import fastgan
from fastgan.monitor import pictures

HERE = Path(__file__).parents[1] / "support"
TINY = [
    "--recipe",
    "gan",
    "--hidden-g",
    "8",
    "--hidden-d",
    "4",
    "--latent",
    "4",
    "--batch-size",
    "8",
    "--device",
    "cpu",
]
EVERY_STEP = ["--checkpoint-every", "1", "--log-every", "2", "--sample-every", "5", "--keep", "2"]


class Server:
    """Talks to tests/support/fork_server.py: one child at a time."""

    def __init__(self, folder):
        self.log = folder / "log"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, HERE / "fork_server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=folder,
            env=environment,
        )

    def begin(self, argv, **options):
        """Start `fastgan argv`; returns its pid."""
        self.log.write_text("")
        self.say(json.dumps({"argv": argv, "log": str(self.log), **options}))
        return int(self.expect("pid"))

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def event(self):
        line = self.process.stdout.readline()
        assert line, "the server is gone"
        return line.split()

    def expect(self, word):
        """The argument of the next event, which must be `word`."""
        event = self.event()
        assert event[0] == word, (event, self.log.read_text())
        return event[1]

    def until_started(self, go=True):
        """All events until a trainer is ready; lets it go on."""
        events = [self.event()]
        while events[-1][0] != "started":
            assert events[-1][0] != "ended", self.log.read_text()
            events.append(self.event())
        if go:
            self.say("go")
        return events

    def until_end(self):
        """All events up to the end, and the exit status."""
        events = []
        while (event := self.event())[0] != "ended":
            events.append(event)
        return events, int(event[1])

    def run(self, argv, **options):
        """A whole command: (step it began at, exit status)."""
        self.begin(argv, **options)
        event, step = self.event(), None
        if event[0] == "started":
            step = int(event[1])
            self.say("go")
            return step, self.until_end()[1]
        return step, int(event[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    np.save(folder / "images.npy", images(30))
    server = Server(folder)
    yield server
    server.process.stdin.close()
    server.process.wait(10)


def command(out, steps):
    return [
        "train",
        *TINY,
        *EVERY_STEP,
        "--data",
        "images.npy",
        "--out",
        str(out),
        "--steps",
        str(steps),
    ]


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


class Faults:
    """Counts the file operations below a folder, and fails the chosen one (and all after it, when
    the disk stays full)."""

    CALLS = ("mkdir", "replace", "rename", "unlink", "rmdir", "fsync")

    def __init__(self, monkeypatch, folder):
        self.folder, self.at, self.lasting, self.count, self.failed = (
            str(folder),
            None,
            False,
            0,
            [],
        )
        self.real_open = builtins.open
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self.failing(name, getattr(os, name)))
        monkeypatch.setattr(builtins, "open", self.open)
        monkeypatch.setattr(io, "open", self.open)

    def reset(self, at=None, lasting=False):
        self.at, self.lasting, self.count, self.failed = at, lasting, 0, []

    def check(self, what):
        """Raise when this operation is the chosen one."""
        self.count += 1
        if self.at is not None and (
            self.count == self.at or (self.lasting and self.count > self.at and what in FULL)
        ):
            self.failed.append(what)
            code = errno.ENOSPC if what in FULL else errno.EIO
            raise OSError(code, os.strerror(code))

    def failing(self, name, call):
        def maybe(*args, **kwargs):
            if name == "fsync" or "dir_fd" in kwargs or str(args[0]).startswith(self.folder):
                self.check(name)
            return call(*args, **kwargs)

        return maybe

    def open(self, file, mode="r", *args, **kwargs):
        if not str(file).startswith(self.folder) or mode in ("r", "rb"):
            return self.real_open(file, mode, *args, **kwargs)
        self.check("open")
        return Half(self, self.real_open(file, mode, *args, **kwargs))


FULL = ("open", "write", "mkdir", "fsync")
"""What a full disk refuses; removing still works there."""


class Half:
    """A file whose failing write leaves the first half of the data."""

    def __init__(self, faults, file):
        self.faults, self.file = faults, file

    def write(self, data):
        try:
            self.faults.check("write")
        except OSError:
            self.file.write(data[: len(data) // 2])
            raise
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


STEPS = 3


def trainer(out, resume=False):
    torch.manual_seed(1)
    options = {"log_every": 1, "sample_every": 2, "checkpoint_every": 2, "keep": 1, "watch": False}
    return tiny(out, resume=resume, **options)


def left_by_a_kill(out):
    """A run with a checkpoint of step 2 that was killed in step 3: rows and pictures of steps to
    come, a torn row, torn files."""
    with trainer(out) as t:
        t.fit(2)
        kept = shutil.copytree(out / "checkpoints", out.with_name("kept"))
        t.fit(3)
    shutil.rmtree(out / "checkpoints")
    shutil.move(kept, out / "checkpoints")
    with open(out / "metrics.jsonl", "a") as f:
        f.write('{"step": 4, "ima')
    (out / "checkpoints" / ".partial-1-step-00000003").mkdir()
    (out / "checkpoints" / ".partial-1-step-00000003" / "nets.safetensors").write_bytes(b"torn")
    (out / "checkpoints" / "step-00000002").rename(out / "checkpoints" / ".replaced-step-00000002")
    (out / "samples" / ".partial-1-00000003.png").write_bytes(b"torn")


@pytest.mark.slow
@pytest.mark.parametrize(
    "lasting", [False, pytest.param(True, marks=pytest.mark.long)], ids=["one-fault", "full-disk"]
)
@pytest.mark.parametrize("begin", ["new", "after-a-kill"])
def test_a_fault_at_every_file_operation(begin, lasting, tmp_path, monkeypatch, capsys):
    in_a_hurry(monkeypatch)
    digest = lambda shown: hashlib.sha256(shown.numpy().tobytes()).digest()
    monkeypatch.setattr(
        pictures, "save_grid", lambda f, shown, *rest, **options: f.write(digest(shown))
    )
    run, killed = tmp_path / "run", tmp_path / "killed"
    with trainer(tmp_path / "straight") as t:
        t.fit(STEPS)
    resume = begin != "new"
    if resume:
        left_by_a_kill(killed)
    faults = Faults(monkeypatch, run)

    def attempt(at=None):
        """Begin from the same folder each time, with operation number `at` failing; what was said
        of it."""
        faults.reset()
        shutil.rmtree(run, ignore_errors=True)
        if resume:
            shutil.copytree(killed, run)
        faults.reset(at, lasting)
        capsys.readouterr()
        try:
            with trainer(run, resume) as t:
                t.fit(STEPS)
        except fastgan.FastganError as error:
            return str(error)
        return capsys.readouterr().err.replace("fastgan: ", "").strip().replace("\n", " | ") or None

    assert attempt() is None
    total, where = faults.count, {}
    assert_same_run(tmp_path / "straight", run)
    for at in range(1, total + 1, 2 if lasting else 1):
        error = attempt(at)
        assert faults.failed, at
        where.setdefault(faults.failed[0], []).append(error)
        assert error is None or (
            "\n" not in error and str(run) in error and error.startswith("can't ")
        ), error
        faults.reset()
        begun = run.exists()
        assert begun or not resume
        if begun and not resume:  # a run that began has a checkpoint that loads at once
            fastgan.load(run)
        with trainer(run, begun) as t:
            assert leftovers(run) == []
            t.fit(STEPS)
        assert_same_run(tmp_path / "straight", run)
        assert leftovers(run) == []
    assert lasting or set(where) >= {
        "mkdir",
        "open",
        "write",
        "fsync",
        "replace",
        "unlink",
        "rmdir",
    }
    for what in set(FULL) & set(where):
        assert None not in where[what], f"a failing {what} was passed over in silence"
    print(f"{total} operations: {', '.join(f'{len(v)} {k}' for k, v in sorted(where.items()))}")
