"""What was measured on this CPU: a JSON file per CPU, instruction set, threads and torch version.

    {"cpu": "AMD EPYC", "instructions": "AVX512 bf16", "threads": 2, "torch": "2.13.0+cpu",
     "operations": {"up fp32 64 64x1 32x32 4x4 2x2 1x1": {"onednn": 6.35, "fold": 1.02}}}

Milliseconds of each form of each operation; the fastest is the choice. A file of another CPU, or
one that can't be read, counts for nothing; one that can't be written is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from fastgan import files, paths
from fastgan.cpu.identity import identity
from fastgan.errors import FastganError

FASTER = 0.93
"""Another form is taken where it needs at most this part of PyTorch's time."""

Times = dict[str, float]


class CpuTable:
    """operations: {operation's key: {form: milliseconds}} of this CPU."""

    def __init__(self, operations: dict[str, Times] | None = None) -> None:
        self.operations = operations or {}

    def form(self, key: str) -> str:
        """The form that was fastest, or "onednn" where nothing was measured."""
        times = self.operations.get(key, {})
        best = min(times, key=lambda form: times[form], default="onednn")
        return best if times.get(best, 0.0) < FASTER * times.get("onednn", 0.0) else "onednn"

    def ms(self, key: str) -> float | None:
        """Milliseconds of the form that is taken."""
        return self.operations.get(key, {}).get(self.form(key))


def path() -> Path:
    """Where this CPU's file is. Raises FastganError where no folder is known."""
    mark = hashlib.sha256(json.dumps(identity(), sort_keys=True).encode()).hexdigest()[:16]
    return paths.cache_dir() / "cpu" / f"{mark}.json"


def load() -> CpuTable:
    """This CPU's table; an empty one where there is none that counts."""
    with contextlib.suppress(OSError, ValueError, TypeError, FastganError, AttributeError):
        raw = json.loads(files.read(path(), files.TEXT))
        if {name: raw.get(name) for name in identity()} == identity():
            return CpuTable(
                {
                    str(key): {str(form): float(ms) for form, ms in times.items()}
                    for key, times in raw["operations"].items()
                }
            )
    return CpuTable()


def save(table: CpuTable) -> str | None:
    """Add what was measured to this CPU's file. Returns why that was not possible, or None."""
    try:
        together = {**load().operations, **table.operations}
        where = path()
        where.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**identity(), "operations": together}, indent=1)
        files.write_atomically(where, text.encode())
    except (OSError, FastganError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None
