"""How many threads a process has, how they wait for each other, and whether the machine has room
for them.

Needs no torch: the OpenMP runtime reads its settings when torch loads it.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""For GNU's runtime, which torch's wheels bring, and for Intel's and LLVM's."""

OWN = (*WAITING, "GOMP_SPINCOUNT")

NUMBERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What users set the number of threads by."""


def wait_quietly() -> None:
    """Let threads that wait give their core away, unless the user has set it otherwise: a barrier
    that spins costs trainings side by side most of their speed. To be called before torch is
    imported."""
    if not any(name in os.environ for name in OWN):
        os.environ.update(WAITING)


def stay_within_quota() -> None:
    """Let torch start no more threads than the process has processor time for, unless the user has
    set their number: a container sees all cores of its machine, however few are its own, and
    threads in excess wait for each other. To be called before torch is imported."""
    allowed = quota()
    if allowed is None or any(name in os.environ for name in NUMBERS):
        return
    if (threads := max(1, math.floor(allowed))) < (os.cpu_count() or 1):
        os.environ["OMP_NUM_THREADS"] = str(threads)


def quota(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Processors' time that Linux gives this process (2.5: two and a half of them), None where it
    is not limited or can't be known."""
    found = []
    for folder in _groups(own, root):
        # cgroup v2 has one file: "max 100000" or "250000 100000"; v1 a file for each number
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                words = " ".join((folder / name).read_text() for name in names).split()
                time, period = map(int, words)  # a ValueError for "max": no limit
                if time > 0:
                    found.append(time / period)
    return min(found, default=None)


def _groups(own: Path, root: Path) -> Iterator[Path]:
    """Folders of the groups that this process is in, and those above them."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        inner = top / path.strip("/")
        yield from (inner, *(p for p in inner.parents if p.is_relative_to(top)))


def busy(cores: int) -> str | None:
    """One line where others use this machine's cores; None where they do not, or it can't be
    known."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
    if load < 0.75 * cores:
        return None
    return (
        f"this machine is busy (load {load:.1f} on {cores} cores): training shares them; with "
        "OMP_NUM_THREADS=1 trainings side by side disturb each other least"
    )
