"""Plants bugs in kernel sources and asks whether ``verify --quick`` notices. Run as ``TRITON_INTERPRET=1 python
tests/mutants.py [NAME ...]``.

Each mutant is a copy of the package with one text replaced, verified in a forked process of its own; checks stop at the first
failure. A line of JSON per mutant: caught (by a numeric bound, a guard or a NaN), survived, raised (the mutant does not run:
it proves nothing), or missing (no such text: the kernel changed and the mutation must follow).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import triton  # noqa: F401  imported before the fork, so that a mutant costs no import of it

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    """``pattern`` occurs in ``file`` (from the repository's root); its first occurrence after ``after`` becomes
    ``replacement``; ``op`` must notice.
    """

    name: str
    op: str
    file: str
    pattern: str
    replacement: str
    after: str = ""
    family: str = ""  # a module of one's own instead of the registered families


def mutate(text: str, m: Mutation) -> str | None:
    """The mutated source, or None if the text to change is not there."""
    start = text.find(m.after)
    at = text.find(m.pattern, start + len(m.after)) if start >= 0 else -1
    return None if at < 0 else text[:at] + m.replacement + text[at + len(m.pattern) :]


def plant(m: Mutation | None, folder: Path) -> bool:
    """Copies the package (and tests, for toy ops) to ``folder`` with the mutation in it; False if its text is missing."""
    skip = shutil.ignore_patterns("assets", "__pycache__", "*.gz")
    shutil.copytree(ROOT / "kernels", folder / "kernels", ignore=skip)
    shutil.copytree(
        ROOT / "fastgan", folder / "fastgan", ignore=lambda d, names: {*skip(d, names), *(n for n in names if n == "kernels")}
    )
    (folder / "fastgan" / "kernels").symlink_to(folder / "kernels")
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "toy_ops.py", folder / "tests")
    if m is None:
        return True
    path = folder / m.file
    changed = mutate(path.read_text(), m) if path.is_file() else None
    if changed is None:
        return False
    path.write_text(changed)
    return True


def judge(folder: Path, op: str, family: str) -> dict[str, str]:
    """Runs the quick checks of ``op`` in the package under ``folder`` until one fails. In a process that has not imported
    fastgan yet.
    """
    os.chdir(folder)  # an editable install may have put the checkout itself on the path: the copy goes first, and is asserted
    sys.path.insert(0, str(folder))
    torch.set_num_threads(1)
    import fastgan
    from fastgan.ops import registry
    from fastgan.verify import run

    assert Path(fastgan.__file__).is_relative_to(folder), fastgan.__file__
    cpu = torch.device("cpu")
    registry.load([family] if family else None)
    jobs, _ = run.plan(registry.ops(op), "quick", cpu)
    for job in jobs:
        for row in run.execute(job, cpu)[0]:
            if row.verdict == "FAIL":
                raised = row.output == "-" and row.note.partition(":")[0].endswith(("Error", "Exception"))
                note = f"{row.case} {row.type} {row.engine} {row.direction} {row.output} error {row.error:.1e}: {row.note}"
                return {"verdict": "raised" if raised else "caught", "note": note}
    return (
        {"verdict": "survived", "note": f"{len(jobs)} checks passed"}
        if jobs
        else {"verdict": "raised", "note": "nothing to check"}
    )


def run_one(m: Mutation | None, name: str, op: str, family: str) -> dict[str, object]:
    """One mutant in a forked process (None: the package as it is, which must survive)."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        if not plant(m, folder):
            return {"name": name, "verdict": "missing", "note": "the text to change is not there", "seconds": 0.0}
        answer = folder / "answer.json"
        pid = os.fork()
        if pid == 0:
            try:
                answer.write_text(json.dumps(judge(folder, op, family)))
            except BaseException as e:
                answer.write_text(
                    json.dumps({"verdict": "raised", "note": f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"})
                )
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        crashed = {"verdict": "raised", "note": f"the process died with status {status}"}
        result = json.loads(answer.read_text()) if answer.is_file() else crashed
    return {"name": name, **result, "seconds": round(time.perf_counter() - start, 2)}


def main(names: list[str]) -> int:
    sys.path.insert(0, str(Path(__file__).parent))
    from mutations import MUTATIONS

    chosen = [m for m in MUTATIONS if not names or m.name in names]
    for op, family in dict.fromkeys((m.op, m.family) for m in chosen):
        print(json.dumps(run_one(None, f"unchanged {op}", op, family)), flush=True)
    for m in chosen:
        print(json.dumps(run_one(m, m.name, m.op, m.family)), flush=True)
    return 0


if __name__ == "__main__":
    sys.modules["mutants"] = sys.modules["__main__"]  # mutations.py imports Mutation from here
    sys.exit(main(sys.argv[1:]))
