"""Plants bugs in kernel sources and asks whether ``verify --quick`` notices. Run as
``TRITON_INTERPRET=1 python tests/support/mutants.py [--share FOLDER] [--at-once N] [NAME ...]``.

Each mutant is a copy of the package with one text replaced, verified in a forked process of its
own; checks stop at the first failure. A line of JSON per mutant: caught (by a numeric bound, a
guard or a NaN), survived, raised (the mutant does not run: it proves nothing), or missing (no such
text: the kernel changed and the mutation must follow). Several processes with one ``--share``
divide the work: each judges what no other has claimed, and ends when all is judged.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

# what a check imports from outside the package, before the fork: it cost each mutant a second or
# two
import torch
import torch._dynamo
import triton.experimental.gluon
import triton.runtime.interpreter  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutation:
    """``pattern`` occurs in the one file of the glob ``file`` (from the repository's root) that has
    it behind ``after``; its first occurrence there becomes ``replacement``; a check of ``op`` must
    fail. ``case`` (part of a name) is tried first: the others follow only if it notices nothing.
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
    """Copies the package (and the toy op) to ``folder`` with the mutation in it; what is wrong with
    the mutation, or an empty string.
    """
    skip = shutil.ignore_patterns("assets", "__pycache__", "*.gz")
    shutil.copytree(ROOT / "kernels", folder / "kernels", ignore=skip)
    shutil.copytree(
        ROOT / "fastgan",
        folder / "fastgan",
        ignore=lambda d, names: {*skip(d, names), *(n for n in names if n in ("kernels", "bench"))},
    )
    (folder / "fastgan" / "kernels").symlink_to(folder / "kernels")
    (folder / "tests" / "support").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "support" / "toy_ops.py", folder / "tests" / "support")
    if m is None:
        return ""
    changed = {
        path: text
        for path in sorted(folder.glob(m.file))
        if (text := mutate(path.read_text(), m)) is not None
    }
    if len(changed) != 1:
        return f"the text to change is in {len(changed)} files of {m.file}"
    for path, text in changed.items():
        path.write_text(text)
    return ""


def judge(
    folder: Path, op: str, family: str, case: str, only: list[int] | None
) -> dict[str, object]:
    """Runs the quick checks of ``op`` (``only``: those) in the package under ``folder`` until one
    fails. Where fastgan was never imported.
    """
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    torch.set_num_threads(1)
    import fastgan
    from fastgan.verify import registry, runner

    assert Path(fastgan.__file__).is_relative_to(folder), (
        fastgan.__file__
    )  # not the checkout of an editable install
    cpu = torch.device("cpu")
    registry.load([family] if family else None)
    jobs = [
        (i, replace(j, repeat=False))
        for i, j in enumerate(runner.plan(registry.ops(op), "quick", cpu)[0])
        if j.engine != "reference"
    ]
    if only is not None:
        jobs = [(i, j) for i, j in jobs if i in only]
    for i, job in sorted(jobs, key=lambda x: case not in x[1].case):
        for row in runner.execute(job, cpu)[0]:
            if row.verdict == "FAIL":
                raised = row.output == "-" and row.note.partition(":")[0].endswith(
                    ("Error", "Exception")
                )
                note = (
                    f"{row.case} {row.type} {row.engine} {row.direction} {row.output} error "
                    f"{row.error:.1e}: {row.note}"
                )
                return {"verdict": "raised" if raised else "caught", "note": note, "job": i}
    return (
        {"verdict": "survived", "note": f"{len(jobs)} checks passed"}
        if jobs
        else {"verdict": "raised", "note": "nothing to check"}
    )


def start(
    scratch: Path, m: Mutation | None, op: str, family: str, case: str, only: list[int] | None
) -> int | None:
    """Forks a process that leaves its answer in ``scratch``; its id, or None if the mutation cannot
    be planted."""
    answer = scratch / "answer.json"
    if wrong := plant(m, scratch):
        answer.write_text(json.dumps({"verdict": "missing", "note": wrong}))
        return None
    pid = os.fork()
    if pid == 0:
        try:
            answer.write_text(json.dumps(judge(scratch, op, family, case, only)))
        except BaseException as e:
            answer.write_text(
                json.dumps(
                    {
                        "verdict": "raised",
                        "note": f"{type(e).__name__}: {' '.join(str(e).split())[-300:]}",
                    }
                )
            )
        finally:
            os._exit(0)
    return pid


