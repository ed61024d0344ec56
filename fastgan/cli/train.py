"""`fastgan train`."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastgan import files, recipes
from fastgan.cli import auto, options
from fastgan.cli.completion import PATH, recipe_names
from fastgan.cpu.threads import busy
from fastgan.errors import FastganError, empty, printable
from fastgan.monitor import start
from fastgan.recipes import Config
from fastgan.recipes.auto import AS_LONG_AS_TIME_LASTS, Auto
from fastgan.recipes.config import without
from fastgan.recipes.training import make_trainer
from fastgan.runs import changes, layout
from fastgan.runs.layout import REPORT
from fastgan.trainer.run_options import of_before, on_cpu

if TYPE_CHECKING:
    from fastgan.trainer.trainer import Trainer


class TrainCommand(click.Command):
    """Reads --recipe, --config and --resume first, because the recipe decides which flags there
    are."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = going_on(args)
        early = {name: last_value(args, name) for name in ("--recipe", "--config", "--resume")}
        file: dict[str, Any] = {}
        for flag, value in early.items():
            if value == "":
                raise empty(flag)
        if early["--resume"]:
            if files.kind(files.path_of(early["--resume"], "--resume") / "run.json") is None:
                raise layout.no_run(early["--resume"])
            file = options.read_file(f"{early['--resume']}/config.toml", follow=False)
        elif early["--config"]:
            file = options.read_file(early["--config"])
        chosen = "auto" if last_value(args, "--data") and not file else "dcgan"
        name = (None if early["--resume"] else early["--recipe"]) or file.get("recipe", chosen)
        if file.get("recipe") == "python":
            raise FastganError(
                f"{early['--resume']} was trained from Python: go on with it there, Trainer(..., "
                "out=..., resume=True)"
            )
        if not isinstance(name, str):
            raise FastganError(f"{early['--config']}: recipe must be a text, not {name!r}")
        ctx.obj = (Auto if name == "auto" else recipes.find(name), file)
        for name in ctx.obj[0].without:
            flag = f"--{name.replace('_', '-')}"
            if any(arg == flag or arg.startswith(f"{flag}=") for arg in args):
                raise FastganError(without(ctx.obj[0], name))
        own = [p for p in self.params if p.name in OWN]
        self.params = [*own, *(auto.flags() if name == "auto" else options.flags(ctx.obj[0]))]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        config = ctx.obj[0]
        groups: dict[str, list[tuple[str, str]]] = {
            "This command": [],
            "Run": [],
            f"Recipe {config.recipe}: {config.summary}": [],
        }
        known = options.fields_of(config)
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                kind = known[param.name].metadata["group"] if param.name in known else None
                title = (
                    "This command" if kind is None else "Run" if kind == "run" else list(groups)[2]
                )
                groups[title].append(record)
        for title, records in ((t, r) for t, r in groups.items() if r):
            with formatter.section(title):
                formatter.write_dl(records)


def last_value(args: list[str], flag: str) -> str | None:
    found = None
    for i, arg in enumerate(args):
        if arg == flag and i + 1 < len(args):
            found = args[i + 1]
        elif arg.startswith(f"{flag}="):
            found = arg.partition("=")[2]
    return found


