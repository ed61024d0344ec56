"""Tuning tables: committed JSON per GPU model and Triton minor version, looked up and never made at
run time.

A launcher asks ``config(name, dtype, shape, default, device)``. The answer is the exact entry, else
the nearest eligible one (same type, same Triton minor version, at most :data:`MAX_DOUBLINGS` away
in size, shared memory fits the device, same GPU model before same compute capability), else
``default``. Engines are also taken from tables of another Triton minor version, the nearest first,
for they depend on it little; configurations only after ``fastgan tune --recheck``, which compiles
them with the Triton that is here. The user's own tables come first: ``FASTGAN_CONFIG_DIR``, or
``fastgan/tuning`` in the user's configuration directory. ``fastgan tune`` writes them. Lookups are
kept, so a launch costs one dictionary access; they work in graph capture, in custom ops and in the
interpreter (where ``default`` wins).

File ``configs/<gpu>/triton-<minor>.json``::

    {"gpu": "NVIDIA H100 80GB HBM3", "capability": "sm_90", "triton": "3.7", "entries": [
      {"op": "norm_stats", "type": "bf16", "shape": {"c": 256, "rows": 8192}, "engine": "triton",
      "config": {"BLOCK": 64,
      "num_warps": 4},
       "shared": 8192, "ms": 0.01, "error": 1e-3, "torch": "2.13.0", "triton": "3.7.1", "commit":
       "abc1234", "date": "2026-01-31"}]}
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from fastgan import files
from fastgan.errors import FastganError
from fastgan.kernels.common import DTYPE_NAMES, INTERPRET, log2_distance, triton_minor
from fastgan.paths import config_dir

Config = dict[str, Any]
Shape = tuple[tuple[str, int], ...]

SHIPPED = Path(__file__).parent / "configs"
MAX_DOUBLINGS = 3.0  # beyond that, an entry says little about the shape asked for

_overrides: dict[str, Config] = {}
_recording: list[tuple[str, str, Shape]] | None = None


@dataclass(frozen=True)
class Entry:
    """One measured choice. ``op`` is the name the launcher (config) or the dispatcher (engine) asks
    with; ``ms`` and ``error`` are evidence.
    """

    op: str
    type: str
    shape: dict[str, int]
    engine: str = "triton"
    config: Config = field(default_factory=dict)
    shared: int = 0
    ms: float | None = None
    error: float | None = None
    torch: str = ""
    triton: str = ""
    commit: str = ""
    date: str = ""
    # the Triton version that compiled it again, of an entry that another minor version measured
    rechecked: str = ""


@dataclass(frozen=True)
class Table:
    """All entries of one GPU model under one Triton minor version."""

    gpu: str
    capability: str
    triton: str
    entries: tuple[Entry, ...]
    path: Path | None = None


@dataclass(frozen=True)
class Device:
    """What eligibility needs to know of a GPU; made from the driver once per device index, or by
    hand in tests."""

    gpu: str
    capability: str
    shared: int


def slug(gpu: str) -> str:
    """A GPU's name as a folder: ``"NVIDIA H100 80GB HBM3"`` -> ``"nvidia-h100-80gb-hbm3"``."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def read(path: Path) -> Table:
    """The table in ``path``; FastganError names the file and what is wrong with it."""
    try:
        raw = json.loads(path.read_bytes())
        return Table(
            raw["gpu"],
            raw["capability"],
            raw["triton"],
            tuple(Entry(**e) for e in raw["entries"]),
            path,
        )
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise FastganError(
            f"tuning table {path} cannot be read ({type(e).__name__}: {e}): delete it or run "
            "fastgan tune"
        ) from e


def as_text(table: Table) -> str:
    """What :func:`read` reads: entries sorted, a line each, so that diffs stay small."""
    entries = [
        asdict(e)
        for e in sorted(table.entries, key=lambda e: (e.op, e.type, sorted(e.shape.items())))
    ]
    lines = ",\n  ".join(json.dumps(e) for e in entries)
    head = {"gpu": table.gpu, "capability": table.capability, "triton": table.triton}
    return json.dumps(head)[:-1] + ', "entries": [\n  ' + lines + "\n]}\n"


@functools.cache
def tables() -> tuple[Table, ...]:
    """Every table, of every Triton minor version: the user's first, then those shipped. Read once a
    process; :func:`forget` drops them.
    """
    found = []
    for root in (config_dir(), SHIPPED):
        for path in sorted(root.glob("*/triton-*.json")) if files.kind(root) == "folder" else ():
            found.append(read(path))
    return tuple(found)


