"""SIGKILL of real runs of every recipe, of one process and of two."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from threading import Timer
from typing import Any

from fork_client import Server
from PIL import Image
from run_support import assert_same_run, images, leftovers, rows
from tiny_recipes import flags

from fastgan import recipes
from fastgan.recipes.translation.base import FromImage
from fastgan.runs.run_folder import RunFolder

EVERY = 2
"""Steps from one checkpoint, and one row, to the next."""
SAVING = ["--checkpoint-every", f"{EVERY}", "--log-every", f"{EVERY}"]
SAVING += ["--sample-every", "4", "--keep", "2"]
STEPS = 30
OWN = {"progressive": ["--stage-steps", "6"]}
"""So that kills fall into all stages."""
APART = {("cyclegan", 2)}
"""What keeps state that no checkpoint holds: docs/many-gpus.md."""


class Hang(BaseException):
    """Something takes too long; raised by an alarm, through whoever catches Exception."""


HANGS = 500
"""Seconds for a start and its end: a busy machine may give it a twentieth of a core."""


def start_of(recipe: str, folder: Path) -> list[str]:
    """Flags of a tiny run of any recipe."""
    if issubclass(cls := recipes.find(recipe), FromImage):
        own = ["--data", str(folder / "pictures")] if cls.data == "fashion-mnist" else []
        return ["--size", "16", "--width", "4", "--batch-size", "4", *own]
    return [*flags(recipe), "--batch-size", "4", *OWN.get(recipe, [])]


def pictures(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for i, image in enumerate(images(40, 16, 3)):
        Image.fromarray(image).save(folder / "pictures" / f"{i:02}.png")


def contents(run: Path) -> set[str]:
    """Of a run's folder, but for its checkpoints."""
    paths = [p.relative_to(run) for p in run.rglob("*")]
    return {str(p) for p in paths if p.parts[0] != "checkpoints"}


def singles(folder: Path, chance: random.Random, scale: float, tally: Any) -> None:
    """Kills of runs of one process: what was saved is there, the end is the same bit for bit."""
    every_recipe(folder, 1, chance, scale, tally)


def pairs(folder: Path, chance: random.Random, scale: float, tally: Any) -> None:
    """Kills of one or both of two processes: the other ends by itself, and the same."""
    every_recipe(folder, 2, chance, scale, tally)


def every_recipe(
    folder: Path, processes: int, chance: random.Random, scale: float, tally: Any
) -> None:
    pictures(folder)
    servers: list[Server] = []
    often, failures = max(1, round(13 * scale)), 0
    for recipe in recipes.RECIPES:
        if not servers or len(tally.failures) > failures:  # which leaves events unread
            failures = len(tally.failures)
            close(servers)
            servers = [server_in(folder / f"{recipe}-{rank}") for rank in range(processes)]
        with Killed(recipe, servers, folder, chance) as run:
            tally.check(f"{recipe}, {processes}", lambda run=run: run.often(often))
            told = ", ".join(f"{n} {what}" for what, n in run.counts.items())
            print(f"  {recipe}, {processes}: {told}", flush=True)
        for what, n in run.counts.items():
            tally.add(what, n)
    close(servers)


def server_in(folder: Path) -> Server:
    folder.mkdir()
    return Server(folder)


def close(servers: list[Server]) -> None:
    for server in servers:
        server.process.stdin.close()
        try:
            server.process.wait(60)
        except subprocess.TimeoutExpired:
            server.process.kill()


