"""What the watch says of planted illnesses and of good runs:

    python tests/robust/watch.py ill [name ...]      each is to be named within 300 steps
    python tests/robust/watch.py good [recipe ...] [--steps 3000]     no alert

Tiny DCGANs of 16x16 pixels on the bundled images; a line for each, exit code 1 where one is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402

import fastgan  # noqa: E402
from fastgan.cli.main import main as cli  # noqa: E402
from fastgan.models.dcgan import Discriminator, Generator  # noqa: E402
from fastgan.objectives import Adversarial  # noqa: E402
from fastgan.trainer.optimization.optimizers import adam  # noqa: E402

LATE, WITHIN = 300, 300
"""When illnesses that come later are planted; steps until they are to be named."""

Plan = tuple[dict[str, Any], Callable[[Any], None] | None, set[str]]
"""Options of the run; what is done to the trainer at step LATE (None: it is ill from the start);
the causes that are right."""


class Blind(torch.nn.Module):
    """A network that can be made to ignore its input."""

    def __init__(self, net: torch.nn.Module, open: float = 1.0) -> None:
        super().__init__()
        self.net, self.open = net, open

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x * self.open)


def blind(name: str) -> Callable[[Any], None]:
    def change(trainer: Any) -> None:
        for nets in (trainer.nets, trainer.ema):
            if name in nets:
                nets[name].open = 0.0

    return change


def scale_last(net: torch.nn.Module, factor: float) -> None:
    with torch.no_grad():
        for p in list(net.parameters())[-1:]:
            p.mul_(factor)


def rates(g: float, d: float) -> dict[str, Any]:
    return {"optimizers": {"G": adam(g, (0.5, 0.999)), "D": adam(d, (0.5, 0.999))}}


def set_rate(name: str, rate: float) -> Callable[[Any], None]:
    def change(trainer: Any) -> None:
        for group in trainer.optimizers[name].param_groups:
            group["lr"] = rate

    return change


def poison(trainer: Any) -> None:
    with torch.no_grad():
        next(trainer.nets["G"].parameters())[:1] = float("nan")


STRONG, FINITE = "discriminator-too-strong", "non-finite"
ILL: dict[str, Plan] = {
    "constant generator": ({"blind": "G"}, None, {"collapse"}),
    "G's rate is 0": (rates(0.0, 2e-4), None, {"stall"}),
    "D's rate is 0": (rates(2e-4, 0.0), None, {"stall"}),
    "both rates are 1e-7": (rates(1e-7, 1e-7), None, {"stall"}),
    "D a hundred times as fast": (rates(2e-5, 2e-3), None, {STRONG, "collapse"}),
    "a margin that grows without bound": (
        {**rates(1e-5, 1e-2), "objective": Adversarial("wasserstein", (16, 1, 1))},
        None,
        {STRONG, FINITE},
    ),
    "rates of 0.5": (rates(0.5, 0.5), None, {FINITE, STRONG, "collapse", "oscillation"}),
    "D is blind": ({"blind": "D"}, None, {"stall", "generator-too-strong"}),
    "G collapses": ({}, blind("G"), {"collapse"}),
    "D's outputs grow a thousandfold": (
        {},
        lambda t: scale_last(t.nets["D"], 1000.0),
        {STRONG, "generator-too-strong"},
    ),
    "a weight becomes NaN": ({}, poison, {FINITE}),
    "G stops to learn": ({}, set_rate("G", 0.0), {"stall"}),
    "D stops to learn": ({}, set_rate("D", 0.0), {"stall"}),
}


class Plant:
    """Does something to a trainer after LATE steps."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        self.change = change

    def on_step(self, trainer: Any) -> None:
        if trainer.step == LATE:
            self.change(trainer)


