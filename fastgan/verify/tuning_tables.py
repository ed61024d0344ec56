"""Tuning tables as files: where a device's lies, entries merged into it, and what other Triton
versions measured taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastgan import files, machine, paths
from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels.common import has_triton, triton_minor
from fastgan.kernels.tuning import Entry, Table
from fastgan.verify import registry


def save(path: Path, table: Table) -> None:
    """Write ``table`` whole. Raises FastganError."""
    with files.explained(f"can't write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, tuning.as_text(table).encode())


def merge(path: Path, device: torch.device, new: Sequence[Entry]) -> Table:
    """Puts ``new`` into the table at ``path`` (made if missing), over entries of the same op, type
    and shape; writes and returns it.
    """
    facts = tuning.device_facts(device)
    if facts is None:
        raise FastganError("fastgan tune needs a GPU: tables are kept per GPU model")
    old = tuning.read(path).entries if path.is_file() else ()
    return _write(path, facts.gpu, facts.capability, [*old, *new])


def key_of(e: Entry) -> tuple[Any, ...]:
    """What an entry is looked up by."""
    return e.op, e.type, tuple(sorted(e.shape.items()))


def _write(path: Path, gpu: str, capability: str, entries: Sequence[Entry]) -> Table:
    """The table of these entries, of equal ones the last, written to ``path``."""
    table = Table(
        gpu, capability, triton_minor(), tuple({key_of(e): e for e in entries}.values()), path
    )
    save(path, table)
    tuning.forget()
    return table


def recheck(ship: bool, say: Callable[[str], None]) -> int:
    """Takes what other Triton minor versions measured into tables of this one, the nearest version
    first: engines as they are, configurations that this Triton compiles for that GPU without a
    spill and within its shared memory. What this version measured stands. Needs no GPU. 0 where a
    table was there.
    """
    from fastgan.verify import aot

    if not has_triton:
        raise FastganError(
            "fastgan tune --recheck compiles, which needs Triton: pip install triton"
        )
    registry.load()
    others = sorted((t for t in tuning.tables() if tuning.minors_away(t)), key=tuning.minors_away)
    for table in others:
        if table.capability not in aot.SHARED_LIMIT:
            say(f"{table.path}: {table.capability} is no target that Triton compiles for")
            continue
        folder = (tuning.SHIPPED if ship else paths.config_dir()) / tuning.slug(table.gpu)
        path = folder / f"triton-{triton_minor()}.json"
        old = tuning.read(path).entries if path.is_file() else ()
        taken: list[Entry] = []
        todo = [e for e in table.entries if key_of(e) not in {key_of(o) for o in old}]
        for entry in todo:
            rows = aot.recheck(entry, table.capability) if entry.config else []
            if wrong := next((r for r in rows if r.verdict == "FAIL"), None):
                say(
                    f"left: {entry.op} {entry.type} {entry.shape} {entry.config}: {wrong.kernel} "
                    f"{wrong.note}"
                )
                continue
            shared = max((r.shared for r in rows), default=entry.shared)
            taken.append(
                replace(
                    entry, shared=shared, rechecked=machine.describe(torch.device("cpu"))["triton"]
                )
            )
        if taken:
            _write(path, table.gpu, table.capability, [*old, *taken])
        say(f"{len(taken)} of {len(todo)} entries of {table.path} taken into {path}")
    if not others:
        say("no table of another Triton minor version")
    return int(not others)


def table_path(device: torch.device, ship: bool) -> Path:
    """Where a device's table belongs: the user's folder, or (``ship``) the package's, to be
    committed."""
    facts = tuning.device_facts(device)
    if facts is None:
        raise FastganError("fastgan tune needs a GPU: tables are kept per GPU model")
    root = tuning.SHIPPED if ship else paths.config_dir()
    return root / tuning.slug(facts.gpu) / f"triton-{triton_minor()}.json"
