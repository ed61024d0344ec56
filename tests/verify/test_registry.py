"""The list of ops itself, and every registered reference: float64-capable, differentiable twice
where it says so, cases that build without a GPU.
"""

import importlib

import pytest
import torch

from fastgan.errors import FastganError
from fastgan.kernels.common import TORCH_DTYPES, has_triton
from fastgan.ops.dispatch import Dispatcher, missing, prefer, why
from fastgan.verify import registry
from fastgan.verify.calls import Directions, call_reference, converted, leaves, named, seed, to
from fastgan.verify.registry import Case, Op, rounded

OPS = {name: op for name, op in registry.load().items() if name != "scale_act"}
CPU = torch.device("cpu")


def small_cases(tag):
    return [
        pytest.param(op, case, id=f"{op.name}-{case.name}")
        for op in OPS.values()
        for case in op.cases
        if tag in case.tags
    ]


def test_the_required_ops_are_registered():
    for family in registry.FAMILIES:
        importlib.import_module(f"fastgan.verify.cases.{family}")
    norms = {"batch_norm", "instance_norm", "affine_act", "moments", "spectral_sigma"}
    assert norms | {
        "adversarial",
        "adam_ema",
        "images_gather",
        "diffaugment",
        "conv2d",
        "conv_transpose2d",
    } <= set(OPS)


# Finite differences see u and v move with the weight; the gradient of spectral norm holds them
# fixed, by definition.
NOT_FOR_FINITE_DIFFERENCES = {"spectral_sigma", "spectral_weights"}


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_every_op_has_what_its_proof_needs(op):
    assert any("quick" in case.tags for case in op.cases), "no quick case: no commit would check it"
    assert op.bytes is not None or op.family == "norm", "no traffic count: no roofline"
    assert all(bound.reason for bound in op.bounds.values())
    assert op.engines[-1] == "reference"
    if set(op.directions) - {"forward"} and op.name not in NOT_FOR_FINITE_DIFFERENCES:
        assert any("gradcheck" in case.tags for case in op.cases), (
            "no tiny case for gradcheck of the reference"
        )


@pytest.mark.skipif(not has_triton, reason="needs Triton")
def test_every_family_with_kernels_compiles_them_ahead_of_time():
    for name in {op.family for op in OPS.values() if "triton" in op.engines}:
        variants = [
            v for op in OPS.values() if op.family == name and op.kernels for v in op.kernels()
        ]
        assert variants, f"{name}: no AOT variants, so CI would not compile its kernels"


@pytest.mark.parametrize(("op", "case"), small_cases("quick"))
def test_case_builds_without_a_gpu_is_reproducible_and_runs_in_float64(op, case):
    for name in case.dtypes or op.dtypes:
        first, second = (
            case.make(TORCH_DTYPES[name], CPU, seed(op.name, case.name)) for _ in range(2)
        )
        pairs = [(leaves(first[k], k), leaves(second[k], k)) for k in first if k not in case.shared]
        assert all(
            torch.equal(a, b)
            for one, other in pairs
            for (_, a), (_, b) in zip(one, other, strict=True)
        )
    gold = Directions(op, case, ("forward",)).run(
        call_reference(op, None, None), converted(case, first, CPU, torch.float64)
    )
    assert gold.outputs
    asked_for = any(
        isinstance(v, torch.dtype) for v in first.values()
    )  # an op that is told its type is exact in it
    floats = [t for t in gold.outputs.values() if t.is_floating_point()]
    assert asked_for or any(t.dtype == torch.float64 for t in floats)


@pytest.mark.parametrize(("op", "case"), small_cases("gradcheck"))
def test_gradcheck_and_gradgradcheck_of_the_reference(op, case):
    kwargs = to(case.make(torch.float64, CPU, seed(op.name, case.name)), CPU, torch.float64)
    names = [
        n
        for n in op.grad_inputs
        if isinstance(kwargs.get(n), torch.Tensor) and kwargs[n].is_floating_point()
    ]
    inputs = [kwargs[n].requires_grad_() for n in names]

    def call(*values):
        clones = {n: to(v, None, None) for n, v in kwargs.items() if n not in names}
        outputs = named(op, call_reference(op, None, None)({**clones, **dict(zip(names, values))}))
        return tuple(t for t in outputs.values() if t.requires_grad)

    assert torch.autograd.gradcheck(call, inputs)
    if "double" in op.directions:
        assert torch.autograd.gradgradcheck(call, inputs)


