"""conv2d, conv_transpose2d and the fused operators against PyTorch, in float64 on the CPU: values,
gradients, second order, registration."""

from itertools import pairwise

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from fastgan.errors import FastganError
from fastgan.kernels.conv.spec import PLAIN, ConvSpec, Fusion
from fastgan.ops.conv import autograd as cp
from fastgan.ops.conv import fused_autograd as cm
from fastgan.ops.conv.autograd import no_weight_gradients
from fastgan.ops.conv.functional import conv2d, conv_transpose2d
from fastgan.ops.conv.fused import conv_moments, conv_transpose_moments

G = torch.Generator().manual_seed(0)


def rand(*shape, dtype=torch.float64, grad=True):
    return torch.randn(*shape, generator=G, dtype=dtype).requires_grad_(grad)


def close(a, b, bound=1e-12):
    assert a.shape == b.shape
    assert ((a - b).norm() / b.norm().clamp_min(1e-30)).item() < bound


@pytest.mark.parametrize(
    "arguments",
    [
        dict(),
        dict(stride=2, padding=1),
        dict(stride=(2, 1), padding=(0, 2)),
        dict(padding="same"),
        dict(padding="valid", stride=2),
        dict(dilation=2, padding=2),
        dict(groups=2),
        dict(stride=[2], padding=[1]),
    ],
)
@pytest.mark.parametrize("switchable", [False, True])
def test_conv2d_is_pytorchs(arguments, switchable):
    x, b = rand(2, 4, 7, 6), rand(6)
    w = rand(6, 4 // arguments.get("groups", 1), 3, 3)
    y, want = conv2d(x, w, b, **arguments, switchable=switchable), F.conv2d(x, w, b, **arguments)
    close(y, want)
    u = torch.randn_like(want)
    for got, expected in zip(
        torch.autograd.grad(y, (x, w, b), u), torch.autograd.grad(want, (x, w, b), u)
    ):
        close(got, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(),
        dict(stride=2, padding=1),
        dict(stride=2, padding=1, output_padding=1),
        dict(groups=2),
        dict(dilation=2, padding=1),
        dict(stride=(2, 1), padding=(1, 0)),
    ],
)
@pytest.mark.parametrize("switchable", [False, True])
def test_conv_transpose2d_is_pytorchs(arguments, switchable):
    x, b = rand(2, 4, 3, 5), rand(6)
    w = rand(4, 6 // arguments.get("groups", 1), 4, 4)
    y, want = (
        conv_transpose2d(x, w, b, **arguments, switchable=switchable),
        F.conv_transpose2d(x, w, b, **arguments),
    )
    close(y, want)
    u = torch.randn_like(want)
    for got, expected in zip(
        torch.autograd.grad(y, (x, w, b), u), torch.autograd.grad(want, (x, w, b), u)
    ):
        close(got, expected)


def test_extras_are_scale_then_bias_then_activation():
    x, w, b, sigma = (
        rand(2, 3, 6, 6),
        rand(5, 3, 4, 4),
        rand(5),
        torch.tensor(1.7, dtype=torch.float64, requires_grad=True),
    )
    got = conv2d(x, w, b, 2, 1, scale=1 / sigma, activation="leaky_relu", slope=0.2)
    want = F.leaky_relu(F.conv2d(x, w, None, 2, 1) / sigma + b[:, None, None], 0.2)
    close(got, want)
    u = torch.randn_like(want)
    for a, e in zip(
        torch.autograd.grad(got, (x, w, b, sigma), u),
        torch.autograd.grad(want, (x, w, b, sigma), u),
    ):
        close(a, e)


def test_unbatched_input_and_errors():
    x, w = rand(3, 6, 6), rand(5, 3, 3, 3)
    close(conv2d(x, w), F.conv2d(x, w))
    with pytest.raises(FastganError, match="unknown activation"):
        conv2d(x, w, activation="gelu")
    with pytest.raises(FastganError, match="triton"):
        conv2d(rand(2, 3, 6, 6), w, impl="triton")
    with pytest.raises(FastganError, match="groups"):
        conv_moments(rand(3, 3, 6, 6), w, groups=2)
    with pytest.raises(FastganError, match="together"):
        conv_moments(rand(2, 3, 6, 6), w, torch.ones(3))


def test_switch_skips_weight_gradients_in_first_and_not_in_second_order():
    x, w = rand(2, 3, 6, 6), rand(5, 3, 3, 3)
    spec = ConvSpec(False, (3, 3)).pack()
    registered = lambda: cp._conv(x, w, spec, "ieee", "reference")
    for call in (lambda: conv2d(x, w, switchable=True), registered):
        x.grad = w.grad = None
        with no_weight_gradients():
            call().square().sum().backward()
        assert w.grad is None
        assert x.grad is not None
        want = torch.autograd.grad(
            torch.autograd.grad(F.conv2d(x, w).square().sum(), x, create_graph=True)[0]
            .square()
            .sum(),
            (x, w),
        )
        with no_weight_gradients():
            (g,) = torch.autograd.grad(call().square().sum(), x, create_graph=True)
        for got, expected in zip(torch.autograd.grad(g.square().sum(), (x, w)), want):
            close(got, expected)


SPECS = {
    "t4s2": (ConvSpec(True, (4, 4), (2, 2), (1, 1)), (2, 3)),
    "c4s2": (ConvSpec(False, (4, 4), (2, 2), (1, 1)), (6, 4)),
    "c3s1": (ConvSpec(False, (3, 3), (1, 1), (1, 1)), (3, 4)),
    "c1": (ConvSpec(False, (1, 1)), (3, 2)),
    "end": (ConvSpec(False, (4, 4)), (4, 4)),
    "start": (ConvSpec(True, (4, 4)), (1, 1)),
    "t3s2": (ConvSpec(True, (3, 3), (2, 2), (1, 1), (1, 1)), (2, 3)),
    "odd": (ConvSpec(False, (3, 3), (2, 2), (1, 1)), (5, 6)),
}


def arguments(name, groups=2, ci=3, co=2, n=2, everything=True):
    spec, size = SPECS[name]
    x, w = rand(n, ci, *size), rand(*cp.weight_shape(spec, ci, co))
    if not everything:
        return spec, (x, w, None, None, None, None, None)
    residual = rand(n, co, *spec.output_size(*size))
    return spec, (x, w, rand(groups, ci), rand(groups, ci), rand(co), rand(1), residual)


@pytest.mark.parametrize("name", SPECS)
def test_plain_triple_passes_opcheck_and_second_order(name):
    spec, (x, w, *_) = arguments(name, everything=False)
    rest = (spec.pack(), "ieee", "reference")
    y = cp._conv(x, w, *rest).detach().requires_grad_()
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    for op, args in ((cp._conv, (x, w)), (cp._dgrad, (y, w, *x.shape[2:])), (cp._wgrad, (x, y))):
        assert set(torch.library.opcheck(op, (*args, *rest), test_utils=checks).values()) == {
            "SUCCESS"
        }
        fn = lambda a, b, op=op, extra=args[2:]: op(a, b, *extra, *rest)
        assert torch.autograd.gradcheck(fn, args[:2], atol=1e-6, fast_mode=True)
        assert torch.autograd.gradgradcheck(fn, args[:2], atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("on_load", [False, True])
@pytest.mark.parametrize("name", ["t4s2", "c4s2", "start", "odd"])
def test_fused_operator_second_order(name, on_load):
    spec, tensors = arguments(name)
    fusion = Fusion("tanh", 0.0, "tanh", 0.0, 2)

    def fn(*args):
        return cm.convolve(*args, spec.pack(), fusion.pack(), True, on_load, "reference")

    assert torch.autograd.gradcheck(fn, tensors, atol=1e-6, fast_mode=True)
    assert torch.autograd.gradgradcheck(fn, tensors, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("name", ["t4s2", "c3s1"])
def test_fused_operators_pass_opcheck(name):
    spec, (x, w, s, t, bias, scale, residual) = arguments(name)
    how = Fusion("leaky_relu", 0.2, "tanh", 0.0, 2).pack()
    y, mean, _ = (
        v.detach().requires_grad_()
        for v in cm.convolve(
            x, w, s, t, bias, scale, residual, spec.pack(), how, True, False, "reference"
        )
    )
    dy, dmean, dvar = torch.randn_like(y).requires_grad_(), rand(*mean.shape), rand(*mean.shape)
    calls = [
        (
            cm.convolve,
            (x, w, s, t, bias, scale, residual, spec.pack(), how, True, False, "reference"),
        ),
        (
            cm.convolve,
            (
                x,
                w,
                None,
                None,
                None,
                None,
                None,
                spec.pack(),
                PLAIN.pack(),
                False,
                False,
                "reference",
            ),
        ),
        (cm._gradient, (dy, y, mean, dmean, dvar, how, True, "reference")),
        (cm._gradient, (dy, y, None, None, None, PLAIN.pack(), False, "reference")),
        (cm._dgrad, (dy, w, x, s, t, scale, y, mean, dmean, dvar, spec.pack(), how, "reference")),
        (cm._wgrad, (x, dy, s, t, y, mean, dmean, dvar, spec.pack(), how, "reference")),
    ]
    for op, args in calls:
        result = torch.library.opcheck(
            op, args, test_utils=("test_schema", "test_faketensor", "test_autograd_registration")
        )
        assert set(result.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", ["t4s2", "c4s2"])
def test_backward_operators_are_differentiable(name):
    spec, (x, w, s, t, _, scale, _) = arguments(name)
    how = Fusion("tanh", 0.0, "sigmoid", 0.0, 2).pack()
    y, mean, _ = (
        v.detach().requires_grad_()
        for v in cm.convolve(
            x, w, s, t, None, scale, None, spec.pack(), how, True, False, "reference"
        )
    )
    dy, dmean, dvar = torch.randn_like(y).requires_grad_(), rand(*mean.shape), rand(*mean.shape)
    dgrad = lambda dy, w, x, s, t, scale, y, mean, dmean, dvar: cm._dgrad(
        dy, w, x, s, t, scale, y, mean, dmean, dvar, spec.pack(), how, "reference"
    )
    wgrad = lambda x, dy, s, t, y, mean, dmean, dvar: cm._wgrad(
        x, dy, s, t, y, mean, dmean, dvar, spec.pack(), how, "reference"
    )
    assert torch.autograd.gradcheck(
        dgrad, (dy, w, x, s, t, scale, y, mean, dmean, dvar), atol=1e-6, fast_mode=True
    )
    assert torch.autograd.gradcheck(
        wgrad, (x, dy, s, t, y, mean, dmean, dvar), atol=1e-6, fast_mode=True
    )


def affine(mean, var, norm):
    s = norm.weight * (var[0] + norm.eps).rsqrt()
    return s, norm.bias - mean[0] * s


def registered(x, w, s, t, stride, padding, act_in, transposed):
    spec = ConvSpec(transposed, w.shape[2:], (stride, stride), (padding, padding))
    return cm.convolve(
        x,
        w,
        s,
        t,
        None,
        None,
        None,
        spec.pack(),
        Fusion(act_in, 0.2).pack(),
        True,
        False,
        "reference",
    )


@pytest.mark.parametrize("engine", ["formula", "operators"])
@pytest.mark.parametrize("transposed", [True, False])
def test_batch_norm_backward_is_the_chain_rule(engine, transposed):
    """nn modules, and the same with (mean, var) handed from convolution to convolution: all
    gradients to 1e-12."""
    torch.manual_seed(1)
    conv, act = (nn.ConvTranspose2d, nn.ReLU()) if transposed else (nn.Conv2d, nn.LeakyReLU(0.2))
    sizes = (6, 5, 4, 3)
    layers = [
        m
        for ci, co in pairwise(sizes)
        for m in (conv(ci, co, 4, 2, 1, bias=False), nn.BatchNorm2d(co), act)
    ]
    net = nn.Sequential(*layers[:-2]).double()
    for norm in (net[1], net[4]):
        nn.init.normal_(norm.weight, 1, 0.3)
        nn.init.normal_(norm.bias)
    x = rand(7, 6, 3, 5) if transposed else rand(3, 6, 16, 24)
    want = net(x)
    u = torch.randn_like(want)
    inputs = [x, *net.parameters()]
    expected = torch.autograd.grad(want, inputs, u, create_graph=True)
    s = t = None
    y = x
    for i, name in (
        (0, "identity"),
        (3, "relu" if transposed else "leaky_relu"),
        (6, "relu" if transposed else "leaky_relu"),
    ):
        if engine == "operators":
            y, mean, var = registered(y, net[i].weight, s, t, 2, 1, name, transposed)
        else:
            fused = conv_transpose_moments if transposed else conv_moments
            y, mean, var = fused(
                y, net[i].weight, s, t, stride=2, padding=1, act_in=name, slope_in=0.2
            )
        if i < 6:
            s, t = affine(mean, var, net[i + 1])
    close(y, want)
    got = torch.autograd.grad(y, inputs, u, create_graph=True)
    for a, b in zip(got, expected):
        close(a, b)
    for a, b in zip(
        torch.autograd.grad(got[0].square().sum(), inputs, allow_unused=True),
        torch.autograd.grad(expected[0].square().sum(), inputs),
    ):
        close(
            torch.zeros_like(b) if a is None else a, b, 1e-10
        )  # a bias behind the last use has none, PyTorch's node returns zeros
    for a, b in zip(
        torch.autograd.grad(
            registered(x, net[0].weight, None, None, 2, 1, "identity", transposed)[0],
            x,
            torch.ones(()).double().expand(net[0](x).shape),
        ),
        torch.autograd.grad(net[0](x).sum(), x),
    ):
        close(a, b)


def test_moments_by_group_and_unused_outputs():
    x, w = rand(4, 3, 6, 6), rand(5, 3, 3, 3)
    y, mean, var = conv_moments(x, w, padding=1, groups=2)
    for i in range(2):
        close(mean[i], y[2 * i : 2 * i + 2].mean((0, 2, 3)))
        close(var[i], y[2 * i : 2 * i + 2].var((0, 2, 3), unbiased=False))
    spec = ConvSpec(False, (3, 3), (1, 1), (1, 1)).pack()
    for pick in range(3):  # any one output alone
        fused = cm.convolve(
            x,
            w,
            None,
            None,
            None,
            None,
            None,
            spec,
            Fusion(groups=2).pack(),
            True,
            False,
            "reference",
        )[pick]
        plain = (y, mean, var)[pick]
        for a, b in zip(
            torch.autograd.grad(fused.square().sum(), (x, w)),
            torch.autograd.grad(plain.square().sum(), (x, w), retain_graph=True),
        ):
            close(a, b)


def test_the_cpu_goes_straight_to_pytorch():
    y = conv2d(rand(1, 2, 5, 5), rand(3, 2, 3, 3))
    assert "ConvolutionBackward" in type(y.grad_fn).__name__


def test_registered_operator_compiles_with_its_backward():
    spec, (x, w, s, t, *_) = arguments("t4s2")
    how = Fusion("leaky_relu", 0.2, groups=2).pack()

    def loss(x, w, s, t):
        y, mean, var = cm.convolve(
            x, w, s, t, None, None, None, spec.pack(), how, True, False, "reference"
        )
        return y.square().sum() + mean.sum() + var.sum()

    want = torch.autograd.grad(loss(x, w, s, t), (x, w, s, t))
    got = torch.autograd.grad(
        torch.compile(loss, backend="aot_eager", fullgraph=True)(x, w, s, t), (x, w, s, t)
    )
    for a, b in zip(got, want):
        close(a, b)
