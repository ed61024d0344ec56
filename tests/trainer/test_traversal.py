"""Pictures in which one input of a generator changes alone."""

import pytest
import torch
from torch import nn

import fastgan
from fastgan.precision import resolve
from fastgan.trainer.reuse.traversal import traversal


class Shown(fastgan.Objective):
    noise = {
        "z": fastgan.Noise((2,)),
        "kind": fastgan.Noise((), "categorical", classes=3),
        "code": fastgan.Noise((1,), "uniform", low=0.0, high=1.0),
    }

    def generate(self, step):
        noise = step.noise
        return torch.cat([noise.z, noise.kind[:, None], noise.code], 1)[:, :, None, None] / 4


def shown(name):
    nets = {"G": nn.Identity()}
    cpu = torch.device("cpu")
    options = {"rows": 4, "columns": 3, "seed": 1, "device": cpu, "precision": resolve("fp32", cpu)}
    return traversal(Shown(), nets, name, **options).mul(2).sub(1).mul(4).view(4, 3, 4)


@pytest.mark.parametrize(
    ("name", "moves", "values"),
    [("kind", 2, [0, 1, 2]), ("code", 3, [0, 0.5, 1]), ("z.1", 1, [-2, 0, 2])],
)
def test_one_number_moves_along_a_row(name, moves, values):
    images = shown(name)
    assert images[0, :, moves].tolist() == pytest.approx(values, abs=1e-6)
    rest = [i for i in range(4) if i != moves]
    assert torch.equal(images[:, :1, rest].expand(-1, 3, -1), images[:, :, rest])
    assert not torch.equal(images[0], images[1])


def test_unknown_inputs_are_named():
    with pytest.raises(fastgan.FastganError, match=r"no input 'z.2' .* z.0 to z.1, kind, code.0"):
        shown("z.2")
