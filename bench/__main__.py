"""``python -m fastgan.bench``: what ``fastgan bench`` and ``make gpu`` run, with torch, triton and
numpy alone."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fastgan.errors import FastganError
from fastgan.verify.__main__ import Parser, count

ALT = {
    "speedup": "Speed-up of each row against PyTorch's best",
    "batch": "Images a second over batch size",
}
FIGURES = PurePosixPath("docs/images")
"""Where --readme puts its figures, from the README's folder."""

QUICK_SECONDS = 160.0
"""What a quick run may take before it starts nothing new: it promises three minutes."""

ABOUT = """\
Time whole iterations of DCGAN, SNGAN, WGAN-GP, pix2pix and R1: PyTorch from the tutorial's loop to
whole-step compilation (rows a to f2) against fastgan (g to i), in turns, on the GPU if there is
one; and each registered operator, engine by engine, against eager PyTorch and torch.compile.

A row is timed only after its gradients agree with float64, an operator after its results agree with
its reference. Speed-ups are against the best of a to f2 that ran. What each row does, and how to
reproduce each number: docs/benchmarks.md.
"""
EXAMPLES = """\
examples:
  fastgan bench --quick                       a look, within 3 minutes on two idle cores
  fastgan bench --suite dcgan-64-b128         one kind of GAN
  fastgan bench --op norm                     one family of operators
  fastgan bench --stages --budget 480         on a GPU: proof and all rows, goes on where it stopped
  fastgan bench --launches dcgan              what a training step launches; needs no GPU

The exit code is 1 if a row of ours computed something wrong.
"""


