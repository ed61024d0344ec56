"""Bad files, sets of options and calls, drawn by a seed: each is used as meant, or refused in one
line (FastganError), and nothing else."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gzip
import inspect
import io
import json
import math
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image
from run_support import QUIET, discriminator, generator, images, tiny

import fastgan
from fastgan import objectives, recipes
from fastgan.cli.main import group
from fastgan.data.pixels import Unreadable, decode
from fastgan.errors import FastganError
from fastgan.objectives import Linear

WRONG: list[Any] = [
    *(None, True, -1, 0, 1, 1.5, 2**63, 2**70, 10**400, math.nan, math.inf, 1e300, -0.0),
    *("", "x", "\ud800", "\0", "../x", "\x1b[2J", "9" * 500, b"x"),
    *((), [], [[]], [None], {}, {"x": 1}, {"G": 3}, {1: 2}, set()),
    *(object(), torch.nn.Linear, lambda: 1 / 0, lambda *a: None, np.int64(3), np.array([1.0])),
    *(torch.zeros(2), torch.zeros(0), torch.nn.Identity(), range(3), slice(1), Ellipsis, print),
]
JSON_WRONG = [
    *(None, True, -1, 0, 1.5, 2**63, 10**400, math.nan, math.inf, "", "x", "\ud800", "\0"),
    *([], {}, [[]], [None], {"x": 1}, {"$tensor": "x"}, {"$object": "x", "args": {}}),
    *({"$name": "os:_exit"}, {"$dict": [[1]]}, "9" * 5000, ["x"] * 99),
]


def refused(attempt: Callable[[], object]) -> bool:
    """Whether it was refused, in one line."""
    try:
        attempt()
    except (FastganError, Unreadable) as error:
        said = str(error)
    else:
        return False
    assert "\n" not in said, said
    return True


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, cut, doubled or added."""
    data = bytearray(whole)
    for _ in range(chance.choice([1, 1, 1, 2, 5, 20])):
        at = chance.randrange(len(data) + 1) if chance.random() < 0.5 else chance.randrange(200)
        kind = chance.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = chance.choice([0, 255, 127, 128, 10, chance.randrange(256)])
        elif kind == 2:
            del data[at : at + chance.choice([1, 4, 64, len(data)])]
        elif kind == 3:
            data[at:at] = data[at : at + chance.choice([1, 8, 99])] or b"\0"
        else:
            data += bytes(chance.choice([1, 9, 4096]))
    return bytes(data)


def whole_files() -> dict[str, bytes]:
    """One sound file of each kind that is read as data."""
    array = images(6)
    colour = images(6, 12, 3)[0]
    made = {}
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"):
        out = io.BytesIO()
        Image.fromarray(colour).save(out, kind)
        made[f"image.{kind.lower()}"] = out.getvalue()
    for name, save in {"npy": np.save, "npz": np.savez, "packed.npz": np.savez_compressed}.items():
        out = io.BytesIO()
        save(out, array)
        made[f"x.{name}"] = out.getvalue()
    idx = struct.pack(">4B3I", 0, 0, 8, 3, 6, 8, 8) + array.tobytes()
    made |= {"x-idx3-ubyte": idx, "x-idx3-ubyte.gz": gzip.compress(idx, mtime=0)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"a/{i}.png", made["image.png"])
        archive.writestr(
            "dataset.json", json.dumps({"labels": [[f"a/{i}.png", i] for i in range(3)]})
        )
    made["set.zip"] = out.getvalue()
    return made


def a_run(folder: Path) -> Path:
    data = fastgan.data.open(images(), labels=[i % 3 for i in range(21)])
    with tiny(folder / "run", schedules={"G": {"lr": Linear(1e-3, 0.0, 10)}}, data=data) as t:
        t.fit(2)
    return folder / "run"


def mutated(text: str, chance: random.Random) -> str:
    """JSON with a value changed or left out, sometimes with its checksum gone, sometimes torn."""
    if chance.random() < 0.1:
        return text[: chance.randrange(len(text))] + chance.choice(["", "[" * 50_000, "\0", "}}"])
    tree = json.loads(text)
    if chance.random() < 0.5 and isinstance(tree, dict):
        tree.pop("checksum", None)
    for _ in range(chance.choice([1, 1, 2, 4])):
        inner: Any = tree
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                break
            key = chance.choice(keys)
            deeper = isinstance(inner[key], (dict, list)) and chance.random() < 0.8
            if deeper:
                inner = inner[key]
                continue
            if chance.random() < 0.25:
                del inner[key]
            else:
                inner[key] = copy.deepcopy(chance.choice(JSON_WRONG))
            break
    return json.dumps(tree)