class Share:
    """A folder in which processes claim pieces of work by name, and leave their results for each
    other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, name: str, ending: str) -> Path:
        return self.folder / f"{re.sub(r'[^a-zA-Z0-9]+', '-', name)}.{ending}"

    def claim(self, name: str) -> bool:
        """Whether this process is the first to ask for `name`."""
        beside = self._path(name, f"{os.getpid()}.tmp")
        beside.write_text(str(os.getpid()))
        try:
            os.link(
                beside, self._path(name, "claim")
            )  # a claim that others see has its process id in it
        except FileExistsError:
            return False
        finally:
            beside.unlink()
        return True

    def put(self, result: dict[str, object]) -> None:
        path = self._path(str(result["name"]), "json")
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(json.dumps(result))
        beside.replace(path)

    def get(self, name: str) -> dict[str, object]:
        """The result of `name`, once its process has it; that it died is a result, too."""
        path, owner = self._path(name, "json"), int(self._path(name, "claim").read_text())
        while not path.is_file():
            try:
                os.kill(owner, 0)
            except ProcessLookupError:
                if not path.is_file():  # it may have ended well since we looked
                    return {
                        "name": name,
                        "verdict": "raised",
                        "note": f"process {owner}, which had claimed it, died",
                    }
            time.sleep(0.2)
        return json.loads(path.read_text())


def run_all(
    work: list[tuple[str, Mutation | None, str, str, str, list[int] | None]],
    at_once: int,
    share: Share,
) -> dict[str, dict[str, object]]:
    """Judges those of (name, mutation, op, family, case, only) that nobody has claimed, some at a
    time, with a line of JSON for each; returns all results.
    """
    waiting, running = list(work), {}

    def finish(name: str, folder: tempfile.TemporaryDirectory[str], began: float) -> None:
        answer = Path(folder.name).resolve() / "answer.json"
        result = (
            json.loads(answer.read_text())
            if answer.is_file()
            else {"verdict": "raised", "note": "the process died"}
        )
        result = {"name": name, **result, "seconds": round(time.perf_counter() - began, 2)}
        share.put(result)
        print(json.dumps(result), flush=True)
        folder.cleanup()

    while waiting or running:
        while waiting and len(running) < at_once:
            name, *rest = waiting.pop(0)
            if not share.claim(name):
                continue
            folder = tempfile.TemporaryDirectory()
            began = time.perf_counter()
            pid = start(Path(folder.name).resolve(), *rest)
            if pid is None:
                finish(name, folder, began)
            else:
                running[pid] = (name, folder, began)
        if running:
            finish(*running.pop(os.wait()[0]))
    return {name: share.get(name) for name, *_ in work}


def judge_all(chosen: list[Mutation], at_once: int, share: Share) -> None:
    found = run_all([(m.name, m, m.op, m.family, m.case, None) for m in chosen], at_once, share)
    # the checks that noticed must pass on the package as it is, or noticing means nothing
    used: dict[tuple[str, str], set[int]] = {}
    for m in chosen:
        if "job" in found[m.name]:
            used.setdefault((m.op, m.family), set()).add(found[m.name]["job"])
    run_all(
        [
            (f"unchanged {op}", None, op, family, "", sorted(only))
            for (op, family), only in used.items()
        ],
        at_once,
        share,
    )


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from mutations import MUTATIONS

    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=Path)
    parser.add_argument("--at-once", type=int, default=min(4, len(os.sched_getaffinity(0))))
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    chosen = [m for m in MUTATIONS if not given.names or any(n in m.name for n in given.names)]
    with tempfile.TemporaryDirectory() as own:
        judge_all(chosen, given.at_once, Share(given.share or Path(own)))


if __name__ == "__main__":
    sys.modules["mutants"] = sys.modules["__main__"]  # mutations.py imports Mutation from here
    main()
