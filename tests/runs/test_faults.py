"""Nothing is lost or half-written by a fault at any file operation."""

import builtins
import errno
import hashlib
import io
import os
import shutil

import pytest
import torch
from run_support import assert_same_run, in_a_hurry, leftovers, tiny

import fastgan
from fastgan.monitor import pictures


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
