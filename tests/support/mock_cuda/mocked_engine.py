"""Trainer, capture and accelerate on a GPU: run by tests/graphs/test_mock_cuda.py."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from run_support import discriminator, generator, images, in_a_hurry, mlp_pair
from torch import nn

import fastgan
from fastgan.devices import pick_device
from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.models import resnet
from fastgan.objectives import Adversarial
from fastgan.trainer.optimization.optimizers import SGD
from fastgan.trainer.stages.stage import Stage
from mock_cuda.kernels import LAUNCHED

QUIET = {
    "progress": False,
    "watch": False,
    "log_every": 5,
    "sample_every": 1000,
    "checkpoint_every": 1000,
}


def pair():
    return {"G": generator(2), "D": discriminator(2)}


def trainer(nets=pair, **options):
    torch.manual_seed(0)
    defaults = {"data": images(), "latent_shape": (4, 1, 1), "batch_size": 4, "precision": "fp32"}
    return fastgan.Trainer(nets=nets(), **(defaults | QUIET | options))


NOISE = ("G.0.bias", "G.1.running_mean")
"""A bias before a norm has no gradient but rounding, which Adam makes a step of lr of; the norm's
mean follows it."""


def weights(t):
    found = {
        f"{name}.{key}": value.cpu()
        for name, net in t.nets.items()
        for key, value in net.state_dict().items()
    }
    return {key: value for key, value in found.items() if key not in NOISE}


def apart(a, b):
    return max(
        float((a[k].double() - b[k].double()).norm() / (1e-12 + b[k].double().norm())) for k in a
    )


@pytest.fixture(scope="module")
def on_cpu():
    t = trainer(device="cpu")
    t.fit(3)
    return weights(t)


FITS = [
    ("auto", True, "on"),
    ("auto", False, "on"),
    ("auto", False, "off"),
    ("reference", True, "on"),
    ("reference", False, "on"),
]


LONG_FIT = pytest.param("triton", False, "on", marks=pytest.mark.slow)


@pytest.mark.parametrize(("impl", "resident", "graph"), [*FITS, ("cudnn", True, "on"), LONG_FIT])
def test_fit_is_captured_and_agrees_with_the_cpu(impl, resident, graph, on_cpu):
    launched = len(LAUNCHED)
    t = trainer(impl=impl, graph=graph, resident_bytes=2**31 if resident else 0)
    assert t.device.type == "cuda"
    t.fit(3)
    assert t.active.graph_reason == ("off" if graph == "off" else None)
    kernels = set(LAUNCHED[launched:])
    assert any("segment" in name for name in kernels) is (
        impl != "reference"
    )  # the data's kernels serve every engine
    assert any("conv" in name for name in kernels) is (impl == "triton")
    flat = impl == "triton" or (impl == "auto" and graph == "on")
    assert any("adam" in name for name in kernels) is flat
    assert apart(weights(t), on_cpu) < 2e-5
    t.close()


def test_a_convolutions_directions_have_engines_of_their_own(monkeypatch, on_cpu):
    best = {f"conv_transpose2d.{name}": "triton" for name in ("dgrad", "wgrad")}
    known = tuning.engine
    monkeypatch.setattr(tuning, "engine", lambda name, *asked: best.get(name, known(name, *asked)))
    tuning.forget()
    launched = len(LAUNCHED)
    t = trainer(impl="auto")
    t.fit(3)
    tuning.forget()
    assert t.active.graph_reason is None
    kernels = {name for name in LAUNCHED[launched:] if "conv" in name}
    assert {"conv_dgrad_kernel", "conv_wgrad_kernel"} <= kernels
    assert "conv_forward_kernel" not in kernels
    assert apart(weights(t), on_cpu) < 2e-5
    t.close()


@pytest.mark.parametrize("penalty", [{}, pytest.param({"r1": 1.0}, marks=pytest.mark.slow)])
def test_residual_networks_run_by_layers_of_the_steps_own(penalty):
    def residual():
        return {"G": resnet.Generator(16, 1, 4, 4), "D": resnet.Discriminator(16, 1, 4)}

    def run(device):
        objective = Adversarial("hinge", (4,), **penalty)
        shown = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 1), np.uint8)
        # Adam would make a step of lr of gradients that are rounding, on some CPUs of more
        given = {"objective": objective, "data": shown, "optimizers": partial(SGD, lr=0.05)}
        t = trainer(residual, latent_shape=(4,), device=device, **given)
        t.fit(2)
        assert device == "cpu" or t.active.graph_reason is None
        t.close()
        return weights(t)

    launched = len(LAUNCHED)
    found = run("cuda")
    assert {"spread_kernel", "gather_kernel", "weight_gradient_kernel"} <= set(LAUNCHED[launched:])
    wanted = run("cpu")
    keys = [k for k in found if found[k].is_floating_point() and "norm" not in k]
    keys = [k for k in keys if not (k.startswith("G.blocks") and k.endswith("bias"))]  # as NOISE
    assert apart({k: found[k] for k in keys}, {k: wanted[k] for k in keys}) < 1e-4


def test_every_stage_of_a_run_is_captured():
    """The pool of the first one's graphs is gone with them."""
    stages = [Stage(pair(), Adversarial("non-saturating", (4, 1, 1)), steps=n) for n in (2, None)]
    t = fastgan.Trainer(stages=stages, data=images(), batch_size=4, **QUIET)
    for step in (2, 4):
        t.fit(step)
        assert t.active.graph_reason is None
    t.close()


