"""Other people's code in the loop: called after steps, rows, checkpoints, alerts and at the end."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgan.errors import FastganError

if TYPE_CHECKING:
    from fastgan.monitor.health import Alert
    from fastgan.trainer.session import Session

EVENTS = ("on_step", "on_log", "on_checkpoint", "on_alert", "on_end")


class Callback:
    """What a trainer calls while it trains: override what you need.

    Every method is given the trainer: `trainer.step`, `trainer.nets`, `trainer.sample(16)`,
    `trainer.stop()`. With several processes each calls its own. A method that raises ends the
    training, after a checkpoint, with a line that names it.

    Example:
        >>> import fastgan
        >>> class Patience(fastgan.Callback):
        ...     def on_log(self, trainer, row):
        ...         if row["loss/D"] < 0.01:
        ...             trainer.stop()
    """

    def on_step(self, trainer: Any) -> None:
        """After each step. What reads the device here costs its time."""

    def on_log(self, trainer: Any, row: dict[str, float]) -> None:
        """Before a row of metrics is written; keys that are added to it are written, too."""

    def on_checkpoint(self, trainer: Any, path: Path) -> None:
        """After a checkpoint was written."""

    def on_alert(self, trainer: Any, alert: Alert) -> None:
        """After the watch has named something; in the first process alone."""

    def on_end(self, trainer: Any) -> None:
        """When `fit` returns, its last checkpoint and pictures written; not after an error."""


class Callbacks:
    """A list of them, called in order.

    callbacks: objects with some of the methods of `Callback`. Raises FastganError for one that has
    none, or a class in the place of an object.
    """

    def __init__(self, callbacks: Iterable[Any] = ()) -> None:
        if hasattr(callbacks, "on_step") or not isinstance(callbacks, Iterable):
            raise FastganError("callbacks must be a list: callbacks=[MyCallback()]")
        self._of: dict[str, list[Any]] = {event: [] for event in EVENTS}
        for one in callbacks:
            name = getattr(one, "__name__", type(one).__name__)
            if isinstance(one, type):
                raise FastganError(f"callbacks holds the class {name}: make one, {name}()")
            # methods that are Callback's own do nothing, and cost nothing
            found = [
                event
                for event in EVENTS
                if callable(getattr(one, event, None))
                and getattr(type(one), event, None) is not getattr(Callback, event)
            ]
            if not found:
                raise FastganError(
                    f"callbacks holds a {name}, which has none of {', '.join(EVENTS)}"
                )
            for event in found:
                self._of[event].append(one)

    def __call__(self, event: str, session: Session, *given: Any) -> None:
        """Call `event` of all. Raises FastganError naming the one that fails."""
        for one in self._of[event]:
            try:
                getattr(one, event)(session, *given)
            except (FastganError, MemoryError):
                raise
            except Exception as error:
                raise _named(one, event, session.step, error) from error


def _named(one: Any, event: str, step: int, error: Exception) -> FastganError:
    line = traceback.extract_tb(error.__traceback__)[-1]
    why = " ".join(str(error).split())
    return FastganError(
        f"{type(one).__name__}.{event} failed at step {step}: {type(error).__name__}: {why} "
        f"({os.path.basename(line.filename)} line {line.lineno})"
    )
