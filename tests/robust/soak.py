"""An hour of what ends or hurts runs: `make soak`, or

    python tests/robust/soak.py [--seed N] [--scale X] [part ...]

Each part prints a line with its seed and counts, and a line for each failure; the exit code is 1
where there was one. --scale 0.1 tries a tenth.
"""

from __future__ import annotations

# ruff: noqa: E402
import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
os.environ.setdefault("OMP_NUM_THREADS", "1")
above = os.environ.get("PYTHONPATH")  # what is started from here uses this tree, too
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([above] if above else [])])

import file_faults
import fork_client
import fuzz
import kills
import numpy as np
import pytest
import torch
from run_support import assert_same_run, images, in_a_hurry, leftovers, rows, tiny

MEMORY = 10 * 2**30
"""Bytes of address space."""


def _hang(*_: object) -> None:
    raise kills.Hang


class Tally:
    """What a part tried and what went wrong."""

    def __init__(self, part: str, seed: int) -> None:
        self.part, self.seed, self.counts, self.failures = part, seed, {}, []
        self.began = time.process_time()

    def add(self, what: str, n: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + n

    def check(self, name: str, attempt: Callable[[], object]) -> None:
        signal.alarm(300)
        try:
            attempt()
        except (Exception, kills.Hang) as error:
            said = traceback.format_exc().splitlines()
            self.failures.append(f"{name}: {type(error).__name__}: {error} ({said[-3].strip()})")
            print(f"  FAILED {self.part}: {ascii(self.failures[-1])[:600]}", flush=True)
        finally:
            signal.alarm(0)

    def line(self) -> str:
        counts = ", ".join(f"{n:,} {what}" for what, n in self.counts.items())
        return f"{self.part} (seed {self.seed}): {counts}; {len(self.failures)} failures"


def races(folder: Path, chance: random.Random, scale: float, tally: Tally) -> None:
    """Two starts of one run at once: one trains, the other is told so, and nothing is lost."""
    servers = []
    for name in "ab":
        (folder / name).mkdir()
        np.save(folder / name / "images.npy", images(30))
        servers.append(fork_client.Server(folder / name))
    for n in range(max(1, round(20 * scale))):
        out = folder / f"run{n}"

        def race(out: Path = out) -> None:
            for server in servers:
                server.begin(fork_client.command(out, 4))
                time.sleep(chance.choice([0, 0, 0.02]))
            ends = []
            for server in servers:
                event = server.event()
                if event[0] == "started":
                    server.say("go")
                    event = ["ended", str(server.until_end()[1])]
                ends.append(int(event[1]))
            assert sorted(ends) == [0, 2], (ends, [s.log.read_text() for s in servers])
            loser = servers[ends.index(2)].log.read_text()
            told = [line for line in loser.splitlines() if line.startswith("fastgan: ")]
            assert loser.splitlines()[-1:] == told, loser
            assert [row["step"] for row in rows(out / "metrics.jsonl")] == [2, 4]
            assert leftovers(out) == []
            tally.add("races")

        tally.check(f"race {n}", race)
    for server in servers:
        server.process.stdin.close()
        server.process.wait(60)


def disks(folder: Path, chance: random.Random, scale: float, tally: Tally) -> None:
    """A disk that is full from some file operation on: one line, nothing half-written, and the run
    goes on to the same end when there is room."""
    with pytest.MonkeyPatch.context() as patch:
        in_a_hurry(patch)
        with file_faults.trainer(folder / "straight") as t:
            t.fit(file_faults.STEPS)
        run = folder / "run"
        faults = file_faults.Faults(patch, run)
        with file_faults.trainer(run) as t:
            t.fit(file_faults.STEPS)
        total = faults.count
        for at in chance.sample(range(1, total), min(total - 1, max(1, round(20 * scale)))):

            def full(at: int = at) -> None:
                faults.reset()
                shutil.rmtree(run, ignore_errors=True)
                faults.reset(at, lasting=True)
                said = None
                try:
                    with file_faults.trainer(run) as t:
                        t.fit(file_faults.STEPS)
                except fuzz.FastganError as error:
                    said = str(error)
                assert said is None or str(run) in said, said
                faults.reset()
                with file_faults.trainer(run, run.exists()) as t:
                    assert leftovers(run) == []
                    t.fit(file_faults.STEPS)
                assert_same_run(folder / "straight", run)
                tally.add("full disks")

            tally.check(f"operation {at} of {total}", full)


def clocks(folder: Path, chance: random.Random, scale: float, tally: Tally) -> None:
    """A clock that jumps by days, forwards and back, changes no number."""
    torch.manual_seed(0)
    with tiny(folder / "straight") as t:
        t.fit(20)
    for n in range(max(1, round(10 * scale))):

        def jump(n: int = n) -> None:
            real = time.time
            with pytest.MonkeyPatch.context() as patch:
                in_a_hurry(patch)
                patch.setattr(time, "time", lambda: real() + chance.uniform(-9e7, 9e7))
                torch.manual_seed(0)
                with tiny(folder / f"run{n}") as t:
                    t.fit(20)
            assert_same_run(folder / "straight", folder / f"run{n}")
            tally.add("runs under a jumping clock")

        tally.check(f"jump {n}", jump)


def memory(folder: Path, chance: random.Random, scale: float, tally: Tally) -> None:
    """Memory and descriptors stay flat over many steps."""
    page = os.sysconf("SC_PAGE_SIZE")
    resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * page / 2**20
    descriptors = lambda: len(os.listdir("/proc/self/fd"))
    steps = max(500, round(50_000 * scale))
    patch = pytest.MonkeyPatch()
    in_a_hurry(patch)
    options = {"log_every": 50, "sample_every": steps // 20, "checkpoint_every": steps // 10}
    with tiny(folder / "run", **options) as trainer:
        trainer.fit(steps // 10)
        before = resident(), descriptors()
        trainer.fit(steps)
        after = resident(), descriptors()
    patch.undo()
    tally.add("steps", steps)
    print(
        f"  {before[0]:.0f} MiB, {before[1]} descriptors at step {steps // 10:,}; {after[0]:.0f} "
        f"MiB, {after[1]} at step {steps:,}",
        flush=True,
    )

    def flat() -> None:
        assert after[0] - before[0] < 24, "memory grows"
        assert after[1] <= before[1], "descriptors grow"

    tally.check("flat", flat)


PARTS = {
    "files": lambda *given: fuzz.files(*given),
    "options": lambda *given: fuzz.options(*given),
    "calls": lambda *given: fuzz.calls(*given),
    "races": races,
    "disks": disks,
    "clocks": clocks,
    "kills": kills.singles,
    "pairs": kills.pairs,
    "memory": memory,
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _hang)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # what asks for more is refused
    failed = 0
    for name in given.parts or PARTS:
        tally = Tally(name, given.seed)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            os.environ["FASTGAN_CACHE"] = f"{folder}-cache"
            chance = random.Random(f"{given.seed} {name}")
            try:
                PARTS[name](Path(folder), chance, given.scale, tally)
            except Exception:
                traceback.print_exc()
                tally.failures.append("the part itself")
        print(f"{tally.line()}  ({time.process_time() - tally.began:.0f} s)", flush=True)
        shutil.rmtree(f"{folder}-cache", ignore_errors=True)
        failed += len(tally.failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
