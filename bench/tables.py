"""The table in the terminal: iterations and operators, losses and failures shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PROVIDERS = ("eager", "compile", "reference", "cudnn", "triton")
COLUMNS = (
    "row",
    "ms",
    "p20 to p80",
    "images/s",
    "vs best",
    "vs a",
    "floor",
    "saved MiB",
    "peak MiB",
    "start s",
    "J/1000",
    "W",
    "MHz",
)
ABLATION_COLUMNS = tuple(
    {"vs best": "vs first", "vs a": "vs before"}.get(name, name) for name in COLUMNS
)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _cells(entry: Mapping[str, Any]) -> list[str]:
    low, mid, high = entry["ms"]
    against = entry.get("speedup")
    first = entry.get("vs_a", entry.get("step"))
    return [
        entry["row"],
        f"{mid:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{entry['images_per_s']:.0f}",
        "-" if against is None else f"{against[1]:.2f}x",
        "-" if first is None else f"{first[1]:.2f}x",
        "-" if "roofline" not in entry else f"{100 * entry['roofline']:.0f} %",
        _number(entry.get("saved_MiB"), ".0f"),
        _number(entry.get("peak_MiB"), ".0f"),
        _number(entry.get("startup_s", entry.get("build_s")), ".1f"),
        _number(entry.get("joules_per_1000_images"), ".1f"),
        _number(entry.get("watts"), ".0f"),
        _number(entry.get("sm_mhz"), ".0f"),
    ]


def heading(suite: Mapping[str, Any]) -> str:
    """One line: what was timed, on what, in which type."""
    where = "CPU" if suite["device"] == "cpu" else "GPU"
    kind = ", ablation" if suite["kind"] == "ablation" else ""
    steps = ", ".join(map(str, suite["gate_steps"]))
    return (
        f"{suite['suite']}{kind}: {suite['what']} [{where}, {suite['compute']}; gradients "
        f"judged at steps {steps}]"
    )


def table(result: Mapping[str, Any]) -> str:
    """All suites as text, losses and failures shown."""
    about = result["machine"]
    lines = [
        f"{about['device']}, {about['threads']} threads, torch {about['torch']}, triton "
        f"{about['triton']}"
        + (f", driver {about['driver']}" if about["driver"] else "")
        + (f", commit {about['commit']}" if about["commit"] else "")
    ]
    if (load := about.get("load")) and load > 0.5 * (about["cores"] or 1):
        lines.append(
            f"the machine was busy when this began (load {load:.1f} on {about['cores']} cores): do "
            "not quote it"
        )
    for suite in result["suites"]:
        timed = [entry for entry in suite["rows"] if "ms" in entry]
        cells = [_cells(entry) for entry in timed]
        used = [i for i, name in enumerate(COLUMNS) if i < 6 or any(row[i] != "-" for row in cells)]
        names = ABLATION_COLUMNS if suite["kind"] == "ablation" else COLUMNS
        widths = [
            max(len(names[i]), *(len(row[i]) for row in cells)) if cells else len(names[i])
            for i in used
        ]
        lines += ["", heading(suite)]
        if cells:
            lines.append("  " + _aligned(names, used, widths))
            lines += [
                f"  {_aligned(row, used, widths)}  {e['label']}" for row, e in zip(cells, timed)
            ]
        lines += [
            f"  {e['row']}  {e['label']}: {e.get('error', 'not reached')}"
            for e in suite["rows"]
            if "ms" not in e
        ]
        lines += _verdict(suite, timed)
    return "\n".join([*lines, *kernel_table(result.get("kernels", []))])


def kernel_table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Microseconds of every operator by provider, a line a call; `*` marks the engine that
    impl="auto" takes."""
    if not entries:
        return []
    cpu = entries[0]["device"] == "cpu"
    what = (
        "CPU, smallest shapes: what a call costs in Python"
        if cpu
        else "GPU, the shapes of real layers"
    )
    timed = [e for e in entries if any("ms" in r for r in e["rows"])]
    providers = [p for p in PROVIDERS if any(r["provider"] == p for e in timed for r in e["rows"])]
    heads = ("op", "case", "type", "direction", *providers, "vs best", "p20 to p80", "floor")
    cells = [_kernel_cells(entry, providers) for entry in timed]
    widths = [max(map(len, column)) for column in zip(heads, *cells)]
    lines = [
        "",
        f"operators, microseconds a call [{what}; * is what auto takes, against the better of "
        "eager and compile]",
    ]
    for row in (heads, *cells):
        lines.append(
            "  "
            + "  ".join(
                c.ljust(w) if i < 4 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))
            ).rstrip()
        )
    for entry in entries:
        name = f"{entry['op']}, {entry['case']}, {entry['type']}, {entry['direction']}"
        lines += [
            f"  {name}, {r['provider']}: {r['error']}" for r in entry["rows"] if "ms" not in r
        ]
        lines += (
            [f"  {name}: {entry['error']}"]
            if "error" in entry and "budget" not in entry["error"]
            else []
        )
    if late := sum("budget" in e.get("error", "") for e in entries):
        lines.append(f"  {late} of {len(entries)} calls: not run within the budget")
    reasons = dict.fromkeys(
        (engine, why) for entry in entries for engine, why in entry["missing"].items()
    )
    return [*lines, *(f"  engine {engine}: {why}" for engine, why in reasons)]


def headline(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Of an operator's rows timed against PyTorch that of the engine auto takes; without auto, the
    fastest of ours."""
    timed = [r for r in entry["rows"] if r["ours"] and "speedup" in r]
    auto = next((r for r in timed if r["provider"] == entry["auto"]), None)
    return (
        min(timed, key=lambda r: r["ms"][1], default=None)
        if auto is None and not entry["auto"]
        else auto
    )


def _kernel_cells(entry: Mapping[str, Any], providers: Sequence[str]) -> list[str]:
    by = {r["provider"]: r for r in entry["rows"] if "ms" in r}
    times = [
        f"{1e3 * by[p]['ms'][1]:.1f}{'*' if p == entry['auto'] else ''}" if p in by else "-"
        for p in providers
    ]
    mine = headline(entry) or by.get(entry["auto"], {})
    low, mid, high = mine.get("speedup", (None, None, None))
    return [
        *(
            entry["op"],
            entry["case"],
            entry["type"],
            "forward" if entry["direction"] == "forward" else "fwd+bwd",
        ),
        *times,
        "-" if mid is None else f"{mid:.2f}x",
        "-" if low is None else f"{low:.2f} to {high:.2f}",
        f"{100 * mine['roofline']:.0f} %" if "roofline" in mine else "-",
    ]


def _aligned(row: Sequence[str], used: Sequence[int], widths: Sequence[int]) -> str:
    return "  ".join(row[i].ljust(w) if i == 0 else row[i].rjust(w) for i, w in zip(used, widths))


def _verdict(suite: Mapping[str, Any], timed: Sequence[Mapping[str, Any]]) -> list[str]:
    """The headline: our best row against the best of the others, with its spread."""
    ours = min((e for e in timed if e["ours"]), key=lambda e: e["ms"][1], default=None)
    if suite["kind"] == "ablation" or ours is None or "speedup" not in ours:
        return []
    low, mid, high = ours["speedup"]
    word = "times" if low > 1 else "a loss:" if high < 1 else "level:"
    return [
        f"  {ours['row']} against the best of a to f2 that ran ({ours['best']}): {word} {mid:.2f} "
        f"(p20 {low:.2f}, p80 {high:.2f})"
    ]
