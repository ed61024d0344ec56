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
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import triton  # noqa: F401  imported before the fork, so that a mutant costs no import of it

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    """``pattern`` occurs in the one file of the glob ``file`` (from the repository's root) that has it behind ``after``; its
    first occurrence there becomes
    ``replacement``; a check of ``op`` must fail. ``case`` (part of a name) is tried first: the others follow only if it
    notices nothing.
    """

    name: str
    op: str
    file: str
    pattern: str
    replacement: str
    after: str = ""
    case: str = ""
    family: str = ""  # a module of one's own instead of the registered families


def mutate(text: str, m: Mutation) -> str | None:
    """The mutated source, or None if the text to change is not there."""
    start = text.find(m.after)
    at = text.find(m.pattern, start + len(m.after)) if start >= 0 else -1
    return None if at < 0 else text[:at] + m.replacement + text[at + len(m.pattern) :]


def plant(m: Mutation | None, folder: Path) -> str:
    """Copies the package (and the toy op) to ``folder`` with the mutation in it; what is wrong with the mutation, or an empty
    string.
    """
    skip = shutil.ignore_patterns("assets", "__pycache__", "*.gz")
    shutil.copytree(ROOT / "kernels", folder / "kernels", ignore=skip)
    shutil.copytree(
        ROOT / "fastgan", folder / "fastgan", ignore=lambda d, names: {*skip(d, names), *(n for n in names if n == "kernels")}
    )
    (folder / "fastgan" / "kernels").symlink_to(folder / "kernels")
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "toy_ops.py", folder / "tests")
    if m is None:
        return ""
    changed = {path: text for path in sorted(folder.glob(m.file)) if (text := mutate(path.read_text(), m)) is not None}
    if len(changed) != 1:
        return f"the text to change is in {len(changed)} files of {m.file}"
    for path, text in changed.items():
        path.write_text(text)
    return ""


def judge(folder: Path, op: str, family: str, case: str, only: list[int] | None) -> dict[str, object]:
    """Runs the quick checks of ``op`` (``only``: those) in the package under ``folder`` until one fails. Where fastgan was
    never imported.
    """
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    torch.set_num_threads(1)
    import fastgan
    from fastgan.ops import registry
    from fastgan.verify import run

    assert Path(fastgan.__file__).is_relative_to(folder), fastgan.__file__  # not the checkout of an editable install
    cpu = torch.device("cpu")
    registry.load([family] if family else None)
    jobs = [
        (i, replace(j, repeat=False))
        for i, j in enumerate(run.plan(registry.ops(op), "quick", cpu)[0])
        if j.engine != "reference"
    ]
    if only is not None:
        jobs = [(i, j) for i, j in jobs if i in only]
    for i, job in sorted(jobs, key=lambda x: case not in x[1].case):
        for row in run.execute(job, cpu)[0]:
            if row.verdict == "FAIL":
                raised = row.output == "-" and row.note.partition(":")[0].endswith(("Error", "Exception"))
                note = f"{row.case} {row.type} {row.engine} {row.direction} {row.output} error {row.error:.1e}: {row.note}"
                return {"verdict": "raised" if raised else "caught", "note": note, "job": i}
    return (
        {"verdict": "survived", "note": f"{len(jobs)} checks passed"}
        if jobs
        else {"verdict": "raised", "note": "nothing to check"}
    )


def start(scratch: Path, m: Mutation | None, op: str, family: str, case: str, only: list[int] | None) -> int | None:
    """Forks a process that leaves its answer in ``scratch``; its id, or None if the mutation cannot be planted."""
    answer = scratch / "answer.json"
    if wrong := plant(m, scratch):
        answer.write_text(json.dumps({"verdict": "missing", "note": wrong}))
        return None
    pid = os.fork()
    if pid == 0:
        try:
            answer.write_text(json.dumps(judge(scratch, op, family, case, only)))
        except BaseException as e:
            answer.write_text(json.dumps({"verdict": "raised", "note": f"{type(e).__name__}: {' '.join(str(e).split())[-300:]}"}))
        finally:
            os._exit(0)
    return pid


def run_all(
    work: list[tuple[str, Mutation | None, str, str, str, list[int] | None]], at_once: int
) -> dict[str, dict[str, object]]:
    """Judges (name, mutation, op, family, case, only) some at a time, and prints a line of JSON for each."""
    waiting, running, results = list(work), {}, {}

    def finish(name: str, folder: tempfile.TemporaryDirectory[str], began: float) -> None:
        answer = Path(folder.name).resolve() / "answer.json"
        result = json.loads(answer.read_text()) if answer.is_file() else {"verdict": "raised", "note": "the process died"}
        results[name] = {"name": name, **result, "seconds": round(time.perf_counter() - began, 2)}
        print(json.dumps(results[name]), flush=True)
        folder.cleanup()

    while waiting or running:
        while waiting and len(running) < at_once:
            name, *rest = waiting.pop(0)
            folder = tempfile.TemporaryDirectory()
            began = time.perf_counter()
            pid = start(Path(folder.name).resolve(), *rest)
            if pid is None:
                finish(name, folder, began)
            else:
                running[pid] = (name, folder, began)
        if running:
            finish(*running.pop(os.wait()[0]))
    return results


def main(names: list[str]) -> int:
    sys.path.insert(0, str(Path(__file__).parent))
    from mutations import MUTATIONS

    chosen = [m for m in MUTATIONS if not names or any(n in m.name for n in names)]
    at_once = min(4, len(os.sched_getaffinity(0)))
    found = run_all([(m.name, m, m.op, m.family, m.case, None) for m in chosen], at_once)
    # the checks that noticed must pass on the package as it is, or noticing means nothing
    used: dict[tuple[str, str], set[int]] = {}
    for m in chosen:
        if "job" in found[m.name]:
            used.setdefault((m.op, m.family), set()).add(found[m.name]["job"])
    run_all([(f"unchanged {op}", None, op, family, "", sorted(only)) for (op, family), only in used.items()], at_once)
    return 0


if __name__ == "__main__":
    sys.modules["mutants"] = sys.modules["__main__"]  # mutations.py imports Mutation from here
    sys.exit(main(sys.argv[1:]))
