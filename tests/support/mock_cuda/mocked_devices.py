"""What is asked of the machine, and the operators' own ways on a GPU: run by
tests/graphs/test_mock_cuda.py."""

from __future__ import annotations

import dataclasses
import json
import socket

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from click.testing import CliRunner
from torch import nn

import fastgan
from fastgan import info, recipes
from fastgan.acceleration.fused import FusedSequential
from fastgan.bench.fake_gpu import FakeGpu
from fastgan.cli.info import command
from fastgan.data.glance import Glance
from fastgan.devices import seed_generators
from fastgan.distributed import context
from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.ops import dispatch
from fastgan.ops.conv import directions, fused
from fastgan.ops.conv.functional import conv2d, conv_transpose2d
from fastgan.ops.functional_layers import FunctionalLayers
from fastgan.recipes import auto
from fastgan.verify import __main__ as verify_main
from fastgan.verify import registry, runner, timing, tuning_tables
from mock_cuda.kernels import LAUNCHED

CUDA = torch.device("cuda", 0)


def images(channels=4, side=6, **options):
    torch.manual_seed(0)
    x = torch.randn(2, channels, side, side, device="cuda", **options)
    return x.contiguous(memory_format=torch.channels_last)


def launched(function):
    """The kernels of ours that a call launches."""
    before = len(LAUNCHED)
    function()
    return LAUNCHED[before:]


def test_info_tells_of_the_gpu(monkeypatch):
    done = CliRunner().invoke(command, ["--json"])
    assert done.exit_code == 0, done.output
    (gpu,) = json.loads(done.output)["devices"]
    assert gpu["name"] == "Mock H100"
    assert gpu["capability"] == "9.0"
    assert gpu["memory_bytes"] - gpu["free_bytes"] == 1 << 30
    assert info._precision() == "bf16"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert info._precision() == "fp32"


def test_a_gpus_generator_is_seeded_by_its_number():
    drawn = []
    for device in (CUDA, torch.device("cuda")):
        seed_generators(5, device)
        drawn.append(torch.rand(3, device="cuda"))
    seed_generators(6, CUDA)
    assert torch.equal(*drawn)
    assert not torch.equal(torch.rand(3, device="cuda"), drawn[0])