def files(folder: Path, chance: random.Random, scale: float, tally: Any) -> None:
    """Damaged images, arrays, archives and files of runs."""
    sound = whole_files()
    for n in range(round(3500 * scale)):
        name = chance.choice(sorted(sound))
        data = damaged(sound[name], chance)
        path = folder / name

        def read(data: bytes = data, path: Path = path, name: str = name) -> None:
            if name.startswith("image."):
                no = refused(lambda: decode(data, chance.choice([None, (8, 8)]), 3))
            else:
                path.write_bytes(data)
                no = refused(lambda: fastgan.data.open(path, cache_dir=folder / "cache"))
            tally.add("data files refused" if no else "data files read")

        tally.check(f"{name} number {n}", read)
    run = a_run(folder)
    names = [
        *["run.json"] * 4,
        *["checkpoints/step-00000002/state.json"] * 3,
        *("config.toml", "metrics.jsonl", "alerts.jsonl"),
        *(f"checkpoints/step-00000002/{kind}.safetensors" for kind in ("nets", "ema")),
    ]
    uses: list[Callable[[Path], object]] = [
        lambda path: fastgan.load(path),
        lambda path: fastgan.sample(path, 2, device="cpu"),
        lambda path: fastgan.load(path, network="D", ema=False),
        lambda path: CliRunner().invoke(group, ["report", str(path)], catch_exceptions=False),
        lambda path: again(path),
    ]
    for n in range(round(1500 * scale)):
        name = chance.choice([name for name in names if (run / name).exists()])
        copy = folder / "copy"
        shutil.copytree(run, copy, dirs_exist_ok=True)
        before = (run / name).read_bytes()
        if name.endswith(".json"):
            after = mutated(before.decode(), chance).encode("utf-8", "surrogatepass")
        else:
            after = damaged(before, chance)
        (copy / name).write_bytes(after)

        def use(copy: Path = copy) -> None:
            tally.add(
                "run files refused"
                if refused(lambda: chance.choice(uses)(copy))
                else "run files used"
            )

        with contextlib.redirect_stderr(io.StringIO()):
            tally.check(f"{name} number {n}: {after[:80]!a}", use)
        shutil.rmtree(copy, ignore_errors=True)


def again(path: Path) -> None:
    data = fastgan.data.open(images(), labels=[i % 3 for i in range(21)])
    with tiny(path, resume=True, schedules={"G": {"lr": Linear(1e-3, 0.0, 10)}}, data=data) as t:
        t.fit(t.step + 1 if t.step < 9 else t.step)


def options(folder: Path, chance: random.Random, scale: float, tally: Any) -> None:
    """Sets of options of every recipe, right and wrong, by the command line and by a file, as far
    as --dry-run goes: no folder, no traceback."""
    np.savez(folder / "images.npz", images=images(40, 16, 3), labels=np.arange(40) % 3)
    os.chdir(folder)
    listed = sorted(os.listdir(folder))
    for n in range(round(2000 * scale)):
        recipe = chance.choice(sorted(recipes.RECIPES))
        cls = recipes.find(recipe)
        argv = ["train", "--recipe", recipe, "--dry-run", "--device", "cpu", "--out", "run"]
        argv += ["--batch-size", "4"]
        argv += ["--size", "16", "--data", "images.npz"] if cls.makes == "images" else []
        fields = [f for f in dataclasses.fields(cls) if f.name not in ("device", "model", "out")]
        given = {
            f.name: drawn(f, chance) for f in chance.sample(fields, chance.choice([1, 1, 2, 4]))
        }
        if by_file := chance.random() < 0.3:
            lines = [f"{key} = {value}" for key, value in given.items()]
            (folder / "o.toml").write_text("\n".join(lines), "utf-8", "surrogateescape")
            argv += ["--config", "o.toml"]
        else:
            argv += [f"--{key.replace('_', '-')}={value}" for key, value in given.items()]

        def use(argv: list[str] = argv) -> None:
            no = refused(lambda: command(argv))
            tally.add("sets refused" if no else "sets taken")

        tally.check(f"{recipe} {given} number {n}", use)
        if by_file:
            (folder / "o.toml").unlink()
        if sorted(os.listdir(folder)) != listed:
            print(f"  FAILED options: left {argv}", flush=True)
            tally.failures.append(f"{argv} left {sorted(set(os.listdir(folder)) - set(listed))}")
            listed = sorted(os.listdir(folder))
    os.chdir("/")


