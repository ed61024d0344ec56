"""Runs that go on by a button: each has a `fastgan train --resume` of its own, which outlives the
pages."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from fastgan.errors import FastganError

LAST = 2**53
ENDED_WELL = {0, *(code for sign in (1, 2, 15) for code in (128 + sign, -sign))}
"""Exit codes of a run that is done, or that SIGHUP, SIGINT or SIGTERM stopped."""


class Training:
    """A process that goes on with a run; `why` says what it ended of, if it failed."""

    def __init__(self, run: Path, steps: int, *, trust: bool = False) -> None:
        if not 0 < steps < LAST:
            raise FastganError(f"there is no step {steps} to go on to")
        self.said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fastgan", "train", "--resume", str(run.absolute())]
            + ["--steps", str(steps), *(["--trust"] if trust else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.said,
            start_new_session=True,  # Ctrl-C is for the pages alone
        )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def why(self) -> str:
        """The last line of what it said, where it failed; '' where it did not, or was stopped."""
        if self.running or self.process.returncode in ENDED_WELL:
            return ""
        self.said.seek(max(0, self.said.seek(0, 2) - 4000))
        lines = self.said.read().decode(errors="replace").strip().splitlines() or [""]
        return lines[-1].removeprefix("fastgan: ") or f"ended with {self.process.returncode}"
