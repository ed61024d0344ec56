"""The forms of convolutions on a CPU: proven by verify, found out where wrong, dropped where they
raise, and PyTorch's own bits where none is chosen."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from fastgan.errors import FastganError
from fastgan.kernels.conv.spec import ConvSpec
from fastgan.ops.conv import formed, forms, winograd
from fastgan.ops.conv.formed import PYTORCH, Forms, convolution
from fastgan.ops.conv.forms import FORMS, Geometry
from fastgan.ops.conv.switch import no_weight_gradients
from fastgan.verify import registry
from fastgan.verify.check import check

CPU = torch.device("cpu")
SPEC = ConvSpec(False, (4, 4), (2, 2), (1, 1))


@pytest.fixture
def ops():
    registry.load(["conv_forms"])
    return registry.ops("conv_forms", "conv_winograd")


def verdicts(ops, type_name):
    return {
        r.verdict
        for op in ops
        for case in op.cases
        if "full" in case.tags and type_name in op.dtypes
        for r in check(op, case, type_name, "cpu", CPU, False)[0]
    }


@pytest.mark.parametrize("type_name", ["fp32", "bf16"])
def test_every_form_is_proven(ops, type_name):
    cases = [case for op in ops for case in op.cases]
    chosen = [case.make(torch.float32, CPU, torch.Generator())["forms"] for case in cases]
    for operation, names in FORMS.items():
        assert {getattr(forms, operation) for forms in chosen} | {"onednn"} == set(names)
    assert verdicts(ops, type_name) == {"pass"}


@pytest.mark.parametrize(
    ("module", "name"),
    [(forms, "_patches"), (forms, "_flat"), (winograd, "_filters"), (winograd, "_outputs_back")],
)
def test_a_wrong_form_fails(ops, monkeypatch, module, name):
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given: right(*given).roll(1, 0))
    assert "FAIL" in verdicts(ops, "fp32")


def test_a_wrong_fold_fails(ops, monkeypatch):
    right = F.fold
    monkeypatch.setattr(forms.F, "fold", lambda *given: right(*given).roll(1, 2))
    assert "FAIL" in verdicts(ops, "fp32")


@pytest.mark.parametrize("name", ["_A", "_B", "_G"])
def test_a_wrong_matrix_fails(ops, monkeypatch, name):
    first, *rest = getattr(winograd, name)
    monkeypatch.setattr(winograd, name, ((first[0] * 1.001, *first[1:]), *rest))
    assert "FAIL" in verdicts(ops[1:], "fp32")


@pytest.mark.parametrize("transposed", [False, True])
def test_without_a_choice_it_is_pytorch_to_the_bit(transposed):
    spec = ConvSpec(transposed, (4, 4), (2, 2), (1, 1))
    function = F.conv_transpose2d if transposed else F.conv2d
    x = torch.randn(2, 6, 8, 8).contiguous(memory_format=torch.channels_last)
    w = torch.randn(6, 6, 4, 4).contiguous(memory_format=torch.channels_last)
    results = []
    for call in (
        lambda: convolution(x, w, None, spec, PYTORCH),
        lambda: function(x, w, None, 2, 1),
    ):
        for t in (x, w):
            t.requires_grad_().grad = None
        y = call()
        y.square().sum().backward()
        results.append([y.detach(), x.grad.clone(), w.grad.clone()])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_autocast_bias_and_masks():
    x, w, b = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 4, 4), torch.randn(5)
    w.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = convolution(x, w, b, SPEC, Forms("patches", "fold", "patches"))
        want = F.conv2d(x, w, b, 2, 1)
    assert y.dtype == want.dtype == torch.bfloat16
    assert (y - want).float().norm() < 1e-2 * want.float().norm()
    (grad,) = torch.autograd.grad(y.float().sum(), w)
    assert grad.dtype == torch.float32
    x.requires_grad_()
    y = convolution(x, w, None, SPEC, PYTORCH)
    with no_weight_gradients():
        y.sum().backward()
    assert w.grad is None
    assert x.grad is not None


def test_a_form_that_raises_is_dropped_with_one_line(monkeypatch):
    calls = []

    def broken(*given):
        calls.append(1)
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(forms, "_patches", broken)
    monkeypatch.setattr(formed, "_dropped", set())
    x, w = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 4, 4)
    with pytest.warns(UserWarning, match="form patches of down is dropped: could not create"):
        y = convolution(x, w, None, SPEC, Forms("patches"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convolution(x, w, None, SPEC, Forms("patches"))
    assert len(calls) == 1
    torch.testing.assert_close(y, F.conv2d(x, w, None, 2, 1))


def test_forms_that_do_not_fit_are_pytorchs_and_unknown_ones_are_named():
    x, w = torch.randn(2, 3, 8, 8), torch.randn(5, 3, 4, 4)
    torch.testing.assert_close(
        convolution(x, w, None, SPEC, Forms("product")), F.conv2d(x, w, None, 2, 1)
    )
    with pytest.raises(FastganError, match="no form 'fourier' of down"):
        forms.down(x, w, Geometry((4, 4), (2, 2), (1, 1)), "fourier")


def test_winograd_carries_roundings_as_its_bound_says():
    a, b, g = (
        torch.tensor(m, dtype=torch.float64).square()
        for m in (winograd._A, winograd._B, winograd._G)
    )
    carried = (
        a @ (b.sum(1) * g.sum(1)) / 3
    )  # of each output, against the three terms of a direct sum
    assert carried.mean().item() == pytest.approx(10.8, abs=0.05)
