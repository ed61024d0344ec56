"""`fastgan bench`: whole training iterations against PyTorch's own best."""

from __future__ import annotations

import sys
import time
from pathlib import Path, PurePosixPath
from typing import Any

import click

ALT = {
    "speedup": "Speed-up of each row against PyTorch's best",
    "batch": "Images a second over batch size",
}
FIGURES = PurePosixPath("docs/images")
"""Where --readme puts its figures, from the README's folder."""

QUICK_SECONDS = 160.0
"""What a quick run may take before it starts nothing new: it promises three minutes."""


def _names(values: tuple[str, ...]) -> list[str]:
    return [name for value in values for name in value.split(",") if name]


@click.command()
@click.option(
    "--quick",
    is_flag=True,
    help="A few suites and rows, fewer repeats: within 3 minutes on two idle cores.",
)
@click.option(
    "--suite",
    "suites",
    multiple=True,
    metavar="NAME",
    help="Only these (comma-separated, may repeat); 'ablation', 'kernels'.",
)
@click.option(
    "--rows",
    multiple=True,
    metavar="LETTERS",
    help="Only these rows: a b c d e f f2 g h i (comma-separated).",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="Stop starting things after this time.",
)
@click.option(
    "--threads", type=click.IntRange(1), help="torch's threads on a CPU (default: as it is)."
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write everything measured.",
)
@click.option(
    "--csv",
    "csv_path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write one line a row.",
)
@click.option(
    "--plots",
    "plots_path",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Draw figures (needs matplotlib).",
)
@click.option(
    "--launches",
    is_flag=False,
    flag_value="dcgan-64-b128",
    metavar="[NAME]",
    help="Count what a step of a suite or recipe launches on a GPU, none needed; 'all' is a line "
    "each.",
)
@click.option(
    "--target",
    metavar="sm_90",
    help="With --launches: compile each Triton kernel for it (sm_80, 89, 90 or 100).",
)
@click.option(
    "--gb-per-s",
    type=click.FloatRange(min=1),
    default=3000.0,
    help="With --launches: bandwidth of the estimate.",
)
@click.option("--readme", type=click.Path(exists=True, dir_okay=False), metavar="FILE", hidden=True)
@click.option(
    "--results", type=click.Path(exists=True, file_okay=False), default="bench/results", hidden=True
)
def command(
    quick: bool,
    suites: tuple[str, ...],
    rows: tuple[str, ...],
    budget: float | None,
    threads: int | None,
    json_path: str | None,
    csv_path: str | None,
    plots_path: str | None,
    launches: str | None,
    target: str | None,
    gb_per_s: float,
    readme: str | None,
    results: str,
) -> None:
    """Time whole iterations of DCGAN, SNGAN, WGAN-GP, pix2pix and R1: PyTorch from the tutorial's
    loop to whole-step compilation (rows a to f2) against fastgan (g to i), in turns, on the GPU if
    there is one.

    A row is timed only after its gradients agree with float64. Speed-ups are against the best of a
    to f2 that ran. 'kernels' times each registered operator, engine by engine, against eager
    PyTorch and torch.compile. What each row does, and how to reproduce each number:
    docs/benchmarks.md.
    """
    from fastgan.bench import readme_tables, result_files, tables

    if readme is not None:
        path, found = Path(readme), result_files.read(results)
        figures = "".join(
            f"\n![{ALT[drawn.stem]}]({drawn})\n" for drawn in _figures(found, path.parent / FIGURES)
        )
        path.write_text(
            readme_tables.fill(path.read_text(), readme_tables.markdown(found) + figures)
        )
        return
    if launches is not None:
        _launches(launches, target, gb_per_s, json_path)
        return
    import torch

    from fastgan.bench.benchmark import Bench
    from fastgan.bench.iterations import rows as rows_
    from fastgan.bench.iterations import suites as suites_

    if threads is not None:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = _names(suites)
    named = [name for name in asked if name not in ("ablation", "kernels")]
    chosen = suites_.choose(named, device, quick) if named or not asked else []
    specs = rows_.choose(_names(rows), device, quick)
    ablated = None
    if "ablation" in asked or not (asked or quick or rows):
        ablated = suites_.SUITES["dcgan-64-b128" if device.type == "cuda" else "dcgan-32-b64"]
    if plots_path is not None:
        _require_matplotlib()
    began = time.monotonic()
    bench = Bench(
        device,
        quick,
        budget or (QUICK_SECONDS if quick else float("inf")),
        lambda line: click.echo(f"[{time.monotonic() - began:4.0f} s] {line}", err=True),
    )
    if device.type == "cpu":
        click.echo(
            "no GPU: rows that need one say so, and every number below is of this CPU", err=True
        )
    result = bench.run(chosen, specs, ablated, "kernels" in asked or not (asked or rows))
    click.echo(tables.table(result))
    if json_path is not None:
        result_files.write_json(result, json_path)
    if csv_path is not None:
        result_files.write_csv(result, csv_path)
    if plots_path is not None:
        from fastgan.bench import plots

        for path in plots.draw(result, plots_path):
            click.echo(str(path))
    wrong = any(
        e.get("gradient", {}).get("passed") is False for s in result["suites"] for e in s["rows"]
    )
    if wrong or any(
        r.get("agrees") is False and r["ours"] for e in result["kernels"] for r in e["rows"]
    ):
        sys.exit(1)


def _launches(name: str, target: str | None, gb_per_s: float, json_path: str | None) -> None:
    """Prints one table, or a line for each of all; --json writes the counts."""
    import json

    from fastgan.bench import launches

    found = {}
    for one in launches.names() if name == "all" else [name]:
        noted, kernels = launches.record(one, target=target or "sm_90", compile=target is not None)
        rows = launches.table(noted, gb_per_s)
        found[one] = launches.counts(rows)
        click.echo(
            launches.line(one, rows) if name == "all" else launches.text(one, rows, gb_per_s)
        )
        if target is not None:
            click.echo(launches.compiled(kernels, target))
    if json_path is not None:
        Path(json_path).write_text(json.dumps(found, indent=1) + "\n")


def _figures(found: list[dict[str, Any]], folder: Path) -> list[PurePosixPath]:
    """Draws the first result's speed-ups beside the README; paths as its Markdown names them."""
    if not found:
        return []
    from fastgan.bench import plots

    _require_matplotlib()
    return [FIGURES / path.name for path in plots.draw(found[0], folder, only=tuple(ALT))]


def _require_matplotlib() -> None:
    """Before minutes of measuring, not after."""
    from importlib.util import find_spec

    from fastgan.errors import FastganError

    if find_spec("matplotlib") is None:
        raise FastganError("figures need matplotlib: pip install 'fastgan[plots]'")
