"""How the threads of a process wait for each other, and whether the machine has room for them.

Needs no torch: the OpenMP runtime reads its settings when torch loads it.
"""

from __future__ import annotations

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""For GNU's runtime, which torch's wheels bring, and for Intel's and LLVM's."""

OWN = (*WAITING, "GOMP_SPINCOUNT")


def wait_quietly() -> None:
    """Let threads that wait give their core away, unless the user has set it otherwise: a barrier
    that spins costs trainings side by side most of their speed. To be called before torch is
    imported."""
    if not any(name in os.environ for name in OWN):
        os.environ.update(WAITING)


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