def ill(name: str, folder: Path) -> tuple[bool, str]:
    """(whether it was named rightly and in time, what was said when)."""
    changed, late, right = ILL[name]
    options = {k: v for k, v in changed.items() if k != "blind"}
    torch.manual_seed(0)
    closed = changed.get("blind")
    made = {"G": Generator(16, 1, 16, 8), "D": Discriminator(16, 1, 8)}
    nets = {n: Blind(net, 0.0 if n == closed else 1.0) for n, net in made.items()}
    common = {**rates(2e-4, 2e-4), "latent_shape": (16, 1, 1), "batch_size": 16}
    if "objective" in options:
        del common["latent_shape"]
    begin = LATE if late else 0
    try:
        with fastgan.Trainer(
            **{
                **common,
                "nets": nets,
                "data": fastgan.data.open("fashion-mnist", size=16, labels=False),
                "out": folder / "run",
                "progress": False,
                "device": "cpu",
                "sample_every": 10_000,
                "checkpoint_every": 10_000,
                "callbacks": [Plant(late)] if late else [],
                **options,
            }
        ) as trainer:
            trainer.fit(begin + WITHIN)
    except fastgan.FastganError as error:  # it may diverge, which is recorded
        if "diverged" not in str(error):
            return False, str(error)
    said = alerts(folder / "run")
    first = next((row for row in said if row[0] > begin), (None, "never"))
    good = first[1] in right and not [row for row in said if row[0] <= begin]
    told = ", ".join(f"{cause} at {step}" for step, cause in said) or "nothing"
    return good, f"{told} (planted at {begin}, right: {' or '.join(sorted(right))})"


def alerts(run: Path) -> list[tuple[int, str]]:
    file = run / "alerts.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(row["step"], row["cause"]) for row in map(json.loads, lines)]


GOOD: dict[str, list[str]] = {
    "gan": ["--hidden-g", "256", "--hidden-d", "64", "--latent", "16", "--batch-size", "100"],
    "dcgan": ["--base-width", "8", "--latent", "16"],
    "dcgan hinge": ["--base-width", "8", "--latent", "16", "--loss", "hinge"],
    "dcgan r1": ["--base-width", "8", "--latent", "16", "--r1", "1"],
    "dcgan augmented": ["--base-width", "8", "--latent", "16", "--augment", "color,translation"],
    "cgan": ["--base-width", "8", "--latent", "16"],
    "sngan": ["--width-g", "8", "--width-d", "8", "--latent", "16", "--n-critic", "1"],
    "wgan-gp": ["--width", "8", "--latent", "16", "--n-critic", "2"],
    "infogan": ["--base-width", "8", "--latent", "16"],
    "r3gan": ["--width", "8", "--latent", "16", "--group", "4"],
    "sagan": ["--width", "8", "--latent", "16", "--attention", "8"],
    "semi-supervised": ["--width", "32", "--hidden", "64"],
}


def good(name: str, folder: Path, steps: int) -> tuple[bool, str]:
    """(whether nothing was said, what was)."""
    recipe = name.split()[0]
    argv = ["train", "--recipe", recipe, "--size", "16", "--batch-size", "16", *GOOD[name]]
    argv += ["--steps", str(steps), "--device", "cpu", "--sample-every", "100000"]
    argv += ["--no-progress", "--checkpoint-every", "100000", "--out", str(folder / "run")]
    with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        try:
            cli(argv)
        except SystemExit as done:
            code = done.code
    said = alerts(folder / "run")
    told = ", ".join(f"{cause} at {step}" for step, cause in said) or "nothing"
    return not said and not code, f"{told} in {steps} steps" + (
        f", exit code {code}" if code else ""
    )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("which", choices=("ill", "good"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--steps", type=int, default=3000)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    table, wrong = (ILL if given.which == "ill" else GOOD), 0
    for name in given.names or table:
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            steps = () if given.which == "ill" else (given.steps,)
            right, told = (ill if given.which == "ill" else good)(name, Path(folder), *steps)
        wrong += not right
        seconds = time.process_time() - began
        print(f"{'ok   ' if right else 'WRONG'} {name}: {told} ({seconds:.0f} s)", flush=True)
    print(
        f"{len(given.names or table) - wrong} of {len(given.names or table)} {given.which} rightly"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
