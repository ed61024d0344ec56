"""Times of each form of each operation, within a budget; and what follows from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from fastgan.cpu import table as tables
from fastgan.cpu.layers import Layer, Operation, operations
from fastgan.cpu.table import CpuTable, Times
from fastgan.errors import FastganError
from fastgan.ops.conv import forms
from fastgan.ops.conv.formed import PYTORCH, Forms

SECONDS = 1.0
"""What measuring may take when a training starts, in time of the CPU: a busy machine may take up to
four times as long on the clock."""

WORTH = 2e7
"""Floating-point operations of one pass through all layers, from which on it is measured: below,
Python's own time is what counts."""

AT_ONCE = 4e8
"""Operations of one timed call, for each thread: of larger layers fewer images are taken."""

REPEATS = 3
BF16_FASTER = 0.85
"""bf16 is taken where its convolutions need at most this part of fp32's time."""

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def seconds(call: Callable[[], object]) -> float:
    """Of one call: of this thread where it works alone, so that neighbours do not count."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    call()
    return clock() - start


class Budget:
    """Seconds of the threads that compute, and at most four times as many on the clock."""

    def __init__(self, seconds: float) -> None:
        self._cpu = time.process_time() + seconds * torch.get_num_threads()
        self._clock = time.monotonic() + 4 * seconds

    def over(self) -> bool:
        return time.process_time() > self._cpu or time.monotonic() > self._clock


class Task:
    """An operation in a type, on random numbers, of so few images that a call is short."""

    def __init__(self, operation: Operation, type_name: str) -> None:
        self.operation, self.key = operation, operation.key(type_name)
        share = AT_ONCE * torch.get_num_threads() / max(operation.flops, 1)
        images = min(operation.images, max(4, round(operation.images * share)))
        self.scale = operation.images / images
        self._small = replace(operation, images=images)
        self._dtype = TYPES[type_name]
        self._given: tuple[object, ...] | None = None
        self.best: Times = {}
        self.broken: set[str] = set()

    def _arguments(self) -> tuple[object, ...]:
        o, dtype = self._small, self._dtype
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> torch.Tensor:
            drawn = torch.randn(*shape, generator=generator).to(dtype)
            return drawn.contiguous(memory_format=torch.channels_last)

        big = draw(o.images, o.large, *o.size)
        small = draw(o.images, o.small, *o.geometry.small(*o.size))
        w = draw(o.small, o.large, *o.geometry.kernel)
        return {"down": (big, w), "up": (small, w, o.size), "weight": (big, small)}[o.name]

    def run(self, form: str) -> None:
        """One timed call; a form that raises is not asked again."""
        if self._given is None:
            self._given = self._arguments()
        function = getattr(forms, self.operation.name)
        given = (*self._given, self.operation.geometry, form)
        try:
            taken = seconds(lambda: function(*given)) * 1e3 * self.scale
        except (RuntimeError, NotImplementedError):
            self.broken.add(form)
            self.best.pop(form, None)
            return
        self.best[form] = min(taken, self.best.get(form, float("inf")))

    def first(self) -> None:
        """PyTorch's own way, warmed up."""
        self.run("onednn")
        self.best.clear()
        self.run("onednn")

    def others(self) -> None:
        """All forms in turns; one that needs twice PyTorch's time, warmed up, is left at that."""
        o = self.operation
        usable = partial(o.geometry.runs, operation=o.name, big=o.size, dtype=self._dtype)
        wanted = [f for f in forms.FORMS[o.name][1:] if usable(f)]
        for form in wanted:
            self.run(form)
            self.best.pop(form, None)
        for repeat in range(REPEATS):
            for form in ("onednn", *wanted):
                slow = repeat and self.best.get(form, 0.0) > 2 * self.best["onednn"]
                if form not in self.broken and not slow:
                    self.run(form)
        self._given = None


