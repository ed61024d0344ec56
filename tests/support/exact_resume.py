"""A stopped run against one that was left alone."""

import torch

from fastgan.recipes.training import make_trainer


def states(trainer):
    """Every tensor of the stage being trained, by a path of names."""
    found = {}

    def walk(path, value):
        if torch.is_tensor(value):
            found[path] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{path}/{key}", inner)

    walk("", trainer.active.state())
    return found


def goes_on_exactly(config, at, end):
    """Asserts that a run of `config` that stops at step `at` and goes on is at step `end`, tensor by
    tensor, what one is that was left alone; in the current folder. Returns both trainers, closed."""
    with make_trainer(config, resume=False, log=None, out="straight") as straight:
        straight.fit(end)
    with make_trainer(config, resume=False, log=None, out="parts") as first:
        first.fit(at)
    with make_trainer(config, resume=True, log=None, out="parts") as second:
        second.fit(end)
    expected, found = states(straight), states(second)
    assert expected.keys() == found.keys()
    for key in expected:
        assert torch.equal(expected[key], found[key]), key
    return straight, second