@dataclasses.dataclass
class Plan:
    """When which processes of a start are killed: before a file operation of its saves, or after a
    time, which begins with the start or with its training. Nothing of these: never."""

    victims: tuple[int, ...] = ()
    operation: int | None = None
    starting: float | None = None
    training: float | None = None

    @classmethod
    def drawn(cls, chance: random.Random, usual: Start) -> Plan:
        """One for a run that takes as long as `usual`."""
        which = {1: [(0,)], 2: [(0,), (1,), (0, 1)]}[len(usual.statuses)]
        kind = chance.random()
        if kind < 0.5:
            aim = chance.randrange(max(1, usual.operations // 4))
            return cls(chance.choice(which), operation=aim)
        if kind < 0.8:
            return cls(chance.choice(which), training=chance.uniform(0, usual.trained / 2))
        # both, as what starts them does: one would wait for the other, which never comes
        return cls(which[-1], starting=chance.uniform(0, usual.started))


class Killed:
    """A run of `recipe` that is killed again and again, and the same one left alone."""

    def __init__(
        self, recipe: str, servers: list[Server], folder: Path, chance: random.Random
    ) -> None:
        self.recipe, self.servers, self.chance = recipe, servers, chance
        self.processes = len(servers)
        self.out, self.straight = folder / f"{recipe}-killed", folder / f"{recipe}-straight"
        begin = ["train", "--recipe", recipe, *start_of(recipe, folder), *SAVING]
        self.argv = [*begin, "--device", "cpu", "--steps", str(STEPS), "--out"]
        self.counts = {"kills": 0}
        self.saved = self.entered = 0
        self.live: list[int] = []

    def __enter__(self) -> Killed:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.live:  # where a check failed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for left in (self.out, self.straight):
            shutil.rmtree(left, ignore_errors=True)

    def said(self) -> list[str]:
        return [server.log.read_text()[-2000:] for server in self.servers]

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def often(self, kills: int) -> None:
        for out in (self.straight, self.out):  # the second shows what is the same without kills
            usual = Start(self, [*self.argv, str(out)], Plan(), {})
        self.compare()
        job = False
        while self.counts["kills"] < kills or RunFolder(self.out).exists():
            begun = RunFolder(self.out).exists()
            if not begun:
                self.saved = self.entered = 0
                job = self.processes > 1 and self.chance.random() < 0.5
            # torchrun starts the same command again, which goes on by itself
            resuming = begun and not job
            argv = ["train", "--resume", str(self.out)] if resuming else [*self.argv, str(self.out)]
            more = self.counts["kills"] < kills and self.chance.random() < 0.85
            plan = Plan.drawn(self.chance, usual) if more else Plan()
            start = Start(self, argv, plan, {"TORCHELASTIC_RUN_ID": "a job"} if job else {})
            if not any(start.statuses):
                self.compare()
                self.count("ends compared")

    def compare(self) -> None:
        """That the run ended like the straight one, and remove it."""
        assert leftovers(self.out) == []
        # each stop leaves one picture more
        assert (gone := contents(self.straight) - contents(self.out)) == set(), gone
        if (self.recipe, self.processes) in APART:
            steps = [row["step"] for row in rows(self.out / "metrics.jsonl")]
            assert steps == list(range(EVERY, STEPS + 1, EVERY))
        else:
            assert_same_run(self.straight, self.out)
            for picture in self.straight.glob("traversal-*.png"):
                assert picture.read_bytes() == (self.out / picture.name).read_bytes(), picture
        shutil.rmtree(self.out)


class Start:
    """One start of the processes, from its begin to its end.

    Attributes:
        statuses: Of each process.
        operations: How many file operations its saves had.
        started, trained: Seconds until training began, and from there to the end.
    """

    def __init__(
        self, run: Killed, argv: list[str], plan: Plan, environment: dict[str, str]
    ) -> None:
        self.run, self.plan = run, plan
        self.operations, self.started, self.trained = 0, 0.0, 0.0
        self.training = self.inside = self.killed = False
        signal.alarm(HANGS)
        if run.processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            world = {"WORLD_SIZE": str(run.processes), "MASTER_ADDR": "127.0.0.1"}
            environment = {**environment, **world, "MASTER_PORT": port}
        self.began = time.monotonic()
        run.live = [
            server.begin(
                argv,
                few=True,
                environment={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                **({"pause": 0.002 if plan.operation is not None else 0} if rank == 0 else {}),
            )
            for rank, server in enumerate(run.servers)
        ]
        self.victims = [run.live[i] for i in plan.victims]
        for server in run.servers:
            server.say("go")
        timer = self.kill_after(plan.starting)
        self.statuses: list[int] = []
        try:
            self.statuses.append(self.follow(run.servers[0]))
            self.statuses += [server.until_end()[1] for server in run.servers[1:]]
        except Hang as hang:
            now = "killed" if self.killed else "training" if self.training else "starting"
            raise AssertionError(f"hangs: {plan}, {now}, {self.statuses}, {run.said()}") from hang
        finally:
            timer.cancel()
        run.live = []
        self.trained = time.monotonic() - self.began - self.started
        self.check()

    def kill_after(self, seconds: float | None) -> Timer:
        timer = Timer(seconds or 0, self.kill)
        if seconds is not None:
            timer.start()
        return timer

    def kill(self) -> None:
        self.killed = True
        for pid in self.victims:
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(pid, signal.SIGKILL)

    def follow(self, server: Server) -> int:
        """The first process to its end: its status."""
        run, timer = self.run, self.kill_after(None)
        while (event := server.event())[0] != "ended":
            if event[0] == "started":
                at = int(event[1])
                assert run.saved <= at <= run.entered, (
                    f"step {run.saved} was saved, {run.entered} begun, {at} is what is left"
                )
                assert leftovers(run.out) == []
                self.training, self.started = True, time.monotonic() - self.began
                run.saved = at
                timer = self.kill_after(self.plan.training)
            elif event[0] == "enter":
                run.entered, self.inside = int(event[1]), True
            elif event[0] == "exit":
                run.saved, self.inside = int(event[1]), False
            elif event[0] == "op":
                if self.operations == self.plan.operation:
                    self.kill()
                self.operations += 1
        timer.cancel()
        return int(event[1])

    def check(self) -> None:
        """That nobody but the victims was killed, and the other ended by itself with a line."""
        run, said = self.run, self.run.said()
        for rank, status in enumerate(self.statuses):
            right = {0} if not self.killed else {0, -9} if rank in self.plan.victims else {0, 1, 2}
            assert status in right, (self.statuses, said)
        assert not any("Traceback" in each for each in said), said
        if -9 not in self.statuses:
            return
        assert RunFolder(run.out).exists() or not self.training
        run.count("kills")
        if run.processes > 1:
            run.count({(0,): "first", (1,): "second", (0, 1): "both"}[self.plan.victims])
        if not self.training:
            run.count("starting")
        if self.statuses[0] == -9 and self.inside:
            run.count("inside a save")
