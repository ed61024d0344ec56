"""A result as files: JSON, and CSV with one line a row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FIELDS = (
    "suite",
    "kind",
    "device",
    "compute",
    "batch",
    "row",
    "label",
    "status",
    "error",
    "ms_p20",
    "ms_p50",
    "ms_p80",
    "images_per_s",
    "best",
    "speedup_p20",
    "speedup_p50",
    "speedup_p80",
    "vs_a_p50",
    "step_p50",
    "roofline",
    "saved_MiB",
    "peak_MiB",
    "build_s",
    "startup_s",
    "joules_per_1000_images",
    "watts",
    "sm_mhz",
    "gradient_of_allowed",
    "machine",
    "driver",
    "torch",
    "triton",
    "commit",
    "date",
)


def flat(result: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """One dict a row, with the machine in each."""
    about = result["machine"]
    where = {
        "machine": about["device"],
        **{k: about[k] for k in ("driver", "torch", "triton", "commit", "date")},
    }
    for suite in result["suites"]:
        for entry in suite["rows"]:
            row = {k: suite[k] for k in ("suite", "kind", "device", "compute", "batch")}
            row |= {k: entry[k] for k in FIELDS if k in entry}
            row |= _spread(entry)
            row |= {f"{name}_p50": entry[name][1] for name in ("vs_a", "step") if name in entry}
            if "gradient" in entry:
                row["gradient_of_allowed"] = entry["gradient"]["of_allowed"]
            yield row | where
    for call in result.get("kernels", []):
        for entry in call["rows"]:
            row = {
                "suite": f"{call['op']}: {call['case']}",
                "kind": f"kernel {call['direction']}",
                "device": call["device"],
            }
            row |= {
                "compute": call["type"],
                "row": entry["provider"],
                **{k: entry[k] for k in FIELDS if k in entry},
            }
            yield row | _spread(entry) | where


def _spread(entry: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in ("ms", "speedup"):
        if name in entry:
            found |= dict(zip((f"{name}_p20", f"{name}_p50", f"{name}_p80"), entry[name]))
    return found


def write_csv(result: Mapping[str, Any], path: str | Path) -> None:
    """One line a row."""
    with Path(path).open("w", newline="") as f:
        writer = csv.DictWriter(f, FIELDS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(flat(result))


def write_json(result: Mapping[str, Any], path: str | Path) -> None:
    """Everything that was measured."""
    Path(path).write_text(json.dumps(result, indent=1) + "\n")


def read(folder: str | Path) -> list[dict[str, Any]]:
    """The results in a folder, GPU ones first."""
    found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("bench-*.json"))]
    return sorted(found, key=lambda result: result["machine"]["device"].startswith("CPU"))
