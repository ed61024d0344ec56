"""Spectral norm: PyTorch's values, buffers and gradients for both of its forms, by formulas here and by the kernels in a child
process."""

import copy
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm as hook_form
from torch.nn.utils.parametrizations import spectral_norm as new_form

from fastgan.errors import FastganError
from fastgan.kernels import spectral as kernels
from fastgan.kernels import tuning
from fastgan.kernels._common import INTERPRET, has_triton
from fastgan.nn.norm import grouped
from fastgan.nn.spectral import attach_spectral_norm
from fastgan.ops import spectral

kernels_only = pytest.mark.skipif(not INTERPRET, reason="runs in the child process with TRITON_INTERPRET=1")
FORMS = pytest.mark.parametrize("form", [new_form, hook_form], ids=["parametrization", "hook"])


@pytest.mark.skipif(INTERPRET or not has_triton, reason="starts the child process that interprets the kernels")
@pytest.mark.slow
def test_kernels_in_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def close(a, b, bound=5e-6):
    a, b = a.detach().double(), b.detach().double()
    assert a.shape == b.shape
    assert (a - b).norm() <= bound * max(b.norm().item(), 1e-6), ((a - b).norm() / b.norm()).item()


class Critic(nn.Module):
    def __init__(self, form, twice=False):
        super().__init__()
        self.conv = form(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
        self.up = form(nn.ConvTranspose2d(4, 3, 4, 2, 1))
        self.embed = form(nn.Embedding(3, 3))
        self.linear = form(nn.Linear(3, 3))
        self.plain = nn.Linear(3, 1)
        self.twice = twice

    def forward(self, x, label):
        h = torch.tanh(self.up(torch.tanh(self.conv(x)))).mean((2, 3))
        h = torch.tanh(self.linear(h)) + self.embed(label)
        if self.twice:
            h = torch.tanh(self.linear(h))
        return self.plain(h)


def state_close(a, b):
    assert list(a.state_dict()) == list(b.state_dict())
    for key, value in b.state_dict().items():
        close(a.state_dict()[key], value)


def with_penalty(network, x, label):
    leaf = x.clone().requires_grad_()
    out = network(leaf, label)
    (gx,) = torch.autograd.grad(out.sum(), leaf, create_graph=True)
    (out.square().mean() + gx.square().sum()).backward()
    return out, gx


@FORMS
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_a_network_trains_as_pytorchs(form, twice, layout):
    torch.manual_seed(0)
    theirs = Critic(form, twice).to(memory_format=layout)
    mine = copy.deepcopy(theirs)
    group = attach_spectral_norm(mine)
    assert len(group.layers) == 4
    assert not group.left
    x, label = torch.randn(2, 3, 5, 4), torch.tensor([0, 2])
    for _ in range(2):
        for network in (mine, theirs):
            network.zero_grad()
        for a, b in zip(with_penalty(mine, x, label), with_penalty(theirs, x, label)):
            close(a, b)
        for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
            close(p.grad, q.grad, 1e-5)
        state_close(mine, theirs)
    mine.eval()
    theirs.eval()
    close(mine(x, label), theirs(x, label))
    state_close(mine, theirs)
    mine.train()
    copied = copy.deepcopy(mine)
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    copied(x, label)
    assert all(torch.equal(mine.state_dict()[key], value) for key, value in before.items())
    group.detach()
    theirs.load_state_dict(mine.state_dict())
    close(mine(x, label), theirs.train()(x, label))


@FORMS
def test_grouped_is_real_then_fake(form):
    torch.manual_seed(0)
    theirs = Critic(form)
    mine = copy.deepcopy(theirs)
    attach_spectral_norm(mine)
    real, fake, label = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([0, 2])
    with grouped(2):
        out = mine(torch.cat([real, fake]), torch.cat([label, label]))
    expected = torch.cat([theirs(real, label), theirs(fake, label)])
    close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(p.grad, q.grad, 1e-5)
    state_close(mine, theirs)


def test_no_grad_training_forward_still_iterates():
    torch.manual_seed(0)
    theirs = Critic(new_form)
    mine = copy.deepcopy(theirs)
    attach_spectral_norm(mine)
    with torch.no_grad():
        close(mine(torch.ones(1, 3, 4, 4), torch.tensor([1])), theirs(torch.ones(1, 3, 4, 4), torch.tensor([1])))
    state_close(mine, theirs)


def test_what_stays_pytorchs_and_why():
    network = nn.Sequential(new_form(nn.Bilinear(2, 2, 2)), hook_form(nn.Linear(2, 2)), nn.Linear(2, 2))
    group = attach_spectral_norm(network)
    assert list(group.layers) == ["1"]
    assert "Bilinear" in group.left["0"]
    with pytest.raises(FastganError, match="as many of each"):
        spectral.spectral_sigma([torch.ones(2, 2)], [], [])


def layers(generator, shapes=((17, 33), (5, 3, 3, 3), (6, 4, 2, 2), (1, 70), (130, 2), (5, 4, 3)), dims=(0, 0, 1, 0, 0, 0)):
    weights = [torch.randn(s, generator=generator) for s in shapes]
    weights[2] = weights[2].contiguous(memory_format=torch.channels_last)
    vs = [F.normalize(torch.randn(spectral.as_matrix(w, d).shape[1], generator=generator), dim=0) for w, d in zip(weights, dims)]
    us = [F.normalize(spectral.as_matrix(w, d) @ v, dim=0) for w, d, v in zip(weights, dims, vs)]
    return weights, us, vs, list(dims)


@pytest.mark.parametrize("v_first", [False, True])
@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_sigma_against_float64(iterations, v_first):
    weights, us, vs, dims = layers(torch.Generator().manual_seed(0))
    wide = [[t.double() for t in some] for some in (weights, us, vs)]
    sigma = spectral.spectral_sigma(weights, us, vs, dims, n_power_iterations=iterations, v_first=v_first, groups=2)
    gold = spectral.spectral_sigma_reference(*wide, dims, iterations, 1e-12, v_first, 2 if iterations else 1).expand(2, -1)
    close(sigma, gold, 1e-6)
    for a, b in zip(us + vs, wide[1] + wide[2]):
        close(a, b, 2e-6)


def test_gradcheck_of_the_reference():
    weights, us, vs, dims = small()
    call = lambda *w: spectral.spectral_sigma(w, [u.clone() for u in us], [v.clone() for v in vs], dims, n_power_iterations=0)
    leaves = [w.double().requires_grad_() for w in weights]
    us, vs = [u.double() for u in us], [v.double() for v in vs]
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(lambda *w: call(*w) ** 2, leaves)


def small():
    weights = [torch.randn(3, 2), torch.randn(2, 3, 2)]
    dims = [0, 1]
    us = [F.normalize(torch.randn(3), dim=0) for _ in dims]
    vs = [F.normalize(torch.randn(spectral.as_matrix(w, d).shape[1]), dim=0) for w, d in zip(weights, dims)]
    return weights, us, vs, dims


@kernels_only
@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("count", [1, 5])
def test_launches_do_not_grow_with_the_network(monkeypatch, iterations, count):
    launches = []
    for name in ("row_product_kernel", "column_product_kernel", "finish_kernel", "outer_kernel"):
        kernel = getattr(kernels, name)
        counted = type("Counted", (), {"__getitem__": lambda self, grid, k=kernel, n=name: launches.append(n) or k[grid]})
        monkeypatch.setattr(kernels, name, counted())
    weights = [torch.randn(4, 3, requires_grad=True) for _ in range(count)]
    us, vs = [F.normalize(torch.randn(4), dim=0) for _ in weights], [F.normalize(torch.randn(3), dim=0) for _ in weights]
    sigma = spectral.spectral_sigma(weights, us, vs, n_power_iterations=iterations, impl="triton")
    assert len(launches) == 2 * iterations + 1
    sigma.sum().backward()
    assert len(launches) == 2 * iterations + 2


@kernels_only
def test_two_runs_give_the_same_bits_and_every_configuration_is_right():
    weights, us, vs, dims = layers(torch.Generator().manual_seed(2))
    fresh = lambda: ([u.clone() for u in us], [v.clone() for v in vs])
    runs = [spectral.spectral_sigma(weights, *fresh(), dims, impl="triton") for _ in range(2)]
    assert torch.equal(*runs)
    for config in kernels.CANDIDATES[1:]:
        with tuning.override({"spectral": config}):
            close(spectral.spectral_sigma(weights, *fresh(), dims, impl="triton"), runs[0], 1e-6)


@kernels_only
def test_other_strides_and_types_fall_back_with_a_reason():
    from fastgan.ops.dispatch import why

    odd = torch.randn(4, 3, 4, 4)[:, :, ::2, 1:].transpose(2, 3)
    spectral.spectral_sigma([odd], [F.normalize(torch.randn(4), dim=0)], [F.normalize(torch.randn(odd[0].numel()), dim=0)])
    assert "channels_last" in why("spectral_sigma")
    half = [torch.randn(4, 3).half()]
    with pytest.raises(FastganError, match="fp32"):
        spectral.spectral_sigma(half, [torch.ones(4).half()], [torch.ones(3).half()], impl="triton")


@kernels_only
def test_registered_ops_pass_opcheck():
    weights = [torch.randn(5, 7, requires_grad=True), torch.randn(4, 3, 2, 2, requires_grad=True)]
    detached = [w.detach() for w in weights]
    us, vs = [torch.rand(5), torch.rand(4)], [torch.rand(7), torch.rand(12)]
    torch.library.opcheck(spectral.spectral_power, (detached, us, vs, [0, 0], 1, 1e-12, False, 2))
    sigma, unit_u, unit_v = spectral.spectral_power(detached, us, vs, [0, 0], 1, 1e-12, False, 2)
    torch.library.opcheck(spectral._sigma_op, (weights, sigma, unit_u, unit_v, [0, 0]))
    torch.library.opcheck(spectral.spectral_outer, (torch.randn(2, 2, requires_grad=True), unit_u, unit_v, detached, [0, 0]))


@pytest.mark.skipif(INTERPRET or not has_triton, reason="compiles, so not under the interpreter")
@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
def test_kernels_with_pointer_tuples_compile_without_spills(arch):
    """Ahead of time, without a GPU: registers that do not suffice show as a stack frame."""
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastgan.kernels import norm_running
    from fastgan.ops.registry import Variant
    from fastgan.ops.spectral_proof import variants
    from fastgan.verify.aot import resources

    many = ("*fp32",) * 4
    running = Variant(
        "running statistics",
        norm_running.running_kernel,
        {
            "stats_ptrs": many,
            "mean_ptrs": many,
            "var_ptrs": many,
            "tracked_ptrs": ("*i64",) * 4,
            "sizes_ptr": "*i32",
            "momenta_ptr": "*fp32",
        },
        {"LAYERS": 4, "TRACKED": True, "BLOCK_C": 1024},
    )
    affine = Variant(
        "affine",
        norm_running.affine_kernel,
        {
            "mean_ptrs": many,
            "var_ptrs": many,
            "weight_ptrs": many,
            "bias_ptrs": many,
            "scale_ptr": "*fp32",
            "sizes_ptr": "*i32",
            "eps_ptr": "*fp32",
            "TOTAL": "i32",
        },
        {"LAYERS": 4, "HAS_WEIGHT": True, "HAS_BIAS": True, "BLOCK_C": 1024},
    )
    for variant in (*variants(), running, affine):
        for config in variant.configs:
            names = variant.kernel.arg_names
            options = {k: v for k, v in config.items() if k not in names}
            constexprs = {**variant.constexprs, **{k: v for k, v in config.items() if k in names}}
            signature = {n: variant.signature.get(n, "constexpr") for n in names}
            source = ASTSource(fn=variant.kernel, signature=signature, constexprs=constexprs)
            built = build(source, target=GPUTarget("cuda", arch, 32), options=options)
            assert resources(built.asm["cubin"], built.asm["ptx"])[1] == 0, (variant.name, config)
