"""Steps with reals and fakes as one batch: which calls are made, that they learn the same, in a graph
too."""

import json

import numpy as np
import pytest
import torch

import fastgan
from fastgan.acceleration import accelerate
from fastgan.graphs.backends import RecordedGraph
from fastgan.models.dcgan import (
    ConditionalDiscriminator,
    ConditionalGenerator,
    Discriminator,
    Generator,
)
from fastgan.precision import resolve
from fastgan.trainer.stages.active import ActiveStage
from fastgan.trainer.stages.stage import Stage, open_streams

CPU = torch.device("cpu")


def stage_of(
    one_pass, nets=None, graphs=None, conditional=False, precision="fp32", impl="auto", **options
):
    torch.manual_seed(0)
    if nets is None:
        nets = {"G": Generator(16, 1, 8, 2), "D": accelerate(Discriminator(16, 1, 2))}
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8)
    data = fastgan.data.Aligned(image=images, label=np.arange(40) % 10) if conditional else images
    objective = fastgan.Adversarial(
        options.pop("loss", "non-saturating"),
        (8, 1, 1),
        conditional=conditional,
        one_pass=one_pass,
        **options,
    )
    return ActiveStage(
        Stage(nets, objective),
        open_streams(data, size=None, channels=None, strict=False),
        index=0,
        seed=3,
        batch_size=8,
        ema_decay=0.9,
        flip=True,
        device=CPU,
        precision=resolve(precision, CPU),
        memory_format=torch.channels_last,
        resident_bytes=2**31,
        graphs=graphs,
        impl=impl,
    )


def calls_of(stage, step):
    """Batch sizes that D was called with in a step, and what the step logged."""
    sizes = []
    net = stage.nets["D"]
    hook = net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    logged = stage.train_step(step)
    hook.remove()
    return sizes, logged


def conditional_nets():
    torch.manual_seed(0)
    return {
        "G": ConditionalGenerator(16, 1, 8, 2),
        "D": accelerate(ConditionalDiscriminator(16, 1, 2)),
    }


@pytest.mark.parametrize(
    ("options", "one", "two"),
    [
        ({}, [16, 8], [8, 8, 8]),
        (
            {"r1": 1.0},
            [8, 8, 8],
            [8, 8, 8],
        ),  # reals have a graph that fakes don't need; no call for R1
        ({"r1": 1.0, "lazy_r1": 2, "step": 1}, [16, 8], [8, 8, 8]),
        ({"r1": 1.0, "r2": 1.0}, [16, 8], [8, 8, 8]),
        (
            {"loss": "relativistic"},
            [16, 8, 8],
            [8, 8, 8, 8],
        ),  # G's phase: the reals need no graph of their own
        ({"precision": "fp16"}, [16, 8], [8, 8, 8]),
        ({"precision": "bf16"}, [16, 8], [8, 8, 8]),
        ({"conditional": True}, [16, 8], [8, 8, 8]),
    ],
    ids=["dcgan", "r1", "r1 not due", "r1 and r2", "relativistic", "fp16", "bf16", "labels"],
)
def test_a_step_logs_and_learns_the_same(options, one, two):
    step = options.get("step", 0)
    options = {key: value for key, value in options.items() if key != "step"}
    stages = [
        stage_of(way, conditional_nets() if options.get("conditional") else None, **options)
        for way in (True, False)
    ]
    assert stages[0].pairs == ["D: one pass"]
    assert stages[1].pairs == ["two passes: the objective asks for them"]
    assert all(
        torch.equal(a, b)
        for name in "GD"
        for a, b in zip(stages[0].nets[name].parameters(), stages[1].nets[name].parameters())
    )
    (sizes, mine), (others, theirs) = (calls_of(stage, step) for stage in stages)
    assert (sizes, others) == (one, two)
    assert mine.keys() == theirs.keys()
    half = options.get("precision", "fp32") != "fp32"
    for key, value in theirs.items():
        torch.testing.assert_close(
            mine[key], value, rtol=2e-2 if half else 1e-4, atol=2e-2 if half else 1e-5, msg=key
        )
    for key, value in stages[1].nets["D"].state_dict().items():
        if "running" in key or "tracked" in key:
            torch.testing.assert_close(
                stages[0].nets["D"].state_dict()[key],
                value,
                rtol=2e-2 if half else 1e-4,
                atol=1e-2 if half else 1e-5,
            )
    for stage in stages:
        stage.close()


def test_on_a_cpu_there_are_two_passes_unless_asked_for():
    stage = stage_of(None)
    assert stage.pairs == ["two passes: on a CPU one is no faster"]
    assert calls_of(stage, 0)[0] == [8, 8, 8]
    stage.close()


def test_graphs_hold_the_one_pass():
    eager, graphed = (
        stage_of(True, n_critic=2, r1=1.0, lazy_r1=2),
        stage_of(True, n_critic=2, r1=1.0, lazy_r1=2, graphs=RecordedGraph),
    )
    assert eager.pairs == graphed.pairs == ["D: one pass"]
    for step in range(5):
        expected = {k: v.clone() for k, v in eager.train_step(step).items()}
        found = {k: v.clone() for k, v in graphed.train_step(step).items()}
        assert graphed.graph_reason is None
        assert all(torch.equal(expected[k], found[k]) for k in expected), step
    for name in "GD":
        for key, value in eager.nets[name].state_dict().items():
            assert torch.equal(value, graphed.nets[name].state_dict()[key]), f"{name}/{key}"
    eager.close()
    graphed.close()


def test_a_run_says_how_pairs_are_called(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 1), np.uint8)
    objective = fastgan.Adversarial(latent_shape=(8, 1, 1), one_pass=True)
    trainer = fastgan.Trainer(
        Generator(16, 1, 8, 2),
        Discriminator(16, 1, 2),
        objective=objective,
        data=images,
        batch_size=4,
        out=tmp_path / "run",
        device="cpu",
        progress=False,
    )
    trainer.close()
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["pairs"] == [
        "D: two passes: BatchNorm2d 3 takes its statistics over the whole batch"
    ]