@pytest.mark.slow
def test_gradients_in_parts_and_clipped_agree_with_the_cpu():
    found = []
    for device in ("cuda", "cpu"):
        t = trainer(device=device, batch_size=8, accumulate=2, clip=0.5)
        t.fit(4)
        assert device == "cpu" or t.active.graph_reason is None
        found.append(weights(t))
        t.close()
    assert apart(*found) < 2e-5


@pytest.mark.parametrize("precision", ["auto", "fp16", "tf32"])
def test_precisions(precision):
    t = trainer(precision=precision, impl="auto")
    assert t.precision.name == ("bf16" if precision == "auto" else precision)
    t.fit(3)
    assert t.active.graph_reason is None
    assert all(torch.isfinite(value).all() for value in weights(t).values())
    t.close()


def test_dropout_draws_from_the_devices_generator_in_a_graph_as_without():
    found = []
    for graph in ("on", "off"):
        t = trainer(mlp_pair, graph=graph)
        t.fit(4)
        assert t.active.graph_reason == ("off" if graph == "off" else None)
        found.append(weights(t))
        t.close()
    assert apart(*found) < 1e-6


@pytest.mark.slow
def test_a_run_leaves_a_folder_and_goes_on(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    monkeypatch.setattr("fastgan.trainer.pictures.GRID", 4)
    whole = trainer(
        out=tmp_path / "whole", checkpoint_every=3, sample_every=3, watch=True, flip=True
    )
    whole.fit(6)
    wanted = weights(whole)
    whole.close()
    part = trainer(out=tmp_path / "part", checkpoint_every=3, sample_every=3, watch=True, flip=True)
    part.fit(3)
    part.close()
    again = trainer(
        out=tmp_path / "part",
        checkpoint_every=3,
        sample_every=3,
        watch=True,
        flip=True,
        resume=True,
    )
    again.fit(6)
    assert again.active.graph_reason is None
    assert apart(weights(again), wanted) == 0
    assert again.sample(3).shape == (3, 1, 8, 8)
    again.close()


def test_penalties_critics_and_schedules():
    objective = Adversarial("wasserstein", (4, 1, 1), gp=10.0, n_critic=2)
    t = trainer(objective=objective, schedules={"G": {"lr": lambda step: 1e-3 / (1 + step)}})
    t.fit(3)
    assert t.active.graph_reason is None
    lazy = trainer(objective=Adversarial("non-saturating", (4, 1, 1), r1=1.0, lazy_r1=2))
    lazy.fit(4)
    assert lazy.active.graph_reason is None
    assert len(lazy.active.graphs.variants) == 2
    for made in (t, lazy):
        made.close()


def test_a_loss_that_reads_the_device_trains_without_a_graph_and_says_why(capsys):
    class Reads(Adversarial):
        def phases(self):
            first, *rest = super().phases()

            def reading(step):
                terms = first.loss(step)
                assert terms["adv"].item() < 100
                return terms

            return (dataclasses.replace(first, loss=reading), *rest)

    t = trainer(objective=Reads("non-saturating", (4, 1, 1)))
    t.fit(2)
    assert "mocked_engine.py" in t.active.graph_reason
    assert ".item()" in t.active.graph_reason
    t.close()


OPTIMIZERS = {
    "fused Adam": (lambda p: torch.optim.Adam(p, 1e-3, fused=True), None),
    "plain Adam": (lambda p: torch.optim.Adam(p, 1e-3), None),  # FlatAdam takes its place
    "Adam with amsgrad": (lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True), "capturable=True"),
    "capturable AdamW": (lambda p: torch.optim.AdamW(p, 1e-3, capturable=True), None),
    "RMSprop": (lambda p: torch.optim.RMSprop(p, 1e-3), "capturable=True"),
    "SGD": (lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9), None),
    "NAdam": (lambda p: torch.optim.NAdam(p, 1e-3, capturable=True), None),
}


