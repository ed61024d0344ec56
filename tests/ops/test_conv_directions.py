"""Convolutions whose directions have engines of their own: every mixture is PyTorch's convolution,
to second order; the kernels in Triton's interpreter, in a process of its own."""

import os
import subprocess
import sys

import pytest
import torch

from fastgan.kernels import tuning
from fastgan.kernels.common import has_triton
from fastgan.kernels.conv.spec import ConvSpec
from fastgan.ops.conv import directions
from fastgan.ops.conv.autograd import RegisteredConvOps

CHECK = """
import torch
import torch.nn.functional as F
from fastgan.kernels.conv.spec import ConvSpec
from fastgan.ops.conv.directions import convolution

torch.manual_seed(0)
close = lambda a, b: float((a - b).norm() / b.norm()) < 2e-6
for transposed in (False, True):
    spec = ConvSpec(transposed, (4, 4), (2, 2), (1, 1))
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(*((3, 5) if transposed else (5, 3)), 4, 4).requires_grad_()
    b = torch.randn(5).requires_grad_()
    plain = F.conv_transpose2d if transposed else F.conv2d

    def derivatives(y):
        dx, dw, db = torch.autograd.grad((y**3).sum(), (x, w, b), create_graph=True)
        again = torch.autograd.grad((dx**2).sum() + (dw**2).sum(), (x, w))
        return [y, dx, dw, db, *again]

    gold = derivatives(plain(x, w, b, 2, 1))
    one, two = "cudnn triton cudnn", "triton cudnn triton"
    for mixture in (one,) if transposed else (one, two):
        found = derivatives(convolution(x, w, b, spec, "ieee", mixture))
        assert all(map(close, found, gold)), (transposed, mixture)
print("agree")
"""


@pytest.mark.skipif(not has_triton, reason="needs Triton")
def test_mixtures_are_pytorchs_convolution_to_second_order():
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "agree", done.stderr[-3000:]


def test_a_weights_gradient_has_the_type_of_the_engine_it_is_made_by():
    x = torch.randn(2, 3, 8, 8).bfloat16()
    spec = ConvSpec(False, (4, 4), (2, 2), (1, 1))
    g = torch.randn(2, 5, 4, 4).bfloat16()
    for engine, kind in (("reference", torch.float32), ("triton triton cudnn", torch.bfloat16)):
        assert RegisteredConvOps("ieee", engine).wgrad(x, g, spec).dtype == kind


def test_many_gradients_at_once_are_pytorchs():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    w = torch.randn(5, 3, 4, 4, requires_grad=True)
    spec = ConvSpec(False, (4, 4), (2, 2), (1, 1))
    y = directions.convolution(x, w, None, spec, "ieee", "cudnn cudnn cudnn")
    u = torch.randn(3, *y.shape)
    many = torch.autograd.grad(y, (x, w), u, is_grads_batched=True)
    each = [
        torch.autograd.grad(torch.conv2d(x, w, None, 2, 1), (x, w), one, retain_graph=True)
        for one in u
    ]
    for found, wanted in zip(many, map(torch.stack, zip(*each))):
        assert torch.allclose(found, wanted, atol=1e-4)


def test_tables_choose_by_direction(monkeypatch):
    best = {"conv2d.dgrad": "triton", "conv2d.wgrad": "cudnn"}
    monkeypatch.setattr(tuning, "engine", lambda name, *asked: best.get(name))
    monkeypatch.setattr(directions.dispatch, "missing", lambda engine, device: None)
    tuning.forget()
    x = torch.zeros(1, 1, 1, 1)
    shape = (("rows", 1), ("ci", 1), ("co", 1), ("k", 4), ("stride", 2))
    assert directions.engines("conv2d", x, shape) == "cudnn triton cudnn"
    assert directions.engines("conv_transpose2d", x, shape) is None
    with directions.whole():
        assert directions.engines("conv2d", x, shape) is None
    tuning.forget()