def going_on(args: list[str]) -> list[str]:
    """The command, or where torchrun has started this process again the one that goes on with the
    run that it began, for what is left of its time."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or last_value(args, "--resume"):
        return args
    from fastgan.runs.restarts import restarted

    file = last_value(args, "--config")
    out = last_value(args, "--out") or (options.read_file(file).get("out") if file else None)
    runs = [out] if out else sorted(map(str, Path("runs").glob("*")))  # where runs go by default
    for run in runs:
        began = restarted(run)
        if began is None:
            continue
        if os.environ.get("RANK") == "0":
            click.echo(f"started again by torchrun: going on with {printable(run)}", err=True)
        kept = [one for one in args if one == "--trust"]
        if model := last_value(args, "--model"):
            kept += ["--model", model]
        if seconds := last_value(args, "--for"):
            left = auto.Duration().convert(seconds, None, None) - (time.time() - began)
            kept += ["--for", f"{max(left, 1):.0f}s"]
        return ["--resume", run, *kept]
    return args


OWN = ("recipe", "seconds", "config_file", "resume", "from_step", "dry_run", "trust", "help")


@click.command(
    cls=TrainCommand,
    help=f"Train a GAN. Recipes: {', '.join(recipes.RECIPES)}; `fastgan train --recipe NAME "
    "--help` shows each one's options. Example: `fastgan train --data my_images --for 30m "
    "--rescue`.",
)
@click.option(
    "--recipe",
    metavar="NAME",
    shell_complete=recipe_names,
    help="which kind of GAN; auto looks at the images, the device and the time, and chooses  "
    "[default: auto with --data, else dcgan]",
)
@click.option(
    "--for",
    "seconds",
    type=auto.Duration(),
    help="train so long, such as 90s, 30m or 2h, unless --steps are done before",
)
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=PATH,
    help="TOML file of the options below; flags win over it",
)
@click.option(
    "--resume",
    metavar="RUN",
    type=PATH,
    help="go on with this run, exactly as if it had never stopped",
)
@click.option(
    "--from-step",
    metavar="STEP",
    type=options.Step(),
    help="with --resume: from that older checkpoint on, or from the best one; what comes after it "
    "is dropped with the first new checkpoint",
)
@click.option("--dry-run", is_flag=True, help="print configuration, networks and memory, and stop")
@click.option(
    "--trust", is_flag=True, help="run the code that the model entry of --config or --resume names"
)
@click.pass_context
def command(
    ctx: click.Context,
    recipe: str | None,
    seconds: float | None,
    config_file: str | None,
    resume: str | None,
    from_step: int | str | None,
    dry_run: bool,
    trust: bool,
    **given: Any,
) -> None:
    cls, file = ctx.obj
    if from_step is not None and not resume:
        raise FastganError("--from-step goes back in a run: say which, --resume RUN")
    if resume:
        allowed = changes.options()
        refused = [
            name for name, value in given.items() if value is not None and name not in allowed
        ]
        if refused or config_file or (recipe and recipe != cls.recipe):
            refused += ["config"] if config_file else ["recipe"] if not refused else []
            named = ", ".join(f"--{name.replace('_', '-')}" for name in refused)
            raise FastganError(
                f"--resume goes on with the run as it was: {named} can't be changed (a new run "
                f"with its weights: --init-from {shlex.quote(resume)})"
            )
        kept = {**of_before(cls), **file, "out": resume}
        config = options.assemble(cls, kept, given, f"{resume}/config.toml")
    elif cls is Auto:
        if given["out"] is not None and not dry_run:
            refuse_existing(given["out"])
        config = auto.decide(file, given, seconds, config_file or "flags")
    else:
        there = smaller(cls, file, given)
        config = options.assemble(cls, {**there, **file}, given, config_file or "flags")
    if config.model is not None:
        prepare_import(
            config.model, given["model"] is not None, resume, resume or config_file, trust
        )
    sys.exit(
        run(config, resume=bool(resume), from_step=from_step, dry_run=dry_run, seconds=seconds)
    )


def smaller(cls: type[Config], file: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a CPU needs other defaults for, said in a line."""
    named = {name.replace("-", "_") for name in file} | {
        name for name, value in given.items() if value is not None
    }
    found = {name: value for name, value in on_cpu(cls).items() if name not in named}
    if not found or "model" in named:
        return {}
    from fastgan.devices import pick_device
    from fastgan.distributed.context import local_device

    asked = given.get("device") or file.get("device", "auto")
    if not isinstance(asked, str) or pick_device(local_device(asked)).type != "cpu":
        return {}
    if os.environ.get("RANK", "0") == "0":
        shown = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in found.items())
        usual = ", ".join(str(options.fields_of(cls)[name].default) for name in found)
        click.echo(f"no GPU: {shown} (with one {usual})")
    return found


def prepare_import(model: str, typed: bool, run: str | None, file: str | None, trust: bool) -> None:
    """Where the module of --model is looked for: typed, in the current folder too; named by a file,
    only for those who trust it, and where it lay when the run was trained. Raises FastganError.
    """
    from fastgan.runs import imports

    if typed:
        imports.look_in(str(Path.cwd()))
    elif not trust:
        raise FastganError(
            f"{file} names the model {model}, and building it runs that code. If you know where it "
            "comes from, say so:"
            f" --model {shlex.quote(model)} (looked for in the current folder too), or --trust"
        )
    elif run is not None:
        from fastgan.runs.run_folder import read_facts

        imports.look_in(
            read_facts(files.path_of(run))
            .get("modules", {})
            .get(model.partition(":")[0].partition(".")[0])
        )