@pytest.mark.filterwarnings("ignore:.*capturable=True.*")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers(name):
    make, reason = OPTIMIZERS[name]
    t = trainer(optimizers=make)
    t.fit(3)
    if reason is None:
        assert t.active.graph_reason is None
    else:
        assert reason in t.active.graph_reason
    t.close()


def test_training_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t = trainer()
        t.fit(2)
        t.close()


def test_devices_by_name():
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(FastganError, match="torch sees 1 GPU"):
        pick_device("cuda:1")


def pair_and_step(**options):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3)
    ).to("cuda")
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, **options)

    def step(x):
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return net, optimizer, step


def pictures():
    return torch.randn(2, 3, 8, 8, device="cuda").contiguous(memory_format=torch.channels_last)


def test_capture_of_a_step_of_ones_own():
    net, optimizer, step = pair_and_step(fused=True)
    twin, _, eager = pair_and_step(fused=True)
    fastgan.accelerate(net)
    x = pictures()
    captured = fastgan.capture(step, example_inputs=[x], state=[net, optimizer], on_fail="raise")
    assert captured.captured
    for turn in range(3):
        assert captured(x.roll(turn, 0)).item() == pytest.approx(
            eager(x.roll(turn, 0)).item(), rel=1e-5
        )
    torch.testing.assert_close(net[0].weight, twin[0].weight, rtol=1e-4, atol=1e-6)


def test_capture_with_a_loss_scale():
    net, optimizer, _ = pair_and_step(fused=True)
    scaler = torch.amp.GradScaler("cuda")

    def step(x):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = net(x).float().square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    captured = fastgan.capture(step, example_inputs=[pictures()], state=[net, optimizer, scaler])
    assert captured.captured, captured.reason


def test_capture_refuses_what_a_graph_cannot_hold():
    net, optimizer, step = pair_and_step()
    refused = fastgan.capture(step, example_inputs=[pictures()], state=[net, optimizer])
    assert "capturable=True" in refused.reason
    net, optimizer, step = pair_and_step(fused=True)
    reads = fastgan.capture(
        lambda x: float(step(x)), example_inputs=[pictures()], state=[net, optimizer]
    )
    assert ".item()" in reads.reason
    seeded = lambda x: (torch.cuda.manual_seed(0), step(x))[1]
    seeds = fastgan.capture(seeded, example_inputs=[pictures()], state=[net, optimizer])
    assert not seeds.captured
    assert seeds(pictures()).is_cuda
    assert not torch.cuda.is_current_stream_capturing()
    torch.rand(1, device="cuda")  # the generator is free again


def test_accelerate_on_the_gpu_agrees_and_reverts():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.InstanceNorm2d(8, affine=True),
        nn.ReLU(),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 4, 3)),
        nn.BatchNorm2d(4),
        nn.Tanh(),
    ).to("cuda")
    net.to(memory_format=torch.channels_last)
    plain, x = copy.deepcopy(net), pictures()
    fastgan.accelerate(net)
    launched = len(LAUNCHED)
    for _ in range(2):
        got, wanted = net(x), plain(x)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    assert len(LAUNCHED) > launched
    assert "triton" in str(fastgan.report(net))
    net.eval(), plain.eval()
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x), rtol=1e-4, atol=1e-5)
    fastgan.revert(net)
    assert type(net[0]) is nn.Conv2d


def test_resident_data_lie_on_the_gpu_and_streamed_in_pinned_slots():
    for resident in (2**31, 0):
        stream = fastgan.data.Stream(
            fastgan.data.open(images()),
            name="image",
            seed=0,
            batch_size=4,
            device="cuda",
            resident_bytes=resident,
            flip=True,
        )
        batch = stream.batch(0)["image"]
        assert batch.is_cuda
        other = fastgan.data.Stream(
            fastgan.data.open(images()), name="image", seed=0, batch_size=4, device="cpu", flip=True
        )
        np.testing.assert_array_equal(batch.cpu().numpy(), other.batch(0)["image"].numpy())
        for position in range(0, 24, 4):
            stream.prefetch(position)
        for position in range(0, 24, 4):
            assert stream.batch(position)["image"].is_cuda
        stream.close()
