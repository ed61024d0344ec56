"""The table of activations: its formulas agree with one another and with PyTorch's, and nobody
guesses at an unknown name."""

import pytest
import torch
from torch import nn

from fastgan import ops
from fastgan.acceleration.patterns import activation_of
from fastgan.errors import FastganError
from fastgan.kernels import activations
from fastgan.kernels.activations import ACTIVATIONS
from fastgan.kernels.common import INTERPRET, has_triton, tl, triton
from fastgan.verify import registry

ROWS = pytest.mark.parametrize("row", ACTIVATIONS.values(), ids=ACTIVATIONS)
SLOPE = 0.2


def points():
    return torch.randn(
        64, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()


@ROWS
def test_derivatives_are_those_of_the_function(row):
    p = points()
    y = row.fn(p, SLOPE)
    (want,) = torch.autograd.grad(y.sum(), p)
    torch.testing.assert_close(row.derivative(p, SLOPE), want)
    if row.from_output is not None:
        torch.testing.assert_close(row.from_output(y, SLOPE), want)
    if row.negative is not None:
        torch.testing.assert_close(torch.where(p > 0, p, p * row.negative(SLOPE)), y)


@ROWS
def test_modules_and_forms_compute_the_function(row):
    p = points().detach()
    want = row.fn(p, SLOPE)
    given = {} if row.parameter is None else {row.parameter: SLOPE}
    for form in row.forms:
        called = form if callable(form) else getattr(torch.Tensor, form)
        assert torch.equal(called(p.clone(), **given), want)
    if row.module is not None:
        module = row.module(**given)
        assert torch.equal(module(p), want)
        assert activation_of(module) == (row.name, SLOPE if given else 0.01)


def proven(op, argument, name):
    """Directions in which the quick cases of an operator call it with this activation."""
    draw = lambda case: case.make(
        torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0)
    )
    quick = [case for case in op.cases if "quick" in case.tags and draw(case).get(argument) == name]
    return {direction for case in quick for direction in case.directions or op.directions}


@ROWS
def test_quick_proves_every_row_because_it_stands_in_the_table(row):
    found = registry.load()
    assert proven(found["affine_act"], "activation", row.name) == {"forward", "backward", "double"}
    assert "double" in proven(found["conv_moments"], "act_in", row.name)
    if row.from_output is not None:
        assert proven(found["conv2d"], "activation", row.name) == {"forward", "backward", "double"}


def test_unknown_names_are_refused():
    x, w = torch.randn(2, 3, 4, 4), torch.randn(3, 3, 1, 1)
    for call in (
        lambda: activations.activation(x, "swish"),
        lambda: ops.conv2d(x, w, activation="swish"),
        lambda: ops.affine_act(x, None, None, activation="swish"),
        lambda: ops.conv_moments(x, w, act_in="swish"),
        lambda: ops.batch_norm(x, None, None, training=True, activation="swish"),
    ):
        with pytest.raises(FastganError, match="unknown activation 'swish'"):
            call()
    with pytest.raises(KeyError):
        activation_of(nn.Softshrink())


@triton.jit
def _apply(x_ptr, y_ptr, WHICH: tl.constexpr, ACT: tl.constexpr):
    i = tl.arange(0, 16)
    x = tl.load(x_ptr + i)
    if WHICH == "act":
        x = activations.act(x, ACT, 0.2)
    elif WHICH == "act_grad":
        x = activations.act_grad(x, ACT, 0.2)
    else:
        x = activations.output_slope(x, ACT, 0.2)
    tl.store(y_ptr + i, x)


@pytest.mark.skipif(not has_triton or INTERPRET, reason="needs Triton's compiler")
@pytest.mark.parametrize("which", ["act", "act_grad", "output_slope"])
def test_a_jitted_function_refuses_an_unknown_name_when_it_is_compiled(which):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, CompilationError

    def build(name):
        signature = {"x_ptr": "*fp32", "y_ptr": "*fp32", "WHICH": "constexpr", "ACT": "constexpr"}
        source = ASTSource(fn=_apply, signature=signature, constexprs={"WHICH": which, "ACT": name})
        triton.compile(source, target=GPUTarget("cuda", 90, 32))

    build("tanh")
    with pytest.raises(CompilationError):
        build("swish")
