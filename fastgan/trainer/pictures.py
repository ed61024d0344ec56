"""What a trainer shows of its images, and shows the watch."""

from __future__ import annotations

from torch import Tensor

from fastgan.reports import page
from fastgan.trainer import sampling
from fastgan.trainer.reuse.traversal import traversal
from fastgan.trainer.session import Session

GRID = 64
"""Samples in a picture."""


def _reals(session: Session) -> Tensor | None:
    """The first images of the data, float (GRID, C, H, W) in [-1, 1] on the device, or what the
    batch holds for them; None where the data have no stream "image"."""
    if "image" not in session.datasets:
        return None
    seed = session.options.seed
    return sampling.conditions(session.datasets, seed, 0, GRID, session.device)["image"]


def look_at_samples(session: Session) -> None:
    """Let the watch compare fresh and fixed samples with reals."""
    watched = session.active.stage.objective.watched
    if session.watch is None or not watched or not session.ranks.first:
        return
    reals = _reals(session)
    if reals is None:
        return
    medium = session.active.stage.objective.medium
    live = session.sample(GRID, ema=False, seed=session.options.seed + session.step)
    live, fixed = medium.watched(live), medium.watched(session.sample(GRID))
    reals = reals if medium.drawn_by_pixel else medium.watched(medium.finished(reals.cpu()))
    if live.shape[1:] == reals.shape[1:]:
        rates = session.active.rates.ahead(session.sequence.own_step(session.step))
        found = session.watch.observe_samples(session.step, live, fixed, reals.cpu(), rates)
        session.reporter.tell(found)


def draw_reals(session: Session) -> None:
    reals = _reals(session)
    if reals is not None:
        medium = session.active.stage.objective.medium
        shown = medium.picture_of_reals(medium.finished(reals.cpu()))
        session.reporter.picture("reals", session.step, shown)


def conclude(session: Session) -> None:
    """Curves and page of a run that has its steps."""
    session.reporter.curves()
    if session.folder is not None:
        with session.reporter.accessory("report.html"):
            page.write(session.folder.path)


def draw_samples(session: Session) -> None:
    """Those of the step last: where they are there, a resumed run misses none."""
    if session.folder is None:
        return
    stage = session.active
    for name in stage.stage.objective.traversed:
        images = traversal(
            stage.stage.objective,
            stage.sampling_nets(),
            name,
            seed=session.options.seed,
            device=session.device,
            precision=session.precision,
            scalar=stage.scalars(max(session.sequence.own_step(session.step), 0)),
        )
        session.reporter.picture(f"traversal-{name}", session.step, images)
    medium = stage.stage.objective.medium
    samples = session.sample(medium.shown, shown=True)
    session.reporter.picture("samples", session.step, medium.picture(samples))