def seconds(text: str) -> float:
    """At least 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return value


def parser() -> Parser:
    """The arguments."""
    p = Parser(
        "fastgan bench",
        allow_abbrev=False,
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed: dict[str, Any] = {"action": "append", "default": []}
    add = p.add_argument
    add(
        "--quick",
        action="store_true",
        help="a few suites and rows, fewer repeats: within 3 minutes on two idle cores",
    )
    add(
        "--suite",
        metavar="NAME",
        help="only these (comma-separated, may repeat); 'ablation', 'kernels' (all operators), "
        "'same' (does accelerated training give the same?)",
        **listed,
    )
    add(
        "--rows",
        metavar="LETTERS",
        help="only these rows: a b c d e f f2 g h i (comma-separated)",
        **listed,
    )
    add(
        "--op",
        metavar="NAME",
        help="only these operators, or those of a family: norm, conv, ... (comma-separated)",
        **listed,
    )
    add("--budget", type=seconds, metavar="SECONDS", help="stop starting things after this time")
    add("--threads", type=count, metavar="N", help="torch's threads on a CPU (default: as it is)")
    add("--json", metavar="FILE", help="write everything measured")
    add("--csv", metavar="FILE", help="write one line a row")
    add("--plots", metavar="DIR", help="draw figures (needs matplotlib)")
    stages = p.add_argument_group("proof and measurement on a GPU, in stages that go on")
    stages.add_argument(
        "--stages",
        nargs="?",
        const="",
        metavar="NAMES",
        help="what is missing of these (comma-separated), by default of the whole plan in order of "
        "worth: look verify warm suites recipes directions norm conv kernels commands same; "
        "--budget: $BUDGET or 400",
    )
    stages.add_argument("--out", metavar="DIR", help="the results ($OUT, else bench/results)")
    stages.add_argument(
        "--toy",
        action="store_true",
        help="toy sizes, on a CPU too: finds mistakes before GPU time is spent",
    )
    stages.add_argument(
        "--rehearse",
        action="store_true",
        help="what two calls of the plan would measure, on a simulated clock: runs nothing",
    )
    launches = p.add_argument_group("launches of a step, counted without a GPU")
    launches.add_argument(
        "--launches",
        nargs="?",
        const="dcgan-64-b128",
        metavar="NAME",
        help="of this suite or recipe; 'all' is a line each",
    )
    launches.add_argument(
        "--target", metavar="sm_90", help="compile each Triton kernel for it (sm_80, 89, 90 or 100)"
    )
    launches.add_argument(
        "--gb-per-s", type=seconds, default=3000.0, help="bandwidth of the estimate (3000)"
    )
    add("--readme", metavar="FILE", help=argparse.SUPPRESS)
    add("--results", metavar="DIR", default="bench/results", help=argparse.SUPPRESS)
    return p


def names(values: Sequence[str]) -> list[str]:
    """Of comma-separated lists."""
    return [name for value in values for name in value.split(",") if name]


def run(arguments: Sequence[str]) -> int:
    """Exit code 0, or 1 if a row of ours computed something wrong. Raises FastganError for a bad
    request."""
    options = parser().parse_args(list(arguments))
    for name in ("json", "csv"):
        path = getattr(options, name)
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise FastganError(f"--{name} {path}: there is no folder {Path(path).parent}")
    if options.readme is not None:
        return _readme(Path(options.readme), Path(options.results))
    if options.rehearse:
        from fastgan.bench.stages import rehearsal

        print(rehearsal.table())
        return 0
    if options.launches is not None:
        return _launches(options)
    if options.stages is not None:
        return _stages(options)
    for name in ("out", "toy"):
        if getattr(options, name):
            raise FastganError(f"--{name} belongs to --stages")
    if "same" in names(options.suite):
        return _same(options)
    return _measure(options)


def _alone(options: argparse.Namespace, what: str, taken: Sequence[str]) -> None:
    """Refuses options that `what` has no use for."""
    others = ("quick", "suite", "rows", "op", "budget", "threads", "json", "csv", "plots")
    if left := [name for name in others if name not in taken and getattr(options, name)]:
        raise FastganError(f"--{left[0]} has no meaning with {what}")


def _stages(options: argparse.Namespace) -> int:
    from fastgan.bench.stages import plan
    from fastgan.verify import registry

    _alone(options, "--stages", ("op", "budget"))
    wanted = names(options.op)
    if wanted:
        registry.load()
        wanted = [op.name for op in registry.ops(*wanted)]
    budget = options.budget or float(os.environ.get("BUDGET", plan.BUDGET))
    out = options.out or os.environ.get("OUT")
    return plan.run(names([options.stages]), budget, out, options.toy, wanted)


def _same(options: argparse.Namespace) -> int:
    from fastgan.bench.stages import same_training

    _alone(options, "--suite same", ("suite", "json"))
    if names(options.suite) != ["same"]:
        raise FastganError("--suite same is measured by itself")
    return 0 if same_training.compare(options.json) else 1


def _measure(options: argparse.Namespace) -> int:
    import torch

    from fastgan.bench import result_files, tables
    from fastgan.bench.benchmark import Bench
    from fastgan.bench.iterations import rows as rows_
    from fastgan.bench.iterations import suites as suites_
    from fastgan.verify import registry

    quick = options.quick
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked, letters, ops = names(options.suite), names(options.rows), names(options.op)
    registry.load()
    registry.ops(*ops)
    everything = not (asked or ops)
    named = [name for name in asked if name not in ("ablation", "kernels")]
    chosen = suites_.choose(named, device, quick) if named or everything else []
    specs = rows_.choose(letters, device, quick)
    ablated = None
    if "ablation" in asked or (everything and not (quick or letters)):
        ablated = suites_.SUITES["dcgan-64-b128" if device.type == "cuda" else "dcgan-32-b64"]
    if options.plots is not None:
        _require_matplotlib()
    began = time.monotonic()
    bench = Bench(
        device,
        quick,
        options.budget or (QUICK_SECONDS if quick else float("inf")),
        lambda line: print(f"[{time.monotonic() - began:4.0f} s] {line}", file=sys.stderr),
    )
    if device.type == "cpu":
        print(
            "no GPU: rows that need one say so, and every number below is of this CPU",
            file=sys.stderr,
        )
    operators = "kernels" in asked or bool(ops) or (everything and not letters)
    result = bench.run(chosen, specs, ablated, operators, ops)
    print(tables.table(result))
    if options.json is not None:
        result_files.write_json(result, options.json)
    if options.csv is not None:
        result_files.write_csv(result, options.csv)
    if options.plots is not None:
        from fastgan.bench import plots

        for path in plots.draw(result, options.plots):
            print(path)
    wrong = any(
        e.get("gradient", {}).get("passed") is False for s in result["suites"] for e in s["rows"]
    ) or any(r.get("agrees") is False and r["ours"] for e in result["kernels"] for r in e["rows"])
    return int(wrong)


def _launches(options: argparse.Namespace) -> int:
    """Prints one table, or a line for each of all; --json writes the counts."""
    from fastgan.bench import launches

    found = {}
    target = options.target
    for one in launches.names() if options.launches == "all" else [options.launches]:
        noted, kernels = launches.record(one, target=target or "sm_90", compile=target is not None)
        rows = launches.table(noted, options.gb_per_s)
        found[one] = launches.counts(rows)
        if options.launches == "all":
            print(launches.line(one, rows))
        else:
            print(launches.text(one, rows, options.gb_per_s))
        if target is not None:
            print(launches.compiled(kernels, target))
    if options.json is not None:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0


def _readme(path: Path, results: Path) -> int:
    """The README's tables and figures from committed results."""
    from fastgan.bench import plots, readme_tables, result_files

    for given, there in ((path, path.is_file()), (results, results.is_dir())):
        if not there:
            raise FastganError(f"there is no {given}")
    found, figures = result_files.read(results), ""
    if found:
        _require_matplotlib()
        for drawn in plots.draw(found[0], path.parent / FIGURES, only=tuple(ALT)):
            figures += f"\n![{ALT[drawn.stem]}]({FIGURES / drawn.name})\n"
    path.write_text(readme_tables.fill(path.read_text(), readme_tables.markdown(found) + figures))
    return 0


def _require_matplotlib() -> None:
    """Before minutes of measuring, not after."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise FastganError("figures need matplotlib: pip install 'fastgan[plots]'")


def main(arguments: Sequence[str] | None = None) -> int:
    """As a command: 2 for a bad request, said in one line."""
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except FastganError as e:
        print(f"fastgan: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
