"""FlatAdam inside the engine: the same training and the same checkpoints as torch's Adam, in one
launch a network."""

import copy

import numpy as np
import pytest
import torch
from flat_stages import is_flat, plain_adam, stage_of
from interpreter_child import interpreted, parent, run_interpreted
from run_support import images, in_a_hurry, newest, tiny
from torch import nn

import fastgan
from fastgan.ops.adam.optimizer import FlatAdam
from fastgan.trainer import pictures, sampling
from fastgan.trainer.optimization import fused

EPS = 2.0**-24


def test_training_equals_torchs_adam(flattened, monkeypatch):
    ours = stage_of(optimizers=plain_adam)
    monkeypatch.undo()
    theirs = stage_of(optimizers=plain_adam)
    assert (is_flat(ours), is_flat(theirs)) == ([True, True], [False, False])
    for step in range(7):
        ours.train_step(step)
        theirs.train_step(step)
    for name in "GD":
        for mine, other in zip(
            ours.nets[name].parameters(), theirs.nets[name].parameters(), strict=True
        ):
            assert torch.equal(mine, other)
    live = {key: value.abs().max() for key, value in theirs.nets["G"].state_dict().items()}
    for key, value in theirs.ema.nets["G"].state_dict().items():
        # The kernel fuses the multiply-add of the average: half an ulp a step less.
        assert (ours.ema.nets["G"].state_dict()[key] - value).abs().max() <= 7 * 2 * EPS * live[
            key
        ], key


def test_a_loss_scale_that_overflows_skips_the_step_without_reading_the_device(flattened):
    from fastgan.graphs.host_reads import NoHostReads

    stage = stage_of(precision="fp16")
    before = [p.clone() for p in stage.nets["G"].parameters()]
    for scaler in stage.runner.scalers.values():
        scaler.scale(torch.ones(()))
        scaler._scale.fill_(2.0**30)
    with NoHostReads():
        stage.on_device({})
    assert all(torch.equal(a, b) for a, b in zip(before, stage.nets["G"].parameters(), strict=True))
    assert stage.optimizers["G"].steps == 0
    stage.runner.scalers["G"]._scale.fill_(1.0)
    stage.runner.scalers["D"]._scale.fill_(1.0)
    stage.on_device({})
    assert stage.optimizers["G"].steps == 1
    assert not any(
        torch.equal(a, b)
        for a, b in zip(before, stage.nets["G"].parameters(), strict=True)
        if b.dim() > 1
    )


def test_runs_go_on_with_the_other_optimiser_and_checkpoints_look_the_same(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    chosen = {"flat": lambda *_: "reference", "torch": lambda *_: None}
    trees = {}
    for first in chosen:
        for second in chosen:
            path = tmp_path / f"{first}-{second}"
            for kind, steps, resume in ((first, 6, False), (second, 12, True)):
                monkeypatch.setattr(fused, "engine_of", chosen[kind])
                torch.manual_seed(1)
                with tiny(path, seed=7, resume=resume, optimizers=plain_adam) as trainer:
                    assert isinstance(trainer.optimizers["G"], FlatAdam) == (kind == "flat")
                    trainer.fit(steps)
            trees[first, second] = newest(path)
    straight = tmp_path / "straight"
    monkeypatch.setattr(fused, "engine_of", chosen["flat"])
    torch.manual_seed(1)
    with tiny(straight, seed=7, optimizers=plain_adam) as trainer:
        trainer.fit(12)
    assert newest(straight) == trees["flat", "flat"]  # exact resume
    reference, facts = trees["torch", "torch"]
    for found, tree in trees.values():
        assert found.keys() == reference.keys()
        assert tree[0] == facts[0]  # the same options, types and layouts
        for key, (data, dtype, shape) in reference.items():
            assert found[key][1:] == (dtype, shape)
            if not key.startswith("ema/"):
                assert found[key][0] == data, key


def test_a_checkpoint_before_the_first_step_goes_on_either_way(flattened, monkeypatch):
    ours = stage_of(optimizers=plain_adam)
    monkeypatch.undo()
    theirs = stage_of(optimizers=plain_adam)
    ours.load_state(copy.deepcopy(theirs.state()))
    theirs.load_state(copy.deepcopy(ours.state()))
    ours.train_step(0)
    theirs.train_step(0)
    for mine, other in zip(ours.nets["D"].parameters(), theirs.nets["D"].parameters(), strict=True):
        assert torch.equal(mine, other)


@parent
@pytest.mark.slow
def test_in_the_interpreter():
    run_interpreted(__file__)


@interpreted
def test_kernel_trains_and_resumes(tmp_path, monkeypatch):
    """impl="triton" is enough: the kernel updates both networks and the average, and a run that
    stopped goes on exactly."""

    monkeypatch.setattr(pictures, "GRID", 4)
    monkeypatch.setattr(sampling, "CHUNK", 4)

    def make(path, impl, resume=False):
        torch.manual_seed(1)
        g = nn.Sequential(
            nn.Flatten(),
            nn.Linear(4, 8),
            nn.ReLU(),
            nn.Linear(8, 64),
            nn.Tanh(),
            nn.Unflatten(1, (1, 8, 8)),
        )
        d = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        options = {
            "data": images(),
            "latent_shape": (4, 1, 1),
            "batch_size": 4,
            "progress": False,
            "device": "cpu",
        }
        options |= {"watch": False, "log_every": 2, "sample_every": 100, "checkpoint_every": 100}
        return fastgan.Trainer(g, d, out=path, resume=resume, impl=impl, **options)

    with make(tmp_path / "straight", "triton") as straight:
        assert all(isinstance(o, FlatAdam) for o in straight.optimizers.values())
        straight.fit(2)
    with make(tmp_path / "cut", "triton") as cut:
        cut.fit(1)
    with make(tmp_path / "cut", "triton", resume=True) as cut:
        cut.fit(2)
    assert newest(tmp_path / "straight") == newest(tmp_path / "cut")
    with make(None, "reference") as reference:
        reference.fit(2)
    with make(tmp_path / "cut", "reference", resume=True) as on:
        assert not any(isinstance(o, FlatAdam) for o in on.optimizers.values())
    for kind in ("nets", "ema"):
        for name, net in getattr(reference, kind).items():
            for mine, other in zip(
                getattr(straight, kind)[name].parameters(), net.parameters(), strict=True
            ):
                # Adam divides by the root of its second moment: in the first steps an ulp of a
                # gradient near 0 is a part of lr.
                np.testing.assert_allclose(
                    mine.detach().numpy(), other.detach().numpy(), rtol=1e-4, atol=2 * 2e-4 * 0.02
                )
