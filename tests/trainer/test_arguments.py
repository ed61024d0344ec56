"""Arguments of the wrong kind: one FastganError each, before anything is written."""

import inspect
import math

import pytest
import torch
from run_support import QUIET, discriminator, generator, images
from torch import nn

import fastgan

WRONG = {
    "none": None,
    "text": "x",
    "empty": "",
    "minus": -1,
    "fraction": 1.5,
    "nan": math.nan,
    "infinite": math.inf,
    "huge": 2**70,
    "yes": True,
    "list": [1],
    "dict": {"G": 3},
    "bytes": b"x",
    "class": nn.Linear,
    "object": object(),
    "nothing": (),
}


def trainer(out=None, **changed):
    torch.manual_seed(0)
    return fastgan.Trainer(
        **{
            "nets": {"G": generator(), "D": discriminator()},
            "data": images(count=9),
            "latent_shape": (4, 1, 1),
            "batch_size": 4,
            "out": out,
            **QUIET,
            **changed,
        }
    )


def holds(make):
    """Whether `make` works or raises a FastganError of one line, and nothing else."""
    try:
        made = make()
    except fastgan.FastganError:  # one line: its constructor sees to that
        return None
    return made


@pytest.mark.parametrize("name", list(inspect.signature(fastgan.Trainer).parameters))
def test_wrong_arguments_of_the_trainer_are_named_before_anything_is_written(tmp_path, name):
    for kind, value in WRONG.items():
        if name == "out" or (name == "data" and kind == "none"):
            continue
        folder = tmp_path / f"{name}-{kind}"
        try:
            made = holds(
                lambda name=name, value=value, folder=folder: trainer(folder, **{name: value})
            )
        except Exception as error:
            raise AssertionError(f"{name}={value!r}: {type(error).__name__}: {error}") from error
        if made is None:
            assert not folder.exists(), f"{name}={value!r} left a folder"
        else:
            made.close()


@pytest.mark.parametrize(
    ("cls", "right"),
    [
        (fastgan.Adversarial, {}),
        (fastgan.Noise, {"shape": (2,)}),
        (fastgan.Phase, {"name": "D", "trains": ("D",), "loss": lambda step: {}}),
        (fastgan.Stage, {"nets": {}, "objective": fastgan.Adversarial()}),
    ],
    ids=lambda p: getattr(p, "__name__", ""),
)
def test_wrong_arguments_of_the_parts_are_named(cls, right):
    for name in inspect.signature(cls).parameters:
        for value in WRONG.values():
            try:
                holds(lambda name=name, value=value: cls(**{**right, name: value}))
            except Exception as error:
                raise AssertionError(
                    f"{cls.__name__}({name}={value!r}): {type(error).__name__}: {error}"
                ) from error