def drawn(field: Any, chance: random.Random) -> str:
    """A value of an option as it is typed: often near what it may be."""
    near = [field.default, 0, 1, 2, 3, 8, 0.5, 1e-4, "true", "false", "none"]
    wrong = [-1, 1.5, 2**31, 2**63, 2**64, 10**30, "nan", "inf", "-inf", "1e999", "", " ", "x"]
    wrong += ["'", '"', "[" * 50, "\u0663", "1_000", "0x10", "\x1b[31m", "a\tb", "../x", "9" * 300]
    return str(chance.choice(near if chance.random() < 0.8 else wrong))


def command(argv: list[str]) -> None:
    """A command as it is typed; what click refuses counts as refused. Raises FastganError."""
    done = CliRunner().invoke(group, argv)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (0, 2), done.output[-500:]
    if done.exit_code == 2:
        raise FastganError(done.output.splitlines()[-1])


CALLS: dict[str, tuple[Callable[..., object], dict[str, Any]]] = {
    "Adversarial": (fastgan.Adversarial, {}),
    "Noise": (fastgan.Noise, {"shape": (2,)}),
    "Phase": (fastgan.Phase, {"name": "D", "trains": ("D",), "loss": lambda step: {}}),
    "Stage": (fastgan.Stage, {"nets": {}, "objective": fastgan.Adversarial()}),
    "data.open": (fastgan.data.open, {"source": images()}),
    "data.Aligned": (fastgan.data.Aligned, {"image": images()}),
    **{
        f"objectives.{name}": (
            cls,
            {"start": 1.0, "end": 0.0, "steps": 9, "value": 1.0, "rate": 0.5},
        )
        for name, cls in vars(objectives).items()
        if inspect.isclass(cls) and name in ("Linear", "Constant", "Exponential", "Cosine")
    },
}


def calls(folder: Path, chance: random.Random, scale: float, tally: Any) -> None:
    """Public functions with wrong arguments, one to three at a time."""
    run = a_run(folder)

    def train(out: Any, **changed: Any) -> None:
        torch.manual_seed(0)
        nets = {"G": generator(), "D": discriminator()}
        common = {"nets": nets, "data": images(9), "latent_shape": (4, 1, 1), "batch_size": 4}
        with fastgan.Trainer(**{**common, **QUIET, "out": out, **changed}) as made:
            made.fit(1)

    def method(name: str) -> Callable[..., object]:
        def call(**given: Any) -> None:
            with tiny(None) as made:
                getattr(made, name)(**given)

        return call

    tables: dict[str, tuple[Any, list[str], dict[str, Any]]] = {
        name: (call, list(inspect.signature(call).parameters), right)
        for name, (call, right) in CALLS.items()
    }
    given = [p for p in inspect.signature(fastgan.Trainer).parameters if p != "out"]
    tables["Trainer"] = (lambda **changed: train(folder / "new", **changed), given, {})
    for name, function in {"load": fastgan.load, "sample": fastgan.sample}.items():
        right = {"path": run} if "path" in inspect.signature(function).parameters else {"run": run}
        tables[name] = (function, list(inspect.signature(function).parameters), right)
    for name in ("fit", "sample"):
        parameters = list(inspect.signature(getattr(fastgan.Trainer, name)).parameters)[1:]
        tables[f"Trainer.{name}"] = (
            method(name),
            parameters,
            {"steps": 1} if name == "fit" else {},
        )
    for name in ("accelerate", "report", "revert"):
        function = getattr(fastgan, name)
        right = {"module": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())}
        tables[name] = (function, list(inspect.signature(function).parameters), right)
    big = [w for w in WRONG if not (isinstance(w, int) and w > 2**31)]
    for n in range(round(1000 * scale)):
        name = chance.choice([*sorted(tables), *["Trainer"] * 6, "data.open", "sample"])
        call, parameters, right = tables[name]
        parameters = [p for p in parameters if p not in ("self", "kwargs", "streams")]
        if not parameters:
            continue
        chosen = chance.sample(parameters, min(len(parameters), chance.choice([1, 1, 2, 3])))
        own = {
            key: value
            for key, value in right.items()
            if key in inspect.signature(call).parameters or name.startswith("Trainer")
        }
        wrong = {key: chance.choice(WRONG if key not in ("n", "steps") else big) for key in chosen}

        def use(call: Any = call, arguments: Any = (own, wrong)) -> None:
            arguments = {**arguments[0], **arguments[1]}
            no = refused(lambda: call(**arguments))
            tally.add("calls refused" if no else "calls taken")
            if no:
                assert not (folder / "new").exists(), "a folder is left"
            shutil.rmtree(folder / "new", ignore_errors=True)

        with (
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()) as o,
        ):
            tally.check(f"{name} {wrong} number {n}", use)
        if "FAILED" in o.getvalue():
            print(o.getvalue(), end="", flush=True)


__all__ = ["FastganError", "calls", "files", "options"]