def test_a_process_of_torchrun_takes_the_gpu_of_its_number(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert context.local_device("auto") == context.local_device("cuda") == "cuda:0"
    assert context.local_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(FastganError, match="process 1 has no GPU, there are 1"):
        context.local_device("auto")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_processes_on_gpus_join_by_nccl(device, monkeypatch):
    """NCCL itself needs GPUs: gloo stands in, after the call that would have started it."""
    asked = []
    begin = dist.init_process_group

    def on_gloo(backend, device_id):
        asked.append((backend, device_id))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        begin("gloo", store=dist.TCPStore("127.0.0.1", port, 1, True), rank=0, world_size=1)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", on_gloo)
    try:
        joined = context.join(torch.device(device))
        assert asked == [("nccl", CUDA)]
        assert dist.get_backend(joined.control) == "gloo"
        assert context.join(torch.device(device)) is joined
    finally:
        context.leave()
    assert not dist.is_initialized()


def options(images, side, gpu):
    """A recipe and what it is run with, its own defaults included."""
    choice = auto.choose(Glance(images, side, channels=3, classes=0), {}, gpu=gpu)
    return choice, dataclasses.asdict(recipes.find(choice.recipe)()) | choice.values


def test_auto_gives_a_gpu_larger_networks_and_batches():
    chosen, many = options(60000, 64, True)
    assert (many["batch_size"], many["base_width"], many["size"]) == (64, 64, 64)
    small, few = options(100, 200, True)
    assert small.recipe == "fastgan"
    assert (few["size"], few["batch_size"], few["width"], few["latent"]) == (128, 16, 64, 256)
    assert "a GPU" in "\n".join(chosen.why)
    assert options(60000, 64, False)[1]["batch_size"] == 16


def test_what_engines_lack_on_a_machine_with_a_gpu(monkeypatch):
    assert "no cuDNN for a cpu" in dispatch.missing("cudnn", torch.device("cpu"))
    assert "forms for a CPU" in dispatch.missing("cpu", CUDA)
    dispatch.missing.cache_clear()
    monkeypatch.setattr(dispatch, "INTERPRET", True)
    assert "takes CPU tensors" in dispatch.missing("triton", CUDA)
    dispatch.missing.cache_clear()


def test_a_stand_in_gpu_is_refused_where_one_is():
    with pytest.raises(FastganError, match="hide it"), FakeGpu(None):
        pass


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("activation", ["identity", "leaky_relu"])
def test_directions_with_engines_of_their_own_keep_the_activation(
    transposed, activation, monkeypatch
):
    monkeypatch.setattr(
        tuning, "engine", lambda name, *asked: "triton" if name.endswith("dgrad") else None
    )
    tuning.forget()
    x, w = images().requires_grad_(), torch.randn(4, 4, 3, 3, device="cuda")
    ours, plain = (conv_transpose2d, F.conv_transpose2d) if transposed else (conv2d, F.conv2d)
    y = ours(x, w, padding=1, activation=activation, slope=0.2)
    kernels = launched(lambda: y.square().sum().backward())
    assert "conv_dgrad_kernel" in kernels
    given = x.grad
    x.grad = None
    wanted = plain(x, w, padding=1)
    wanted = F.leaky_relu(wanted, 0.2) if activation == "leaky_relu" else wanted
    wanted.square().sum().backward()
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(given, x.grad, rtol=1e-4, atol=1e-3)
    tuning.forget()


def test_kernels_are_not_launched_while_another_gpu_is_current(monkeypatch):
    monkeypatch.setattr(tuning, "engine", lambda *asked: "triton")
    tuning.forget()
    shape = (("rows", 72), ("ci", 4), ("co", 4), ("k", 3), ("stride", 1))
    assert directions.engines("conv2d", images(), shape) == "triton triton triton"
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert directions.engines("conv2d", images(), shape) is None
    tuning.forget()


def test_fp32_products_follow_cudnns_switches(monkeypatch):
    x, cudnn = images(), torch.backends.cudnn
    for allowed, wanted in ((True, "tf32"), (False, "ieee")):
        monkeypatch.setattr(cudnn, "allow_tf32", allowed)
        assert fused.precision_of(x) == wanted
    assert fused.precision_of(x.bfloat16()) == fused.precision_of(x.cpu()) == "ieee"

    class Newer(type(cudnn)):
        """Where the switches of single operators were used, torch refuses the old one."""

        @property
        def allow_tf32(self):
            raise RuntimeError("mix of the legacy and new APIs to set the TF32 status")

    newer = Newer(cudnn.__name__, "torch.backends.cudnn")
    monkeypatch.setattr(torch.backends, "cudnn", newer)
    for switch in ("tf32", "ieee"):
        newer.conv = type("Switches", (), {"fp32_precision": switch})
        assert fused.precision_of(x) == switch


@pytest.mark.parametrize("moments", [True, False])
def test_a_fused_convolution_by_cudnn_is_passes_around_it(moments):
    x, w = images(), torch.randn(5, 4, 3, 3, device="cuda")
    s, t = torch.rand(4, device="cuda") + 0.5, torch.randn(4, device="cuda")
    spec = fused.ConvSpec(False, (3, 3), (1, 1), (1, 1))
    how = fused.Fusion(act_in="relu", act_out="leaky_relu", slope_out=0.2)
    y, mean, var = fused.fused("conv_moments", x, w, spec, how, s, t, moments=moments, impl="cudnn")
    inner = F.relu(x * s[:, None, None] + t[:, None, None])
    wanted = F.leaky_relu(F.conv2d(inner, w, padding=1), 0.2)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)
    assert (mean is None) is (var is None) is (not moments)
    if moments:
        torch.testing.assert_close(mean.flatten(), wanted.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
        variance = wanted.var((0, 2, 3), unbiased=False)
        torch.testing.assert_close(var.flatten(), variance, rtol=1e-4, atol=1e-4)
    plain = fused.fused("conv_moments", x, w, spec, fused.Fusion(), moments=False, impl="cudnn")[0]
    torch.testing.assert_close(plain, F.conv2d(x, w, padding=1), rtol=1e-4, atol=1e-4)


def test_an_edge_that_only_fused_kernels_have_runs_by_them():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 3, 3, bias=False)
    )
    net = net.to("cuda").to(memory_format=torch.channels_last)
    x = images()
    wanted = net(x)
    fastgan.accelerate(net)
    containers = [m for m in net.modules() if isinstance(m, FusedSequential)]
    assert containers
    for container in containers:
        container.edge = "on_load"
    found = []
    kernels = launched(lambda: found.append(net(x)))
    assert any("conv_forward" in name for name in kernels)
    torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-4)


