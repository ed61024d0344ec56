"""Checkpoints without pickle: trees of tensors, numbers and strings as safetensors + JSON, in
folders that appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as deserialise
from safetensors.torch import save as serialise

from fastgan import files
from fastgan.errors import FastganError
from fastgan.runs import schema

FORMAT = 1
STATE = "state.json"


def flatten(tree: Any, tensors: dict[str, torch.Tensor], prefix: str = "") -> Any:
    """A JSON-able copy of `tree`; its tensors go into `tensors` under their paths.

    Raises FastganError for what neither can hold.
    """
    if isinstance(tree, torch.Tensor):
        key = prefix or "value"
        tensors[key] = tree.detach()
        layout = (
            tree.dim() == 4
            and tree.is_contiguous(memory_format=torch.channels_last)
            and not tree.is_contiguous()
        )
        return {"$tensor": key, "$channels_last": True} if layout else {"$tensor": key}
    if isinstance(tree, Mapping):
        items = [
            [key, flatten(value, tensors, f"{prefix}/{key}" if prefix else str(key))]
            for key, value in tree.items()
        ]
        return (
            dict(items)
            if all(isinstance(key, str) and not key.startswith("$") for key, _ in items)
            else {"$items": items}
        )
    if isinstance(tree, tuple):
        return {
            "$tuple": [flatten(value, tensors, f"{prefix}/{i}") for i, value in enumerate(tree)]
        }
    if isinstance(tree, list):
        return [flatten(value, tensors, f"{prefix}/{i}") for i, value in enumerate(tree)]
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    raise FastganError(
        f"a checkpoint can't hold {prefix or 'this'}: a {type(tree).__name__}; only tensors, "
        "numbers, strings, lists and dicts"
    )


def unflatten(tree: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `flatten`, bit for bit, memory formats included."""
    if isinstance(tree, dict):
        if "$tensor" in tree:
            value = tensors[tree["$tensor"]]
            return (
                value.contiguous(memory_format=torch.channels_last)
                if tree.get("$channels_last")
                else value
            )
        if "$items" in tree:
            return {key: unflatten(value, tensors) for key, value in tree["$items"]}
        if "$tuple" in tree:
            return tuple(unflatten(value, tensors) for value in tree["$tuple"])
        return {key: unflatten(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list):
        return [unflatten(value, tensors) for value in tree]
    return tree


def infinite(groups: Mapping[str, Any]) -> str | None:
    """The path of a floating-point tensor in `groups` that holds NaN or infinities, or None; reads
    the device once."""
    tensors: dict[str, torch.Tensor] = {}
    flatten(groups, tensors)
    floats = {
        key: value for key, value in tensors.items() if value.is_floating_point() and value.numel()
    }
    if not floats:
        return None
    devices = {value.device for value in floats.values()}
    good = [value.isfinite().all().to(next(iter(devices))) for value in floats.values()]
    return next((key for key, ok in zip(floats, torch.stack(good).tolist()) if not ok), None)


def copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous copies on the CPU that share nothing."""
    return {
        key: torch.empty(value.shape, dtype=value.dtype, device="cpu").copy_(value)
        for key, value in tensors.items()
    }


def pack(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """safetensors bytes; tied and channels_last tensors are written as plain copies."""
    return serialise(copied(tensors), metadata={"format": "pt"})


def _sum_of(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _tensors(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    data = files.read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path.name} is not what was written")
    return deserialise(data)


@contextlib.contextmanager
def _blaming(path: Path) -> Iterator[None]:
    try:
        yield
    except (FastganError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise FastganError(
            f"checkpoint {path} is damaged ({why}): remove that folder to go on from the one before"
        ) from error


class Checkpoints:
    """The checkpoints/ folder of a run: step-00001000/ and so on, the last `keep` kept."""

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self.folder, self.keep = folder, keep
        self.best: int | None = None
        """The step of a checkpoint that is never dropped."""
        self.every: int | None = None
        """Of the multiples of this the last `keep` stay, whatever is saved between."""
        self._passing: set[Path] = set()

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending."""
        whole = [p for p in self._folders() if files.kind(p / STATE) == "file"]
        return sorted(int(p.name.removeprefix("step-")) for p in whole)

    def incomplete(self) -> list[Path]:
        """Folders of checkpoints without their state.json, which count as none, ascending."""
        return sorted(p for p in self._folders() if files.kind(p / STATE) != "file")

    def _folders(self) -> list[Path]:
        if files.kind(self.folder) != "folder":
            return []
        named = [p for p in self.folder.glob("step-*") if re.fullmatch("step-[0-9]{8,18}", p.name)]
        ours = [p for p in named if self.path(int(p.name.removeprefix("step-"))) == p]
        return [p for p in ours if files.kind(p, follow=False) == "folder"]

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def save(
        self, step: int, groups: Mapping[str, Any], state: Mapping[str, Any], passing: bool = False
    ) -> Path:
        """Write one checkpoint: a safetensors file for each group (nets, ema, optimizers ...) and
        state.json with their SHA-256; then drop the oldest. After a failure every checkpoint of
        before is still whole. Raises FastganError.

        passing: the next save drops it, so that saves by time, which may follow each other closely,
        take the place of one of those that are far enough apart to go back to, not of all.
        """
        return self.prepared(step, groups, state, passing)()

    def prepared(
        self, step: int, groups: Mapping[str, Any], state: Mapping[str, Any], passing: bool = False
    ) -> Callable[[], Path]:
        """What `save` does, in two parts: the state as it is now is copied, and what is returned
        writes the copy, on another thread if need be."""
        copies: dict[str, dict[str, torch.Tensor]] = {}
        trees = {}
        for name, tree in groups.items():
            tensors: dict[str, torch.Tensor] = {}
            trees[name] = flatten(tree, tensors)
            copies[name] = copied(tensors)
        return partial(self._write, step, trees, copies, dict(state), passing)

    def _write(
        self,
        step: int,
        trees: Mapping[str, Any],
        copies: Mapping[str, Mapping[str, torch.Tensor]],
        state: Mapping[str, Any],
        passing: bool,
    ) -> Path:
        content = {
            f"{name}.safetensors": serialise(dict(tensors), metadata={"format": "pt"})
            for name, tensors in copies.items()
            if tensors
        }
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
        written = {"format": FORMAT, "step": step, "sha256": sums, "trees": trees, **state}
        content[STATE] = json.dumps({**written, schema.CHECKSUM: _sum_of(written)}).encode()
        path = self.path(step)
        files.make_folder(path, content)
        best = self.path(self.best) if self.best is not None else None
        gone = self._passing - {path, best}
        self._passing = self._passing - gone - {path} | ({path} if passing else set())
        regular = [s for s in self.steps() if self.every and s % self.every == 0][-self.keep :]
        kept = [self.path(s) for s in self.steps() if s != self.best and self.path(s) not in gone]
        stay = {self.path(s) for s in regular}
        for old in (*gone, *(p for p in kept[: -self.keep] if p not in stay)):
            # one that can't be dropped now is dropped by a later save
            with contextlib.suppress(OSError):
                files.remove_folder(old)
        return path

    def load(self, step: int | str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """(groups, state) of checkpoint `step`, of the "best", or of the newest. Raises
        FastganError where there is none or it is damaged."""
        while True:
            steps = (
                self.steps() or self.steps()
            )  # while they were listed, the last may have given way to a new one
            if not steps:
                raise FastganError(
                    f"no checkpoint in {self.folder}: start the run again with another --out"
                )
            chosen = steps[-1] if step is None else self.existing(step)
            try:
                return self._read(self.path(chosen))
            except FastganError:
                # a running trainer may drop a checkpoint while it is read
                if files.kind(self.path(chosen) / STATE) is not None:
                    raise

    def existing(self, step: int | str) -> int:
        """The step of a checkpoint that is there, by `named`. Raises FastganError."""
        chosen, steps = self.named(step), self.steps()
        if chosen not in steps:
            raise FastganError(
                f"no checkpoint of step {chosen} in {self.folder}: there are "
                f"{', '.join(map(str, steps))}"
            )
        return chosen

    def named(self, step: int | str) -> int:
        """The step of what is called "best": by `--evaluate-every`, as the newest checkpoint has
        it. Raises FastganError where nothing was measured."""
        if isinstance(step, int):
            return step
        newest = self.load()[1]
        best = (newest.get("evaluation") or {}).get("best")
        if step != "best" or not best:
            raise FastganError(
                f"no checkpoint {step!r} in {self.folder}: give a step, or train with "
                "--evaluate-every, which keeps the best one"
            )
        return int(best["step"])

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        with _blaming(path):
            state = json.loads(files.read(path / STATE, files.TEXT))
            schema.check(state, schema.CHECKPOINT, STATE)
            if state["format"] > FORMAT:
                raise FastganError(
                    f"checkpoint {path} was written by a newer fastgan: update this one"
                )
            if state.pop(schema.CHECKSUM, None) not in (None, _sum_of(state)):
                raise ValueError(f"{STATE} is not what was written")
            groups, sums = {}, state.pop("sha256")
            for name, tree in state.pop("trees").items():
                file = f"{name}.safetensors"
                groups[name] = unflatten(
                    tree, _tensors(path / file, sums[file]) if file in sums else {}
                )
            if self.path(state["step"]) != path:
                raise ValueError(f"it says it is of step {state['step']}")
        return groups, state

    def whole(self, step: int) -> contextlib.AbstractContextManager[None]:
        """What goes wrong inside is the fault of that checkpoint. Raises FastganError."""
        return _blaming(self.path(step))
