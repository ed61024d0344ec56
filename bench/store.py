"""Measured rows, one JSON line each: appended as they come, so that a run cut short loses nothing
and the next one goes on."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from fastgan.kernels.tuning import slug
from fastgan.machine import describe

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


@functools.cache
def source_hash() -> str:
    """Changes with any kernel or op: rows of ours are measured again then, rows of PyTorch's are
    not."""
    digest = hashlib.sha256()
    for folder in (ROOT / "kernels", ROOT / "fastgan" / "ops"):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@functools.cache
def machine() -> dict[str, str]:
    """What a row was measured on."""
    here = describe(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return {key: here[key] for key in ("device", "torch", "triton", "cuda", "commit")}


class Store:
    """Rows already known (``bench/results`` and ``out``) and new ones, written to ``out``, else to
    ``bench/results``.

    A row is known by its stage and key, on the same device and PyTorch, and, where ``ours``, from
    the same kernel sources. Failures are not kept from being tried again by a later run, only by
    this one.
    """

    def __init__(self, out: str | None = None) -> None:
        name = f"{slug(machine()['device'] if torch.cuda.is_available() else 'cpu')}.jsonl"
        self.path = (Path(out) if out else RESULTS) / name
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.began = time.time()
        self.rows: list[dict[str, Any]] = []
        for path in dict.fromkeys((RESULTS / name, self.path)):
            if path.is_file():
                self.rows += [
                    json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")
                ]

    def find(self, stage: str, key: str, ours: bool) -> dict[str, Any] | None:
        """The row measured before, or None."""
        here = machine()
        for row in reversed(self.rows):
            same = (
                row["stage"] == stage
                and row["key"] == key
                and row["device"] == here["device"]
                and row["torch"] == here["torch"]
            )
            fresh = not ours or row.get("source") == source_hash()
            kept = "failed" not in row or row["run"] == os.environ.get("FASTGAN_BENCH_RUN")
            if same and fresh and kept and "partial" not in row:
                return row
        return None

    def partial(self, stage: str, key: str) -> bool:
        """Whether this run has stored a part of a row that was then cut short."""
        run = os.environ.get("FASTGAN_BENCH_RUN")
        return any(
            r["stage"] == stage and r["key"] == key and "partial" in r and r["run"] == run
            for r in self.rows
        )

    def add(self, stage: str, key: str, ours: bool, values: dict[str, Any]) -> dict[str, Any]:
        """Appends a row and flushes it to the disk."""
        stamp = {
            "run": os.environ.get("FASTGAN_BENCH_RUN", ""),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
        row = {
            "stage": stage,
            "key": key,
            **({"source": source_hash()} if ours else {}),
            **values,
            **machine(),
            **stamp,
        }
        line = json.dumps(row, default=str) + "\n"
        with self.path.open("ab", buffering=0) as f:  # one write: others append at the same time
            f.write(line.encode())
            os.fsync(f.fileno())
        self.rows.append(row)
        return row

    def latest(self, name: str) -> list[dict[str, Any]]:
        """The latest row of each key of a stage, on this device and PyTorch."""
        latest: dict[str, dict[str, Any]] = {}
        here = machine()
        for row in self.rows:
            if (
                row["stage"] == name
                and row["device"] == here["device"]
                and row["torch"] == here["torch"]
            ):
                latest[row["key"]] = row
        return list(latest.values())

    def stage(self, name: str) -> list[dict[str, Any]]:
        """The latest rows without failures: one hides what was measured before it."""
        return [row for row in self.latest(name) if "failed" not in row]
