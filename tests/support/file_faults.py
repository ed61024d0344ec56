"""Failing file operations, and a short run that meets them."""

import builtins
import errno
import io
import os

import torch
from run_support import tiny


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
