"""A recipe trained for so many seconds of CPU time, which a busy machine lengthens less than those
of a clock:

    python -m fastgan.bench.experiments.equal_seconds SECONDS RECIPE OUT name=value ...

The options are those of a TOML file, such as data=pictures size=64. Counted is what this process
has computed while it trained, pictures and checkpoints with it; start and reading of the data are
not. Prints the steps done and the seconds at the end of each stage.
"""

from __future__ import annotations

import sys
import time
import tomllib
from typing import TYPE_CHECKING, Any

from fastgan import recipes
from fastgan.recipes.config import merge
from fastgan.recipes.training import make_trainer
from fastgan.trainer.callbacks import Callback, Callbacks

if TYPE_CHECKING:
    from fastgan.trainer.session import Session


class Limit(Callback):
    """Stops after `seconds` of this process from now on."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.began, self.stage = seconds, time.process_time(), 0

    def on_step(self, trainer: Session) -> None:
        spent, stage = time.process_time() - self.began, trainer.sequence.at(trainer.step)
        if stage != self.stage or spent >= self.seconds:
            print(f"step {trainer.step}: {spent:.1f} s", flush=True)
        self.stage = stage
        if spent >= self.seconds:
            trainer.stop(f"{self.seconds:g} s of CPU time")


def typed(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def main(seconds: float, recipe: str, out: str, *given: str) -> None:
    kind = recipes.find(recipe)
    values = {name: typed(value) for name, _, value in (one.partition("=") for one in given)}
    options = {"device": "cpu", "progress": False, "out": out, **values}
    config = kind(**merge(kind, options, "options"))
    with make_trainer(config, resume=False, log=None, out=out) as trainer:
        trainer.callbacks = Callbacks([Limit(seconds)])
        trainer.fit(10**6)


if __name__ == "__main__":
    main(float(sys.argv[1]), *sys.argv[2:])
