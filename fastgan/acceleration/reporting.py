"""report: what was swapped, which engine does the work, what was left and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from fastgan.acceleration import functional_norms, joining
from fastgan.acceleration.discovery import runs_apart
from fastgan.acceleration.fused import FusedSequential, why_all_apart, why_apart
from fastgan.acceleration.patterns import Tree, plain_class
from fastgan.acceleration.swapping import (
    PLAN,
    Finding,
    container_left,
    families_of,
    plan_of,
    require_module,
    survey,
)
from fastgan.ops.dispatch import missing

ORDER = ("fused", "joined", "swapped", "kept", "not swapped", "left", "could fuse", "not traced")


@dataclass(frozen=True)
class LayerRow:
    """One module, or one run of children of a container. `status` is one of ORDER."""

    path: str
    module: str
    status: str
    engine: str
    why: str


@dataclass(frozen=True, repr=False)
class Report:
    """What :func:`report` found: prints as a table; `rows` in the module's order."""

    name: str
    engine: (
        str  # what runs the swapped modules where this module lies now, and why nothing faster does
    )
    rows: tuple[LayerRow, ...]

    def count(self, status: str) -> int:
        return sum(row.status == status for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """{"module", "engine", "counts" by status, "rows": [{"path", "module", "status", "engine",
        "why"}]}: plain values, fit for JSON.
        """
        return {
            "module": self.name,
            "engine": self.engine,
            "counts": {s: self.count(s) for s in ORDER},
            "rows": [asdict(row) for row in self.rows],
        }

    def __str__(self) -> str:
        counts = ", ".join(
            f"{self.count(status)} {status}" for status in ORDER if self.count(status)
        )
        head = f"{self.name}: {counts or 'nothing to accelerate'}; engine: {self.engine}"
        if not self.rows:
            return head
        lines = [(r.path or "(itself)", r.module, r.status, r.why or r.engine) for r in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        return "\n".join(
            [
                head,
                *(
                    "  "
                    + "  ".join([*(f"{c:<{w}}" for c, w in zip(line, widths)), line[3]]).rstrip()
                    for line in lines
                ),
            ]
        )

    __repr__ = __str__


def report(module: nn.Module) -> Report:
    """Say what `fastgan.accelerate` did to a network, what it left, and why. Changes nothing.

    Args:
        module: The network, accelerated or not.

    Returns:
        A `Report`. It prints as a table; `rows` has one entry for each module or run of modules,
        `count("fused")` how many have that status, `to_dict()` plain values.

    Example:
        >>> from torch import nn
        >>> import fastgan
        >>> block = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2))
        >>> found = fastgan.report(fastgan.accelerate(block))
        >>> [(row.module, row.status) for row in found.rows]
        [('Conv2d > BatchNorm2d > LeakyReLU', 'fused')]
    """
    require_module(module, "report")
    tree = Tree(module)
    findings: dict[int, list[Finding]] = {}
    for finding in survey(tree, families_of(None)):
        findings.setdefault(id(finding.module), []).append(finding)
    rows: list[LayerRow] = []
    in_runs: set[int] = set()
    engine, because = _engine(module)
    for path, part in tree.walk():
        if isinstance(part, nn.Sequential):
            for row, members in _runs(path, part, tree, engine):
                rows.append(row)
                in_runs |= members
        for finding in findings.get(id(part), ()):
            if id(part) not in in_runs or finding.target is not part:
                rows.append(_row(finding, engine))
        sites = part.__dict__.get(functional_norms.SITES)
        if sites is not None:
            rows += [_site_row(site, path, site.kind, engine) for site in sites.values()]
            if not sites:
                why = (
                    "it calls norms as functions: the first forward tells which, and what "
                    "follows them"
                )
                rows.append(LayerRow(path, plain_class(part).__name__, "not traced", "", why))
        rows += _apart(path, part, tree)
    return Report(type(module).__name__, because, tuple(rows))


def _engine(module: nn.Module) -> tuple[str, str]:
    tensor = next(
        (t for group in (module.parameters(), module.buffers()) for t in group), torch.empty(0)
    )
    reason = missing("triton", tensor.device)
    return (
        (
            "triton",
            "triton for channels_last inputs, cuDNN for convolutions unless the tuning table says "
            "otherwise",
        )
        if reason is None
        else ("PyTorch", f"PyTorch ({reason})")
    )


def _apart(path: str, part: nn.Module, tree: Tree) -> list[LayerRow]:
    """What the forward of a module that is no Sequential calls one after the other: left so, and
    said."""
    kind = plain_class(part).__name__
    prefix = f"{path}." if path else ""
    why = (
        f"{kind}.forward calls them one by one: inside an nn.Sequential they would run as one, "
        "and rewrite=True joins norms"
    )
    found = []
    try:
        for run in runs_apart(part, tree):
            norm = next(
                (part.get_submodule(name) for stage, _, name in run if stage == "norm"), None
            )
            if getattr(getattr(norm, "join", None), "state", "") != "joined":
                where, what = (
                    ", ".join(name for _, _, name in run if name),
                    " > ".join(kind for _, kind, _ in run),
                )
                found.append(LayerRow(f"{prefix}{where}", what, "could fuse", "", why))
        return found
    except Exception as e:
        # tracing runs somebody else's code with stand-ins for tensors: anything may happen, and
        # nothing is lost
        because = (
            f"torch.fx cannot follow its forward ({type(e).__name__}), so runs in it are "
            "not "
            "looked for"
        )
        return [LayerRow(path, kind, "not traced", "", because)]


def _site_row(site: joining.Site, path: str, kind: str, engine: str) -> LayerRow:
    if site.state == "joined":
        return LayerRow(path, f"{kind} > {site.follows}", "joined", engine, "")
    return LayerRow(
        path,
        kind,
        "left" if kind.startswith("F.") else "swapped",
        engine,
        f"runs apart: {site.why}",
    )


def _row(finding: Finding, engine: str) -> LayerRow:
    if finding.status == "left":
        return LayerRow(finding.path, finding.kind, "left", "", finding.why)
    site = getattr(finding.module, "join", None) if finding.target is finding.module else None
    if finding.status == "swapped" and site is not None:
        return _site_row(site, finding.path, finding.kind, engine)
    if finding.status == "swapped":
        return LayerRow(finding.path, finding.kind, "swapped", engine, "")
    if finding.status == "keep":
        return LayerRow(
            finding.path,
            finding.kind,
            "kept",
            "PyTorch",
            "PyTorch's own: no norm or activation beside it in an nn.Sequential",
        )
    return LayerRow(finding.path, finding.kind, "not swapped", "", "accelerate would swap it")


def _runs(
    path: str, container: nn.Sequential, tree: Tree, engine: str
) -> list[tuple[LayerRow, set[int]]]:
    names, children = list(container._modules), list(container._modules.values())
    prefix = f"{path}." if path else ""
    plan, left = container.__dict__.get(PLAN), None
    if plan is None:
        left = container_left(container, tree)
        if left is None:
            return []
        plan = plan_of(container, tree, families_of(None))
    edges = (
        {edge.producer: edge.choice for edge in container.report()}
        if isinstance(container, FusedSequential)
        else {}
    )
    found: list[tuple[LayerRow, set[int]]] = []
    all_apart = left or why_all_apart(plan, children)
    for run in plan.joined:
        members = children[run.start : run.stop]
        kind = " > ".join(
            kind.__name__.removeprefix("Parametrized") for kind in plan.types[run.start : run.stop]
        )
        ends = [*names[run.start : run.start + 1], *names[run.stop - 1 : run.stop]]
        where = prefix + "..".join(ends)
        disturbed = why_apart(run, children) if all_apart is None else None
        if why := all_apart or (disturbed and disturbed[1].format(names[disturbed[0]])):
            found.append((LayerRow(where, kind, "left", "", f"runs one by one: {why}"), set()))
        else:
            choice = (
                edges.get(names[run.layer]) if run.layer >= 0 else None
            )  # who applied the normalisation in the last call
            # a norm that ends its run has a row of its own, where what follows it outside is looked
            # for
            told = {id(m) for m in members if run.act >= 0 or getattr(m, "join", None) is None}
            found.append(
                (
                    LayerRow(where, kind, "fused", f"{engine}, {choice}" if choice else engine, ""),
                    told,
                )
            )
    return found