def say_start(
    trainer: Trainer, config: Config, seconds: float | None, echo: Callable[[str], None]
) -> None:
    """Where the run is, what comes when, and how to stop."""
    from fastgan.monitor import pictures
    from fastgan.objectives import Adversarial

    objective = trainer.active.stage.objective
    shape = trainer.datasets["image"].fields["image"].shape
    loss = getattr(objective, "loss", None)
    lines = start.screen(
        str(config.out),
        step=trainer.step,
        steps=None if config.steps == AS_LONG_AS_TIME_LASTS else config.steps,
        seconds=seconds,
        sample_every=config.sample_every,
        loss=loss if isinstance(objective, Adversarial) or loss == "wasserstein" else None,
        drawable=not objective.medium.drawn_by_pixel or shape[-1] in pictures.DRAWN,
    )
    at = start.INDENT
    echo("\n".join(click.style(line[:at], bold=True) + line[at:] for line in lines))


def refuse_existing(out: str) -> None:
    """Before the data are read, which may take long."""
    from fastgan.runs.run_folder import RunFolder

    RunFolder(out).refuse_existing()


def refuse_done(config: Config, from_step: int | str | None) -> None:
    """Before schedules of a length that is over are written."""
    from fastgan.runs.run_folder import RunFolder

    checkpoints = RunFolder(str(config.out)).checkpoints
    done = max(checkpoints.steps(), default=0)
    if from_step is not None:
        done = checkpoints.existing(from_step)
    if config.steps < done:
        raise FastganError(
            f"{config.out} has done {done} steps already: --steps counts all of a run, give "
            f"more than {done}"
        )


def run(
    config: Config,
    *,
    resume: bool = False,
    from_step: int | str | None = None,
    dry_run: bool = False,
    seconds: float | None = None,
) -> int:
    """Train as configured; returns the exit code."""
    if config.out is None:
        config = dataclasses.replace(config, out=f"runs/{config.recipe}")
    if not resume and not dry_run:
        refuse_existing(str(config.out))
    if resume:
        refuse_done(config, from_step)
    log = None if config.log == "none" else config.log
    if not dry_run and not resume and os.environ.get("RANK", "0") == "0":  # reading may take long
        click.echo(printable(f"{config.data} -> {config.out}"))
    if dry_run:
        if resume:  # what it began with may be gone
            config = dataclasses.replace(config, init_from=None)
        trainer = make_trainer(config, resume=False, log=None, out=None)
    else:
        trainer = make_trainer(config, resume=resume, log=log, out=config.out, from_step=from_step)
    echo = click.echo if trainer.ranks.first else lambda _: None  # of several processes one speaks
    with trainer:
        for dataset in trainer.datasets.values():
            echo(dataset.describe())
            for note in dataset.notes:
                echo(f"note: {note}")
        if dry_run:
            from fastgan.trainer.summary import summary

            echo(options.toml_text(config))
            echo(summary(trainer))
            return 0
        if resume and trainer.step >= config.steps:
            from fastgan.trainer.pictures import conclude

            conclude(trainer)  # it may have been killed after its last checkpoint
            echo(f"{config.out} has its {trainer.step} steps: give --steps to go on")
            return 0
        if trainer.cut:
            echo(f"back to step {trainer.step}: {trainer.cut} go with the next checkpoint")
        if trainer.rescheduled:
            echo(f"changed from step {trainer.step} on, of {config.steps}: {trainer.rescheduled}")
        if trainer.taken:
            echo(trainer.taken)
        begins = f"going on at step {trainer.step}" if resume else "training"
        echo(f"{begins}: {config.recipe} on {trainer.device}, {trainer.precision.name}")
        if (line := trainer.cpu.line()) is not None:
            echo(textwrap.fill(line, start.WIDTH, subsequent_indent="  "))
        from fastgan.machine import cores

        if trainer.device.type == "cpu" and (line := busy(cores())) is not None:
            echo(textwrap.fill(line, start.WIDTH, subsequent_indent="  "))
        say_start(trainer, config, seconds, echo)
        again = start.again(str(config.out), seconds)
        trainer.fit(config.steps, seconds=seconds)
        if trainer.stopped_by:
            with suppress(OSError):  # the terminal may be what went away
                echo(
                    f"stopped by {trainer.stopped_by} after step {trainer.step}, saved; go on: "
                    f"{again}"
                )
            return 128 + signal.Signals[trainer.stopped_by]
        if trainer.step < config.steps:
            echo(f"{trainer.step} steps in the time; {again} goes on")
    if (best := trainer.quality.best) is not None:
        told = f"best at step {best['step']} (KD-{best['judge']} {best['score']:.4g})"
        echo(f"{told}: fastgan sample {shlex.quote(str(config.out))} --step best")
    report = Path(str(config.out), REPORT)
    echo(
        f"done: pictures in {config.out}/samples"
        + (f", all of it on one page: {report}" if files.kind(report) == "file" else "")
    )
    return 0