def test_functional_layers_take_upsampling_and_pooling():
    x = images().requires_grad_()
    with FunctionalLayers():
        found = []
        kernels = launched(
            lambda: found.append(F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="nearest"))
        )
        assert len(kernels) == 2
        odd = launched(lambda: found.append(F.avg_pool2d(images(side=5), 2)))
        assert not odd
    wanted = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2)
    torch.testing.assert_close(found[0], wanted)
    torch.testing.assert_close(found[1], F.avg_pool2d(images(side=5), 2))
    (given,) = torch.autograd.grad(found[0].square().sum(), x)
    torch.testing.assert_close(given, torch.autograd.grad(wanted.square().sum(), x)[0])


def test_a_bias_by_our_kernels_has_gradients_of_every_kind():
    conv = nn.Conv2d(4, 3, 3).to("cuda").to(memory_format=torch.channels_last)
    x, g = images(), images(3, 4)
    with FunctionalLayers():
        y = conv(x)
        alone = conv(x.requires_grad_())
    # the bias alone: nothing goes on to the convolution
    with FunctionalLayers():
        fixed = F.conv2d(x.detach(), conv.weight.detach(), conv.bias)
    (bias,) = torch.autograd.grad(fixed, conv.bias, g)
    torch.testing.assert_close(bias, g.sum((0, 2, 3)), rtol=1e-5, atol=1e-5)
    # several at once, as a Jacobian takes them
    (batch,) = torch.autograd.grad(y, conv.bias, torch.stack([g, 2 * g]), is_grads_batched=True)
    torch.testing.assert_close(batch, torch.stack([bias, 2 * bias]), rtol=1e-5, atol=1e-5)
    # the bias's gradient has one, with respect to what came in
    g = g.clone().requires_grad_()
    (first,) = torch.autograd.grad(alone, conv.bias, g, create_graph=True)
    (second,) = torch.autograd.grad((first * torch.arange(3.0, device="cuda")).sum(), g)
    torch.testing.assert_close(
        second, torch.arange(3.0, device="cuda")[:, None, None].expand_as(g).contiguous()
    )


def test_verify_needs_no_interpreter_and_plans_every_type_and_layer(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    assert verify_main.needed_environment(aot=False) is None
    registry.load()
    ops = registry.ops("conv2d", "adam_ema")
    jobs, missed = runner.plan(ops, "full", CUDA)
    layers = {case.name for op in ops for case in op.cases if "layer" in case.tags}
    assert layers
    assert layers <= {job.case for job in jobs}
    assert {job.type for job in jobs if job.config} == set(registry.ops("adam_ema")[0].dtypes)
    assert not any("needs a GPU" in line for line in missed)


def test_every_tile_of_adam_launches():
    registry.load()
    jobs, _ = runner.plan(registry.ops("adam_ema"), "full", CUDA)
    tiles = [job for job in jobs if job.config and job.type == "fp32"]
    assert len(tiles) == len({job.config for job in tiles}) > 2
    rows = [row for job in tiles[:2] for row in runner.execute(job, CUDA)[0]]
    assert not [row.note for row in rows if row.verdict == "FAIL"]


def test_ceilings_are_of_half_a_gigabyte_and_of_products_of_8192(monkeypatch):
    sizes = []
    monkeypatch.setattr(timing, "measure", lambda calls, **how: timing.Timing(1.0, 1.0, 1.0, ""))
    small = lambda *given, **how: torch.zeros(1)
    monkeypatch.setattr(timing.torch, "randint", lambda a, b, size, **how: sizes.append(size))
    monkeypatch.setattr(timing.torch, "empty_like", lambda like: None)
    monkeypatch.setattr(timing.torch, "randn", lambda *s, **how: sizes.append(s) or small())
    found = timing.ceilings()
    assert sizes == [(1 << 29,), *[(8192, 8192)] * 3]
    assert found == {"copy_gbs": 2**30 / 1e6, "matmul_tflops": 2 * 8192**3 / 1e9}


def test_a_tuning_table_is_of_a_gpu():
    assert tuning_tables.table_path(CUDA, True).is_relative_to(tuning.SHIPPED)
    with pytest.raises(FastganError, match="needs a GPU"):
        tuning_tables.table_path(torch.device("cpu"), False)
