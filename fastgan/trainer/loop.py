"""The loop of `Trainer.fit`: a step, and what is due after it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from fastgan.errors import FastganError
from fastgan.monitor.early import look_due
from fastgan.monitor.health import Alert
from fastgan.monitor.quality import SAMPLES
from fastgan.monitor.reporter import Diverged
from fastgan.monitor.start import picture_due
from fastgan.trainer import pictures
from fastgan.trainer.callbacks import Callbacks
from fastgan.trainer.graceful_stop import GracefulStop
from fastgan.trainer.session import Session


class Loop:
    """Trains up to a step, a time or a request to stop.

    Args:
        session: Whose step, metrics and folder it works on.
        callbacks: What else is called.
        request: Tells which signal came.
        until: Of time.monotonic(); None: no limit of time.
        rescue: Goes back to before an alert and on with a remedy; whether it has.
    """

    def __init__(
        self,
        session: Session,
        callbacks: Callbacks,
        request: GracefulStop,
        until: float | None,
        rescue: Callable[[Alert], bool] = lambda _: False,
    ) -> None:
        self.session, self.request, self.until = session, request, until
        self.callbacks, self.rescue = callbacks, rescue
        self.clock, self.images_then = time.monotonic(), session.images

    def run(self, steps: int) -> None:
        """Until `steps` steps have been done in all, then save and draw what is not yet. Raises
        FastganError."""
        while True:
            try:
                return self._run(steps)
            except Diverged as error:
                if not self._rescued(error.alert):
                    self.session.reporter.tell([error.alert], quietly=True)
                    raise

    def _rescued(self, alert: Alert) -> bool:
        """Whether a rescue has gone back to before this alert."""
        self.session.writer.settle()
        done = self.rescue(alert)
        if done:
            self.clock, self.images_then = time.monotonic(), self.session.images
        return done

    def _run(self, steps: int) -> None:
        session, options = self.session, self.session.options
        began = session.step
        while session.step < steps and not self._asked_to_stop():
            index = session.sequence.at(session.step)
            if index != session.sequence.index:
                session.enter(index)
                self.images_then = session.images
            own = session.sequence.own_step(session.step)
            session.stats.add(session.active.train_step(own))
            session.step += 1
            self._written()
            best = self._measure()
            row = self._report()
            self._check_graph()
            if look_due(session.step):
                pictures.look_at_samples(session)
            if (illness := session.reporter.illness) is not None:
                session.reporter.illness = None
                if self._rescued(illness):
                    return self._run(steps)
                session.reporter.tell([illness])
            due = session.step % options.checkpoint_every == 0
            if due or best:
                self._checkpoint(passing=not due)
            if picture_due(session.step, options.sample_every):
                pictures.draw_samples(session)
            self._call_back(row)
        if session.step > began and session.step % options.checkpoint_every:
            self._checkpoint()
        session.writer.settle()
        self._written()
        if session.step > began and not picture_due(session.step, options.sample_every):
            pictures.draw_samples(session)
        pictures.conclude(session)

    def _report(self) -> dict[str, float] | None:
        """Write a row of metrics where one is due, and return it."""
        session = self.session
        if session.stats.full:
            row = session.stats.take() | session.active.rates.row()
            if session.watch is not None and session.watch.diversity is not None:
                row["diversity"] = session.watch.diversity
            row |= session.quality.take_row()
            now, images = time.monotonic(), session.images
            speed = (images - self.images_then) / max(now - self.clock, 1e-9)
            session.reporter.row(session.step, images, row, speed, session.options.log_every)
            self.clock, self.images_then = now, images
            return row
        if session.reporter.progress is not None:
            session.reporter.progress.update(session.step)
        return None

    def _call_back(self, row: dict[str, float] | None) -> None:
        """After a step; what it has done is saved where the user's code fails."""
        session = self.session
        try:
            self.callbacks.call("on_step", session)
            if row is not None:
                self.callbacks.call("on_log", session, row)
        except FastganError:
            if session.ranks.world == 1 and session.step != session.saved_step:
                self._checkpoint()
            raise

    def _measure(self) -> bool:
        """The distance of samples to the reals, where it is due; whether it is the best yet."""
        session, every = self.session, self.session.options.evaluate_every
        if not every or session.step % every:
            return False
        began = time.monotonic()
        if session.ranks.first:
            with session.reporter.accessory("the distance of samples"):
                images = session.sample(SAMPLES)
                if images.isfinite().all():  # what is not ends the run at its next row
                    data = session.datasets["image"]
                    session.reporter.say(session.quality.observe(session.step, images, data))
        best = session.ranks.largest(int(session.quality.best_step == session.step))
        self.clock += time.monotonic() - began  # images per second are those of training
        return bool(best)

    def _check_graph(self) -> None:
        """Say once why steps are not replayed as a graph; an error where one is insisted on."""
        session = self.session
        if session.sequence.graphs is None:
            return
        why = session.active.graph_reason
        if why is not None and why != session.told:
            if session.options.graph == "on":
                raise FastganError(f"graph='on', but steps can't be captured: {why}")
            session.told = why
            session.reporter.say(f"steps run without a CUDA graph: {why}")

    def _asked_to_stop(self) -> bool:
        """Whether a signal came or the time is over; all ranks stop after the same step, and save
        after the same one where the last checkpoint is too old.
        """
        session, now = self.session, time.monotonic()
        minutes = session.options.checkpoint_minutes
        old = bool(minutes) and now - session.saved_at >= 60 * minutes
        late = self.until is not None and now >= self.until
        number = signal.Signals[self.request.name] if self.request.name else 0
        late = late or session.asked_to_stop is not None
        wish = session.ranks.largest(2 + number if number else 2 if late else int(old))
        if wish == 1 and session.step != session.saved_step:
            self._checkpoint(passing=True)
        session.stopped_by = signal.Signals(wish - 2).name if wish > 2 else session.asked_to_stop
        return wish > 1

    def _checkpoint(self, passing: bool = False) -> None:
        session = self.session
        bad = session.active.infinite()
        if session.ranks.largest(int(bad is not None)):  # every rank stops, or none
            session.reporter.diverged(session.step, f"{bad or 'another process'} is not finite")
        if session.out is not None:
            path = session.save(passing=passing, behind=session.behind)
            if not session.behind:
                self.callbacks.call("on_checkpoint", session, path)

    def _written(self) -> None:
        """Tell of checkpoints written meanwhile. Raises what one that failed raised."""
        for path in self.session.writer.take():
            self.callbacks.call("on_checkpoint", self.session, path)