def minors_away(table: Table) -> int:
    """How far a table's Triton minor version is from the one that is here; 0 for the same, 1000 a
    major version."""
    there, here = (v.split(".") for v in (table.triton, triton_minor()))
    if there == here:
        return 0
    if not all(part.isdigit() for part in (*there, *here)):
        return 10**6  # without Triton
    return abs((int(there[0]) - int(here[0])) * 1000 + int(there[1]) - int(here[1]))


def entries(name: str, capability: str | None = None) -> list[Entry]:
    """All entries for ``name`` in the tables of this Triton minor version, of one compute
    capability (``"sm_90"``) where given.
    """
    mine = [t for t in tables() if not minors_away(t) and capability in (None, t.capability)]
    return [e for t in mine for e in t.entries if e.op == name]


_KEPT: list[Callable[[], None]] = []

Chosen = TypeVar("Chosen")


def kept(choose: Callable[..., Chosen]) -> Callable[..., Chosen]:
    """Keeps what `choose` (a function of hashable arguments) made of the tables, so that a launch
    asks one dictionary.

    Under :func:`override` and :func:`record` every call is seen.
    """
    known = functools.lru_cache(maxsize=4096)(choose)
    _KEPT.append(known.cache_clear)

    @functools.wraps(choose)
    def look(*args: Any) -> Chosen:
        return choose(*args) if _overrides or _recording is not None else known(*args)

    return look


def forget() -> None:
    """Drops tables and lookups kept in this process: after writing a table, or in tests."""
    tables.cache_clear()
    _lookup.cache_clear()
    for clear in _KEPT:
        clear()


@functools.cache
def device_facts(device: torch.device) -> Device | None:
    """Name, capability and shared memory of a CUDA device; None for any other. The only place that
    asks the driver."""
    if device.type != "cuda":
        return None
    p = torch.cuda.get_device_properties(device)
    return Device(
        p.name, f"sm_{p.major}{p.minor}", getattr(p, "shared_memory_per_block_optin", 99 * 1024)
    )


def find(
    name: str,
    dtype: str,
    shape: Shape,
    device: Device,
    among: tuple[Table, ...] | None = None,
    any_minor: bool = False,
) -> Entry | None:
    """The entry for a call: exact, else nearest eligible, else None (the caller's safe default).
    ``any_minor``: tables of other Triton minor versions count too, after the nearer ones.
    """
    best: tuple[float, int, float, Entry] | None = None
    wanted = dict(shape)
    for table in tables() if among is None else among:
        away = minors_away(table)
        if (away and not any_minor) or table.capability != device.capability:
            continue
        foreign = 0.0 if table.gpu == device.gpu else 1.0
        for e in table.entries:
            if (
                e.op != name
                or e.type != dtype
                or e.shape.keys() != wanted.keys()
                or e.shared > device.shared
            ):
                continue
            far = sum(log2_distance(e.shape[k], wanted[k]) for k in wanted)
            if far <= MAX_DOUBLINGS and (best is None or (foreign, away, far) < best[:3]):
                best = (foreign, away, far, e)
    return best[3] if best else None


@functools.cache
def _lookup(
    name: str, dtype: str, shape: Shape, device: torch.device, any_minor: bool = False
) -> Entry | None:
    facts = None if INTERPRET else device_facts(device)
    return find(name, dtype, shape, facts, any_minor=any_minor) if facts else None


def config(
    name: str,
    dtype: torch.dtype | str,
    shape: Shape,
    default: Mapping[str, Any],
    device: torch.device,
) -> Mapping[str, Any]:
    """The launch configuration for kernel ``name``: block sizes, num_warps, num_stages. ``shape``
    is named sizes, ``(("c", 256), ("rows", 8192))``.
    """
    kind = dtype if isinstance(dtype, str) else DTYPE_NAMES[dtype]
    if _recording is not None:
        _recording.append((name, kind, shape))
    if name in _overrides:
        return {**default, **_overrides[name]}
    entry = _lookup(name, kind, shape, device)
    return {**default, **entry.config} if entry and entry.config else default


def engine(name: str, dtype: str, shape: Mapping[str, int], device: torch.device) -> str | None:
    """The engine the tables recommend for op ``name``, those of another Triton minor version too;
    None where they say nothing."""
    entry = _lookup(name, dtype, tuple(shape.items()), device, True)
    return entry.engine if entry else None


@contextlib.contextmanager
def override(configs: Mapping[str, Config]) -> Iterator[None]:
    """Within the block, kernels named in ``configs`` launch with those: how ``verify --full`` tries
    each entry and ``fastgan tune`` each candidate.
    """
    before = dict(_overrides)
    _overrides.update(configs)
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)


@contextlib.contextmanager
def record() -> Iterator[list[tuple[str, str, Shape]]]:
    """Yields a list that collects every (name, type, shape) asked for within the block: what there
    is to tune in a call."""
    global _recording
    before, _recording = _recording, []
    try:
        yield _recording
    finally:
        _recording = before
