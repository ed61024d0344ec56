"""Code of the user's that is called while a run trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastgan.errors import FastganError

if TYPE_CHECKING:
    from fastgan.trainer.session import Session

EVENTS = ("on_step", "on_log", "on_checkpoint", "on_end")


class Callback:
    """The methods that `Trainer(callbacks=)` calls. An object needs any of them, and need not
    inherit from this class.

    They run on the host between steps, on every process. Reading a tensor of the device waits for
    it: in `on_step` that costs speed. `trainer.stop("why")` ends the run after this step.

    Example:
        >>> import fastgan
        >>> class Patience(fastgan.Callback):
        ...     def on_log(self, trainer, row):
        ...         if row["loss/D"] < 0.01:
        ...             trainer.stop("D has won")
        >>> Patience().on_end(None)
    """

    def on_step(self, trainer: Session) -> None:
        """After every step; `trainer.step` steps are done."""

    def on_log(self, trainer: Session, row: Mapping[str, float]) -> None:
        """After every row of metrics: means over `log_every` steps by name, such as "loss/D"."""

    def on_checkpoint(self, trainer: Session, path: Path) -> None:
        """After a checkpoint was written to the folder `path`. Where training goes on meanwhile (on
        a GPU, or with several processes, of which the first alone is told), a few steps later."""

    def on_end(self, trainer: Session) -> None:
        """When `fit` ends by itself, by a time limit, a signal or `stop`, with all saved."""


class Callbacks:
    """The callbacks of a run, called one after the other.

    Raises FastganError for what has none of the methods, or one that can't be called.
    """

    def __init__(self, callbacks: Sequence[object]) -> None:
        if isinstance(callbacks, (str, Mapping)) or not isinstance(callbacks, Sequence):
            raise FastganError(
                f"callbacks must be a list of objects, not a {type(callbacks).__name__}"
            )
        for one in callbacks:
            found = [event for event in EVENTS if hasattr(one, event)]
            if not found or isinstance(one, type):
                raise FastganError(
                    f"callbacks: {_name(one)} is no object with any of {', '.join(EVENTS)}"
                    + (": make an object of the class" if isinstance(one, type) else "")
                )
            for event in found:
                if not callable(getattr(one, event)):
                    raise FastganError(f"callbacks: {_name(one)}.{event} is no method")
        self._by_event = {
            event: [one for one in callbacks if hasattr(one, event)] for event in EVENTS
        }

    def call(self, event: str, *arguments: Any) -> None:
        """Raises FastganError naming the method that failed, from the error itself."""
        for one in self._by_event[event]:
            try:
                getattr(one, event)(*arguments)
            except Exception as error:  # other people's code
                why = (str(error).splitlines() or [""])[0]
                raise FastganError(
                    f"callback {_name(one)}.{event} raised {type(error).__name__}: {why}"
                ) from error


def _name(one: object) -> str:
    return one.__name__ if isinstance(one, type) else type(one).__name__
