"""A trainer and its run folder: how a run begins there, is saved, and goes on."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

import fastgan
from fastgan import files
from fastgan.data.dataset import printable
from fastgan.errors import FastganError
from fastgan.runs import restarts, toml
from fastgan.runs.run_folder import RunFolder, read_checkpoint
from fastgan.trainer import fingerprint, pictures
from fastgan.trainer.networks import load_network
from fastgan.trainer.reuse import rescuing
from fastgan.trainer.reuse.rescuing import Rescue
from fastgan.trainer.session import Session


def begin(session: Session) -> None:
    """Claim the folder and write the state at step 0; nothing stays where that fails."""
    folder = session.folder
    if folder is None:
        return
    facts = {
        "fastgan": fastgan.__version__,
        "versions": {
            "torch": torch.__version__,
            "Python": platform.python_version(),
            "system": platform.system(),
        },
        **fingerprint.rebuilding(session),
        "identity": fingerprint.of(session),
        "pairs": session.active.pairs,
    }
    if session.taken is not None:
        facts["init_from"] = {"taken": session.taken, "warm_up": session.active.ema.warm_up}
    if (measured := session.cpu.facts()) is not None:
        facts["cpu"] = measured
    if (job := restarts.begun(folder.path)) is not None:
        facts["job"] = job
    folder.create()
    try:
        folder.write("config.toml", toml.dumps(session.config))
        folder.write("run.json", json.dumps(facts, indent=1))
        open_logger(session, folder)
        session.save()
        pictures.draw_reals(session)
        pictures.draw_samples(session)
        folder.begun()
        arm(session, facts)
    except BaseException:
        session.reporter.close_logger()
        folder.abandon()
        raise


def open_logger(session: Session, folder: RunFolder) -> None:
    """Only in a folder that is ours: a logger makes files in it."""
    logger = session.logger
    if logger is not None:
        try:
            session.reporter.logger = logger(folder.path, session.config, session.step)
        except Exception as error:  # other people's code
            raise FastganError(
                f"can't log to {logger.__name__}: {' '.join(str(error).split())}"
            ) from error


def resume(
    session: Session,
    path: Path,
    reschedule: bool,
    from_step: int | str | None = None,
    rescue: Rescue | None = None,
) -> None:
    """Load a whole checkpoint. reschedule: other schedules and rates are accepted, and told.
    from_step: of an older checkpoint, or "best"; None: the newest. rescue: why it goes back.
    Raises FastganError for a run that is another one, or that has no such checkpoint."""
    if session.folder is not None:
        session.folder.open()
    session.ranks.wait()
    folder = session.folder or RunFolder(path)
    facts = folder.facts()
    facts["identity"] = {**fingerprint.ADDED, **facts["identity"]}
    session.cpu.keep(facts["identity"].get("precision", "fp32"))
    session.compute_in(session.cpu.precision)
    rescued = facts.get("rescue")
    if rescued is not None and session.config.get("recipe") == "python":
        stages = rescuing.changed(session.stages, rescued["options"], rescued["before"])
        session.sequence.stages = stages
    now = fingerprint.of(session)
    sequence = session.sequence
    changes = []
    steps = folder.checkpoints.steps()
    step = max(steps, default=0) if from_step is None else folder.checkpoints.existing(from_step)
    if reschedule:
        own_step = step - sequence.first_step(sequence.at(step))
        changes.append(fingerprint.reschedule(facts["identity"], now, own_step))
    fingerprint.compare(facts["identity"], now, path)
    groups, state = read_checkpoint(folder.checkpoints, facts, None if from_step is None else step)
    session.cpu.keep(session.precision.name, state.get("forms"))
    session.enter(state["stage"])
    here = fingerprint.of_stage(session)
    with folder.checkpoints.whole(state["step"]):
        own = fingerprint.changed_options(state["identity"], here) if reschedule else {}
        for net, options in own.items():
            for option, (old, new) in options.items():
                # a schedule says so itself
                if option not in session.active.stage.schedules.get(net, {}):
                    changes.append(f"{net}: {option} goes on with {new} instead of {old}")
    session.rescheduled = printable("; ".join(filter(None, changes))) or None
    fingerprint.compare(state["identity"], here, path)
    with folder.checkpoints.whole(state["step"]):
        session.active.load_state(groups, own_options=own)
        session.active.ema.warm_up = facts.get("init_from", {}).get("warm_up", True)
        for name in sequence.other_nets():
            index, _, net = name.partition("/")
            stage = sequence.stages[int(index)]
            if name not in groups["others"] and net in stage.objective.own_nets():
                continue  # given an option that it did not have then
            load_network(stage.nets[net], groups["others"][name], f"{net} of stage {index}")
        session.stats.load_state_dict(groups["stats"])
        session.step = state["step"]
        if "evaluation" in state:
            session.quality.load(state["evaluation"])
            if from_step is not None and session.quality.best_step not in steps:
                session.quality.best = None  # a later one had taken its place
        if session.watch is not None and state["watch"] is not None:
            session.watch.load_state_dict(state["watch"])
    if session.folder is not None:
        if rescue is not None:
            facts["rescue"] = rescue.as_json()
        _go_on_in(session, session.folder, facts, max(steps))
        if rescue is not None:
            session.reporter.keep(rescue.as_alert())
        arm(session, facts)


def arm(session: Session, facts: dict[str, Any]) -> None:
    """Let the watch call for a rescue, if the run is to have one and had none."""
    if session.options.rescue and session.folder is not None:
        session.folder.checkpoints.every = session.options.checkpoint_every
        session.reporter.armed = "rescue" not in facts


def _go_back_in(session: Session, folder: RunFolder, facts: dict[str, Any], newest: int) -> None:
    """Set aside what comes after the step that the run goes on from, and note that in `facts`.
    Options that were changed after that step hold from there on."""
    later = [c for c in facts.get("changes", []) if c.get("step", 0) > session.step]
    session.cut = folder.cut.begin(session.step)
    facts.setdefault("cuts", []).append({"from": newest, "to": session.step})
    if later:
        facts["changes"] = [c for c in facts["changes"] if c not in later]
        parts = [*(str(c.get("what")) for c in later), session.rescheduled or ""]
        each = dict.fromkeys(part for text in parts for part in text.split("; ") if part)
        session.rescheduled = printable("; ".join(each))


def _go_on_in(session: Session, folder: RunFolder, facts: dict[str, Any], newest: int) -> None:
    """Make the folder of a resumed run what it was at the step that it goes on from."""
    step, reporter = session.step, session.reporter
    if folder.cut.in_vain is not None:
        reporter.warn(
            f"the run had gone back to step {folder.cut.in_vain} and not come to a new checkpoint: "
            "it is again what it was before that"
        )
    if step < newest:
        _go_back_in(session, folder, facts, newest)
    here = folder.checkpoints.path(step)
    lost = [path.name for path in folder.checkpoints.incomplete() if path > here]
    if lost:
        reporter.warn(
            f"{folder.checkpoints.folder / lost[-1]} has no state.json: going on from step {step}"
        )
    folder.rewind(step)
    rows = step // session.options.log_every
    missing = rows - len(folder.rows(folder.metrics))
    if missing > 0:
        reporter.warn(f"{folder.metrics} has lost {missing} of its {rows} rows")
    folder.write("config.toml", toml.dumps(session.config))
    if session.rescheduled:
        facts.setdefault("changes", []).append({"step": step, "what": session.rescheduled})
        described = fingerprint.rebuilding(session)["stages"]
        for old, new in zip(facts["stages"], described, strict=True):
            old["objective"] = new["objective"]
            old["nets"] = {name: old["nets"].get(name, net) for name, net in new["nets"].items()}
    if (
        facts.pop("demo", None) is not None
        or session.rescheduled
        or session.cut
        or "rescue" in facts
    ):
        folder.write("run.json", json.dumps(facts, indent=1))
    with reporter.accessory("metrics.csv"):
        folder.write_table()
    with reporter.accessory("the log"):
        open_logger(session, folder)
    with reporter.accessory("samples"):
        folder.rewind_pictures(step)
    # Stopped between checkpoint and picture, or they could not be written then.
    if files.kind(folder.path / "reals.png") is None:
        pictures.draw_reals(session)
    if files.kind(folder.path / "samples" / f"{step:08d}.png") is None:
        pictures.draw_samples(session)
