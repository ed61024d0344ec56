"""Runs `fastgan` commands in forked children, so that killing dozens of real processes does not
import torch dozens of times.

Reads one JSON request a line, runs it to its end, and writes events, one a line: `pid N`; `started
STEP` when a trainer is ready, after which the child waits for a line `go`; `enter STEP`, `op N
WHAT` and `exit STEP` around and inside the writing of a checkpoint, on whatever thread that is;
`ended STATUS` (minus the signal, or the exit code).
"""

import contextlib
import json
import os
import sys
import tempfile
import threading
import time

import torch
from stand_ins import Eye

from fastgan import files
from fastgan.cli.main import main
from fastgan.data import rendered
from fastgan.models.frozen import projected
from fastgan.runs.checkpoint import Checkpoints
from fastgan.trainer import trainer
from fastgan.trainer.stages import active

torch.set_num_threads(1)
EVENTS = 9


def emit(line: str) -> None:
    os.write(EVENTS, f"{line}\n".encode())


def line_in() -> str:
    data = b""
    while not data.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(0)
        data += byte
    return data.decode().strip()


class InsideSaves:
    """Reports every file operation of a save before it is done, and gives a killer time to act on
    it."""

    def __init__(self, pause: float) -> None:
        self.pause, self.count, self.writer = pause, 0, None
        write, write_all = Checkpoints._write, files.write_all

        def watched_write(checkpoints, step, *rest):
            emit(f"enter {step}")
            self.writer, self.count = threading.get_ident(), 0
            try:
                return write(checkpoints, step, *rest)
            finally:
                self.writer = None
                emit(f"exit {step}")

        def torn_write(f, data):
            self.report("write")
            write_all(f, data[: len(data) // 2])
            self.report("write-rest")
            write_all(f, data[len(data) // 2 :])

        Checkpoints._write, files.write_all = watched_write, torn_write
        for name in ("mkdir", "replace", "fsync", "unlink", "rmdir"):
            setattr(os, name, self.watched(name, getattr(os, name)))

    def report(self, what: str) -> None:
        if self.writer == threading.get_ident():
            emit(f"op {self.count} {what}")
            self.count += 1
            time.sleep(self.pause)

    def watched(self, name, call):
        def watched_call(*args, **kwargs):
            self.report(name)
            return call(*args, **kwargs)

        return watched_call


def child(request) -> None:
    os.environ.update(request.get("environment", {}))
    if request.get("few"):  # rendered sets of a few images, and no weights of others
        projected.eye = Eye
        for name, (draw, _) in rendered.RENDERED.items():
            rendered.RENDERED[name] = (draw, 12 if name == "sprites" else 40)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    fit, run = trainer.Trainer.fit, active.ActiveStage.train_step

    def held_fit(self, *args, **kwargs):
        emit(f"started {self.step}")
        line_in()
        return fit(self, *args, **kwargs)

    def slow_step(self, step):
        emit(f"step {step}")
        time.sleep(request.get("step_pause", 0))
        return run(self, step)

    trainer.Trainer.fit = held_fit
    if "step_pause" in request:
        active.ActiveStage.train_step = slow_step
    if "pause" in request:
        InsideSaves(request["pause"])
    main(request["argv"])


def warm_up() -> None:
    """One run in this process: what torch imports when it is first used is then shared by all
    children."""
    log, here = os.open(os.devnull, os.O_WRONLY), os.dup(1)
    os.dup2(log, 1)
    os.dup2(log, 2)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SystemExit):
        tiny = ["--hidden-g=2", "--hidden-d=2", "--device=cpu", "--steps=1", "--size=8"]
        main(["train", "--recipe=gan", *tiny, f"--out={folder}/run"])
    os.dup2(here, 1)


os.dup2(1, EVENTS)
warm_up()
while True:
    if (line := line_in()) == "go":  # of a child that was killed before it read it
        continue
    request = json.loads(line)
    pid = os.fork()
    if pid == 0:
        try:
            child(request)
        except SystemExit as done:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(done.code if isinstance(done.code, int) else 1)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    emit(f"pid {pid}")
    _, status = os.waitpid(pid, 0)
    emit(f"ended {os.waitstatus_to_exitcode(status)}")
