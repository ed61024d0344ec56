"""Processes that torchrun starts again (`--max-restarts`, a node that comes back) go on with the
run that their job began."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

from fastgan.errors import FastganError
from fastgan.runs.run_folder import RunFolder


def job() -> str | None:
    """What tells this job from all others, in each of its starts: the id of its rendezvous, without
    one the agent that starts the processes, by its number and when it began. None without torchrun.
    """
    identity = os.environ.get("TORCHELASTIC_RUN_ID")
    if identity is None:
        return None
    if identity != "none":
        return f"rendezvous {identity}"
    agent = os.getppid()
    try:
        began = Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        began = "?"
    return f"agent {platform.node()} {agent} {began}"


_mine: set[str] = set()
"""Folders of the runs that this very process began: a second one there is refused as ever."""


def begun(out: Path) -> dict[str, str | float] | None:
    """What run.json keeps of the job that begins a run in `out`; None without torchrun."""
    identity = job()
    _mine.add(os.path.realpath(out))
    return {"id": identity, "began": time.time()} if identity is not None else None


def restarted(out: str | Path | None) -> float | None:
    """When the run in `out` began, in seconds since 1970, if an earlier start of this job began it,
    else None. All processes ask before they join each other, so that all hear the same."""
    mine = job()
    if out is None or mine is None or os.path.realpath(out) in _mine:
        return None
    try:
        found = RunFolder(out).facts().get("job") if RunFolder(out).exists() else None
    except FastganError:
        return None
    return float(found["began"]) if found is not None and found["id"] == mine else None
