"""Adversarial losses: the papers' formulas, extreme logits, gradients to second order, and the
kernel against float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter_child import interpreted, parent, run_interpreted

from fastgan.errors import FastganError
from fastgan.ops import loss as ops
from fastgan.ops.loss import SIDES, adversarial
from fastgan.ops.loss_table import LOSSES

BOTH = [(kind, side) for kind in LOSSES for side in SIDES]
shapes = st.sampled_from([(1,), (7,), (3, 1, 5, 5), (2, 3), (33,), ()])


def logits(shape, seed, dtype=torch.float64, scale=2.0):
    x = (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        * scale
    )
    return x.to(dtype).requires_grad_()


def by_the_book(kind, side, r, f):
    """The losses as the papers print them, on probabilities where they do."""
    if kind == "relativistic":
        return -F.logsigmoid(r - f if side == "d" else f - r).mean()
    if side == "d":
        return {
            "non-saturating": lambda: -(r.sigmoid().log() + (1 - f.sigmoid()).log()).mean(),
            "minimax": lambda: (
                F.binary_cross_entropy_with_logits(r, torch.ones_like(r))
                + F.binary_cross_entropy_with_logits(f, torch.zeros_like(f))
            ),
            "hinge": lambda: (
                -torch.min(torch.zeros_like(r), r - 1).mean()
                - torch.min(torch.zeros_like(f), -f - 1).mean()
            ),
            "wasserstein": lambda: -(r.mean() - f.mean()),
            "least-squares": lambda: (
                0.5 * F.mse_loss(r, torch.ones_like(r)) + 0.5 * F.mse_loss(f, torch.zeros_like(f))
            ),
        }[kind]()
    return {
        "non-saturating": lambda: -f.sigmoid().log().mean(),
        "minimax": lambda: (1 - f.sigmoid()).log().mean(),
        "hinge": lambda: -f.mean(),
        "wasserstein": lambda: -f.mean(),
        "least-squares": lambda: 0.5 * F.mse_loss(f, torch.ones_like(f)),
    }[kind]()


@pytest.mark.parametrize(("kind", "side"), BOTH)
def test_is_the_papers_formula(kind, side):
    r, f = logits((4, 1, 3, 3), 0), logits((4, 1, 3, 3), 1)
    loss, stats = adversarial(kind, side, r, f)
    assert torch.allclose(loss, by_the_book(kind, side, r, f), rtol=1e-12)
    want = [r.mean(), f.mean(), (r > 0).double().mean(), (f < 0).double().mean()]
    assert torch.allclose(stats.double(), torch.stack(want).detach(), atol=1e-6)
    assert stats.dtype == torch.float32
    assert not stats.requires_grad


@pytest.mark.parametrize(("kind", "side"), BOTH)
def test_reference_gradients_are_exact(kind, side):
    r, f = logits((2, 3), 0), logits((2, 3), 1)
    f_loss = lambda r, f: adversarial(kind, side, r, f)[0]
    assert torch.autograd.gradcheck(f_loss, (r, f))
    assert torch.autograd.gradgradcheck(f_loss, (r, f))


@pytest.mark.parametrize(("kind", "side"), BOTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_logits_stay_finite_and_right(kind, side, dtype):
    r = torch.tensor([1e4, -1e4, 1e4, -1e4, 0.0]).to(dtype).requires_grad_()
    f = torch.tensor([1e4, 1e4, -1e4, -1e4, 0.0]).to(dtype).requires_grad_()
    loss, _ = adversarial(kind, side, r, f)
    gold, _ = adversarial(kind, side, r.detach().double(), f.detach().double())
    assert loss.dtype == torch.float32
    assert math.isclose(loss.item(), gold.item(), rel_tol=1e-6)
    for g in torch.autograd.grad(loss, (r, f), allow_unused=True):
        assert g is None or g.isfinite().all()


def test_sums_accumulate_in_fp32():
    f = torch.ones(5000, dtype=torch.float16)
    assert adversarial("wasserstein", "g", None, f)[0] == -1.0
    # the sum, 4.5e8, is far beyond fp16
    loss = adversarial("least-squares", "d", f * 300, f * 300)[0].item()
    assert math.isclose(loss, 0.5 * 299**2 + 0.5 * 300**2, rel_tol=1e-5)


@pytest.mark.parametrize("kind", [k for k, row in LOSSES.items() if not row.paired])
def test_generator_needs_no_reals(kind):
    f = logits((5,), 1)
    loss, stats = adversarial(kind, "g", None, f)
    assert torch.equal(loss, adversarial(kind, "g", logits((9,), 0), f)[0])
    assert stats[[0, 2]].isnan().all()
    assert stats[[1, 3]].isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hing", "d", torch.ones(2), torch.ones(2)), "hinge"),
        (("hinge", "D", torch.ones(2), torch.ones(2)), "'d' or 'g'"),
        (("hinge", "d", None, torch.ones(2)), "real"),
        (("hinge", "g", None, None), "fake"),
        (("relativistic", "g", None, torch.ones(2)), "real"),
        (("relativistic", "d", torch.ones(3), torch.ones(2)), "pairs"),
        (("hinge", "d", torch.ones(0), torch.ones(2)), "empty"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(FastganError, match=words):
        adversarial(*arguments)


@parent
@pytest.mark.slow
def test_in_the_interpreter():
    run_interpreted(__file__)


def relative(a, b):
    a, b = (x.detach().double() for x in (a, b))
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item()


@interpreted
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(BOTH),
    shapes,
    shapes,
    st.sampled_from([0.1, 3.0, 40.0, 1e4]),
    st.sampled_from([torch.float32, torch.float16]),
)
def test_kernel_against_float64(both, shape_r, shape_f, scale, dtype):
    kind, side = both
    shape_r = shape_f if LOSSES[kind].paired else shape_r
    r, f = logits(shape_r, 0, dtype, scale), logits(shape_f, 1, dtype, scale)
    gold_r, gold_f = (x.detach().double().requires_grad_() for x in (r, f))
    loss, stats = adversarial(kind, side, r, f, impl="triton")
    gold, gold_stats = adversarial(kind, side, gold_r, gold_f)
    # the two halves of a Wasserstein loss cancel, so judge against the logits' size too; e^-88 and
    # below is 0
    assert (
        abs(loss.item() - gold.item())
        <= 2e-6 * (abs(gold.item()) + scale * (kind == "wasserstein")) + 1e-37
    )
    assert torch.allclose(stats, gold_stats, rtol=1e-6, atol=1e-6 * scale)
    got = torch.autograd.grad(loss, (r, f), allow_unused=True)
    want = torch.autograd.grad(gold, (gold_r, gold_f), allow_unused=True)
    for a, b in zip(got, want):
        if b is None:
            assert a is None
        else:
            # a mean's gradient in fp16 is rounded once, to its subnormals at worst
            assert (
                (a.double() - b).abs()
                <= b.abs() * (1e-6 if dtype == torch.float32 else 2**-11) + 2**-25
            ).all()


@interpreted
@pytest.mark.parametrize(("kind", "side"), BOTH)
def test_kernel_second_order(kind, side):
    def second(r, f, impl):
        scale = torch.tensor(1.5, dtype=r.dtype, requires_grad=True)
        loss = adversarial(kind, side, r, f, impl=impl)[0]
        inputs = [x for x in (r, f) if side == "d" or LOSSES[kind].paired or x is f]
        first = torch.autograd.grad(loss, inputs, scale, create_graph=True)
        total = sum((g * torch.linspace(-1, 2, g.numel()).to(g)).square().sum() for g in first)
        return torch.autograd.grad(total, [scale, *inputs], allow_unused=True)

    r, f = logits((9,), 0, torch.float32), logits((9,), 1, torch.float32)
    gold = second(
        r.detach().double().requires_grad_(), f.detach().double().requires_grad_(), "reference"
    )
    for a, b in zip(second(r, f, "triton"), gold):
        if b is None or not b.any():
            assert a is None or not a.any()
        else:
            assert relative(a, b) < 2e-6


@interpreted
@pytest.mark.parametrize("kind", ["non-saturating", "relativistic"])
def test_kernel_in_two_stages_repeats_bit_for_bit(kind):
    from fastgan.kernels import tuning

    r, f = logits((5003,), 0, torch.float32), logits((5003,), 1, torch.float32)
    gold = adversarial(kind, "d", r.double(), f.double())
    with tuning.override({"adversarial": {"SINGLE": 1024, "BLOCK": 256}}):
        runs = []
        for _ in range(2):
            loss, stats = adversarial(kind, "d", r, f, impl="triton")
            runs.append([loss, stats, *torch.autograd.grad(loss, (r, f))])
    for a, b in zip(*runs):
        assert torch.equal(a, b)
    assert relative(runs[0][0], gold[0]) < 1e-6
    assert relative(runs[0][1], gold[1]) < 1e-6
    gradients = torch.autograd.grad(gold[0], (r, f))
    assert relative(runs[0][2], gradients[0]) < 1e-6
    assert relative(runs[0][3], gradients[1]) < 1e-6


@interpreted
@pytest.mark.parametrize(("kind", "side"), BOTH)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_kernel_shows_what_is_not_finite(kind, side, bad):
    r, f = (
        torch.tensor([bad, 1.0], requires_grad=True),
        torch.tensor([0.5, bad], requires_grad=True),
    )
    (loss, stats), (want, want_stats) = (
        adversarial(kind, side, r, f, impl=impl) for impl in ("triton", "reference")
    )
    assert torch.allclose(loss, want, equal_nan=True)
    assert torch.allclose(stats, want_stats, equal_nan=True)


@interpreted
def test_kernel_is_a_registered_op_that_compiles_whole():
    r, f = logits((3, 4), 0, torch.float32), logits((3, 4), 1, torch.float32)
    for kind, side in (("non-saturating", "d"), ("minimax", "g")):
        torch.library.opcheck(ops._adversarial, (kind, side, r, f))
        _, _, dr, df = (x.detach() for x in ops._adversarial(kind, side, r, f))
        torch.library.opcheck(
            ops._adversarial_backward,
            (torch.tensor(1.5, requires_grad=True), kind, side, r, f, dr, df),
        )
    # the missing statistics are NaN, which the tracing checks would take for a difference
    utils = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(ops._adversarial, ("hinge", "g", None, f), test_utils=utils)
    call = lambda r, f: adversarial("relativistic", "d", r, f)[0]
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for a, b in zip(
        torch.autograd.grad(compiled(r, f), (r, f)), torch.autograd.grad(call(r, f), (r, f))
    ):
        assert torch.equal(a, b)


@interpreted
def test_kernel_leaves_float64_to_the_reference():
    f = logits((3,), 0)
    assert adversarial("hinge", "g", None, f)[0].dtype == torch.float64
    with pytest.raises(FastganError, match="float64"):
        adversarial("hinge", "g", None, f, impl="triton")