def measure(
    layers: Sequence[Layer],
    type_names: Sequence[str],
    budget: float = SECONDS,
    table: CpuTable | None = None,
) -> CpuTable:
    """This CPU's table with the operations of these layers; what the budget of seconds leaves no
    time for keeps PyTorch's form and is not written down.

    Operations with most time to win come first. The result, written where that is possible, holds
    PyTorch's times of all operations."""
    table = tables.load() if table is None else table
    limit = Budget(budget)
    tasks = [
        task
        for o in operations(layers)
        for name in type_names
        if (task := Task(o, name)).key not in table.operations
    ]
    begun = []
    for task in tasks:
        if limit.over():
            break
        try:
            task.first()
        except KeyError:  # PyTorch's own raises: the training will say why
            continue
        begun.append(task)
    rates = [t.operation.flops / t.best["onednn"] for t in begun if "onednn" in t.best]
    whole = []
    for task in sorted(
        (t for t in begun if "onednn" in t.best),
        key=lambda t: t.operation.flops / max(rates) - t.best["onednn"],
    ):
        if limit.over():
            break
        task.others()
        whole.append(task)
    if whole:
        tables.save(CpuTable({t.key: t.best for t in whole}))
    return CpuTable({**{t.key: t.best for t in begun if t.best}, **table.operations})


@dataclass(frozen=True)
class Choice:
    """precision: fp32 or bf16, and in one line why. forms: {network: {path: Forms}} of layers that
    PyTorch's own way is not the fastest for."""

    precision: str
    why: str
    forms: dict[str, dict[str, Forms]]

    def as_json(self) -> dict[str, object]:
        return {"precision": self.precision, "why": self.why, "forms": forms_as_json(self.forms)}


def forms_as_json(chosen: Mapping[str, Mapping[str, Forms]]) -> dict[str, dict[str, list[str]]]:
    """{network: {path: [down, up, weight]}}."""
    return {
        net: {path: [f.down, f.up, f.weight] for path, f in layers.items()}
        for net, layers in chosen.items()
    }


def forms_of(value: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, dict[str, Forms]]:
    """What `forms_as_json` wrote. Raises FastganError where a form is unknown."""
    found: dict[str, dict[str, Forms]] = {}
    for net, chosen in value.items():
        for path, names in chosen.items():
            known = len(names) == len(forms.FORMS)
            if not known or any(n not in ways for n, ways in zip(names, forms.FORMS.values())):
                raise FastganError(
                    f"the run computes {net}.{path} by forms {', '.join(names)} that this version "
                    "does not know: use the fastgan that it was trained with"
                )
            found.setdefault(net, {})[path] = Forms(*names)
    return found


def choose(layers: Sequence[Layer], precision: str, budget: float = SECONDS) -> Choice:
    """The precision, if it is "auto", and the forms for these layers, by measurement."""
    asked = ["fp32", "bf16"] if precision == "auto" else [precision]
    if sum(o.flops for layer in layers for o in layer.operations) < WORTH:
        name = "fp32" if precision == "auto" else precision
        return Choice(name, "the convolutions are too small to measure", {})
    if not set(asked) <= TYPES.keys():
        return Choice(precision, f"forms are not measured in {precision}", {})
    table = measure(layers, asked, budget)
    name, why = asked[0], "as asked for"
    if precision == "auto":
        both = [
            (a, b)
            for layer in layers
            for o in layer.operations
            if (a := table.ms(o.key("fp32"))) is not None
            and (b := table.ms(o.key("bf16"))) is not None
        ]
        fp32, bf16 = (sum(times) for times in zip(*both)) if both else (0.0, 0.0)
        name = "bf16" if both and bf16 < BF16_FASTER * fp32 else "fp32"
        why = f"its convolutions take {bf16:.3g} ms in bf16, {fp32:.3g} ms in fp32"
    found: dict[str, dict[str, Forms]] = {}
    for layer in layers:
        chosen = layer.forms(lambda o: table.form(o.key(name)))
        if chosen != PYTORCH:
            found.setdefault(layer.net, {})[layer.path] = chosen
    return Choice(name, why, found)