def test_a_name_is_registered_once_and_unknown_ones_are_named():
    op = Op("registry-test", lambda: None, lambda: None, [])
    registry.register(op)
    try:
        with pytest.raises(ValueError, match="twice"):
            registry.register(op)
        with pytest.raises(FastganError, match="no op named 'nonesuch'"):
            registry.ops("nonesuch")
    finally:
        registry._OPS.pop("registry-test")


def test_a_family_s_name_stands_for_its_ops():
    assert {op.name for op in registry.ops("norm")} == {
        "batch_norm",
        "instance_norm",
        "affine_act",
        "moments",
        "update_running_stats",
    }
    assert [op.name for op in registry.ops("average", "spectral")] == ["spectral_sigma", "average"]


def test_a_missing_family_is_an_error():
    with pytest.raises(ImportError):
        registry.load(["no_such_family"])


def test_mistakes_in_an_entry_are_refused():
    with pytest.raises(ValueError, match="unknown tags"):
        Case("c", lambda *a: {}, {"quik"})
    with pytest.raises(ValueError, match="unknown dtypes"):
        Op("o", print, print, [], dtypes=("float32",))
    with pytest.raises(ValueError, match="grad_inputs"):
        Op("o", print, print, [], directions=("backward",))
    with pytest.raises(ValueError, match="repeat"):
        Op("o", print, print, [Case("c", print), Case("c", print)])


def test_rounded_rounds_values_and_gradients_and_is_differentiable_twice():
    x = torch.randn(64, dtype=torch.float64, requires_grad=True)
    y = rounded(x, torch.float16)
    assert torch.equal(y, x.to(torch.float16).double())
    (g,) = torch.autograd.grad(y, x, x.detach(), retain_graph=True)
    assert torch.equal(g, x.detach())
    (g,) = torch.autograd.grad(rounded(x, None, torch.bfloat16), x, x.detach())
    assert torch.equal(g, x.detach().bfloat16().double())
    assert rounded(x, None) is x
    (first,) = torch.autograd.grad((rounded(x, torch.float16) ** 2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(second, torch.full_like(x, 2.0))


def test_directions_use_the_same_cotangents_for_kernel_and_gold():
    op = Op(
        "cotangents",
        lambda x: x * 3,
        lambda x: x * 3,
        [],
        grad_inputs=("x",),
        directions=("forward", "backward"),
    )
    ways = Directions(op, Case("c", print), op.directions)
    x = torch.randn(7)
    a = ways.run(lambda kw: op.fn(**kw), {"x": x.clone()})
    b = ways.run(lambda kw: op.reference(**kw), {"x": x.double()})
    assert torch.equal(
        a.grads["backward"]["dx"].double(), b.grads["backward"]["dx"].float().double()
    )


def test_auto_never_fails_and_remembers_why():
    choose = Dispatcher(
        "dispatch-test",
        ("triton", "cudnn", "reference"),
        lambda engine, dtype, odd: "needs even sizes" if odd else None,
    )
    x = torch.zeros(3, device="meta")
    assert choose("auto", x, True) == "reference"
    assert "triton" in why("dispatch-test")
    assert "cudnn" in why("dispatch-test")
    assert choose("reference", torch.zeros(3), False) == "reference"
    with pytest.raises(FastganError, match="choose one of auto, reference"):
        choose("fast", x)
    with pytest.raises(FastganError, match='dispatch-test cannot run with impl="cudnn"'):
        choose("cudnn", torch.zeros(3), False)
    other = Dispatcher("dispatch-test-2", ("reference",))
    assert why("dispatch-test-2") == "not called yet"
    with pytest.raises(FastganError, match='no engine "triton"'):
        other("triton", x)


def test_prefer_overrides_auto_alone_and_is_undone():
    choose = Dispatcher("prefer-test", ("reference",))
    x = torch.zeros(1)
    with prefer("reference"):
        assert choose("auto", x) == "reference"
    with pytest.raises(FastganError), prefer("quick"):
        pass


def test_a_missing_engine_is_explained():
    assert missing("reference", CPU) is None
    assert "cpu" in missing("cudnn", CPU)


def test_op_names_are_reexported_lazily():
    import fastgan.ops as ops

    for name in ops.__all__:
        assert callable(getattr(ops, name))
    with pytest.raises(AttributeError):
        ops.nonesuch  # noqa: B018
