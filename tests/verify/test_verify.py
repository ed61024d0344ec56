"""The harness must see every kind of wrong: each op below is broken in one way, and the check must
say so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastgan.verify import bounds, interpreter
from fastgan.verify.check import check
from fastgan.verify.differences import relative_l2, relative_peak
from fastgan.verify.memory_guards import Guards, poisoned
from fastgan.verify.registry import Bound, Case, Mask, Op, rounded

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def make(dtype, device, generator):
    return {"x": torch.randn(5, 33, generator=generator).to(dtype).to(device)}


def outcome(
    fn, reference=None, type_name="fp32", make=make, repeat=True, directions=("forward",), **options
):
    grad_inputs = ("x",) if set(directions) - {"forward"} else ()
    case = Case("case", make, {"quick"})
    options = {
        "grad_inputs": grad_inputs,
        "directions": directions,
        "engines": ("reference",),
        **options,
    }
    op = Op("op", fn, reference or (lambda x: x * 2), [case], **options)
    return check(op, case, type_name, "reference", CPU, repeat)[0]


def failures(rows):
    return [f"{r.direction} {r.output}: {r.note}" for r in rows if r.verdict == "FAIL"]


def test_a_right_op_passes_in_every_direction_and_type():
    for type_name in ("fp32", "fp16", "bf16"):
        rows = outcome(
            lambda x: x * x,
            lambda x: x * x,
            type_name,
            directions=("forward", "backward", "double"),
        )
        assert not failures(rows)
        assert {r.direction for r in rows} == {"forward", "backward", "double"}


def test_a_wrong_value_fails():
    assert failures(outcome(lambda x: x * 2.001))


def test_one_bad_pixel_fails_although_the_l2_error_is_small():
    def fn(x):
        y = x * 2
        y.view(-1)[7] += 0.012 * y.abs().max()
        return y

    def wide(dtype, device, generator):
        return {"x": torch.randn(200_000, generator=generator).to(dtype)}

    rows = outcome(fn, make=wide, type_name="bf16", repeat=False)
    assert rows[0].error < rows[0].limit
    assert failures(rows) == ["forward out: over peak"]


def test_fp32_that_is_within_the_l2_bound_but_worse_than_twice_pytorch_fails():
    rows = outcome(lambda x: x * (2 + 4e-6), make=make)
    assert rows[0].error < rows[0].limit
    assert failures(rows) == ["forward out: over PyTorch's own"]


def test_memory_that_is_never_written_fails():
    def fn(x):
        y = torch.empty_like(x)
        y[:, :-1] = x[:, :-1] * 2
        return y

    assert "never written" in failures(outcome(fn))[0] or "not written" in failures(outcome(fn))[0]


def test_a_write_outside_a_tensor_fails():
    def fn(x):
        y = torch.empty_like(x).copy_(x * 2)
        y.as_strided((1,), (1,), y.storage_offset() + y.numel()).fill_(1.0)
        return y

    assert failures(outcome(fn)) == ["forward -: wrote outside its tensors"]


def test_a_read_outside_a_tensor_fails():
    def fn(x):
        beyond = x.as_strided((x.numel() + 1,), (1,))[1:].reshape(x.shape)
        return x * 2 + 0 * beyond

    assert failures(outcome(fn))


def test_a_changed_input_fails_unless_declared_and_declared_state_is_compared():
    def fn(x):
        y = x * 2
        x.add_(1)
        return y

    assert any("input changed" in f for f in failures(outcome(fn)))

    def reference(x):
        y = x * 2
        x.add_(1)
        return y

    rows = outcome(fn, reference, mutates=("x",))
    assert not failures(rows)
    assert {r.output for r in rows} == {"out", "x'"}
    assert any("x'" in f for f in failures(outcome(fn, lambda x: x * 2, mutates=("x",))))


def rounding_otherwise(x, at):
    """y = x in half precision, one element a unit in the last place off, and its mean as stored."""
    y = x.half().clone()
    y[0, at] *= 1 + 2**-10
    return y, y.double().mean().float()[None]


@pytest.mark.parametrize("own", ["as accurate as gold", "another rounding"])
def test_an_output_defined_by_another_is_judged_by_it_as_stored(own):
    def reference(x, round_to=None):
        if x.dtype == torch.float64:
            y = x.half().double()
            return y, y.mean()[None]
        return (
            rounding_otherwise(x, 3)
            if own == "another rounding"
            else (x.half(), x.half().double().mean().float()[None])
        )

    options = dict(reference=reference, type_name="fp16", outputs=("y", "mean"), rounds=True)
    mean_of_y = {"mean": lambda kwargs, outputs: outputs["y"].mean()[None]}
    assert not failures(outcome(lambda x: rounding_otherwise(x, 5), derived=mean_of_y, **options))

    def wrong(x):
        y, mean = rounding_otherwise(x, 5)
        return y, mean * (1 + 1e-6)

    assert failures(outcome(wrong, derived=mean_of_y, **options)) == [
        "forward mean: over PyTorch's own"
    ]


def test_two_runs_that_differ_fail():
    calls = iter(range(100))
    assert any(
        "two runs differ" in f
        for f in failures(outcome(lambda x: x * 2 * (1 + 1e-7 * next(calls))))
    )


def test_runs_are_compared_under_deterministic_algorithms_and_for_the_kernels_alone(monkeypatch):
    seen = []

    def fn(x):
        seen.append(torch.backends.cudnn.deterministic)
        return x * 2

    outcome(fn)
    outcome(fn, repeat=False)
    assert seen == [True, True, False]
    from fastgan.verify import runner as run

    monkeypatch.setattr(run, "missing", lambda engine, device: None)
    case = Case("case", make, {"quick"})
    op = Op("op", fn, fn, [case], engines=("triton", "cudnn", "reference"))
    jobs, _ = run.plan([op], "quick", torch.device("cuda"))
    assert {job.engine for job in jobs if job.repeat} == {"triton"}
    assert {job.engine for job in jobs} == {"triton", "cudnn", "reference"}


def test_a_lost_gradient_and_a_wrong_one_fail():
    both = ("forward", "backward")
    assert any(
        "carries no gradient" in f
        for f in failures(outcome(lambda x: (x * 2).detach(), directions=both))
    )
    assert failures(outcome(lambda x: x.detach() + x, directions=both)) == [
        "backward dx: over L2 and PyTorch's own and peak"
    ]


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x.detach() ** 2 * g  # right once, constant in x for the second derivative


def test_a_wrong_second_derivative_fails():
    rows = outcome(
        lambda x: Cube.apply(x), lambda x: x**3, directions=("forward", "backward", "double")
    )
    assert failures(rows) == ["double d2x: over L2 and PyTorch's own and peak"]


class RoundedGradient(torch.autograd.Function):
    """y = x w in 32 bits, whose weight's gradient leaves in bf16 as cuDNN's does, times `wrong`."""

    @staticmethod
    def forward(ctx, x, w, wrong):
        ctx.save_for_backward(x, w)
        ctx.wrong = wrong
        return x.to(w.dtype) * w

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        dw = ctx.wrong * (g * x.to(w.dtype))
        return g * w, (dw if w.dtype == torch.float64 else dw.bfloat16().to(w.dtype)), None


def rounded_outcome(engine, wrong=1.0, both_wrong=False):
    def make_two(dtype, device, generator):
        draw = lambda: torch.randn(9, 40, generator=generator).to(device)
        return {"x": draw().to(dtype), "w": draw()}

    def reference(x, w):
        own = wrong if both_wrong and w.dtype == torch.float32 else 1.0
        return RoundedGradient.apply(x, w, own)

    op = Op(
        "op",
        lambda x, w: RoundedGradient.apply(x, w, wrong),
        reference,
        [case := Case("case", make_two, {"quick"})],
        engines=(engine,),
        grad_inputs=("x", "w"),
        directions=("forward", "backward"),
    )
    return failures(check(op, case, "bf16", engine, CPU, False)[0])


def test_pytorchs_own_engines_are_judged_by_pytorchs_error_and_our_kernels_are_not():
    assert not rounded_outcome("cudnn")
    assert rounded_outcome("triton") == ["backward dw: over L2 and peak"]


@pytest.mark.parametrize(("wrong", "both"), [(1.01, False), (2.0, False), (1.05, True)])
def test_a_wrong_engine_of_pytorchs_fails_even_where_the_yardstick_is_wrong_too(wrong, both):
    assert any("backward dw" in f for f in rounded_outcome("cudnn", wrong, both))


def test_integers_are_compared_exactly():
    make_both = lambda dtype, device, generator: {"x": torch.arange(9)}
    assert not failures(outcome(lambda x: x + 1, lambda x: x + 1, make=make_both))
    assert failures(outcome(lambda x: x + 1, lambda x: x + 2, make=make_both)) == [
        "forward out: integers differ"
    ]


def test_a_raising_op_is_a_failure_with_its_message():
    def fn(x):
        raise RuntimeError("no such engine")

    assert failures(outcome(fn)) == ["forward -: RuntimeError: no such engine"]


def masked(x, bias, mask=None):
    p = x + bias
    return torch.where(p > 0 if mask is None else mask, p, 0.2 * p)


def mask_case(dtype, device, generator):
    x = torch.randn(200, generator=generator).to(dtype)
    bias = torch.full((200,), 0.7).to(dtype)
    x[::10] = -bias[::10] * (1 - 1e-7)  # sums that cancel to a few units of rounding
    return {"x": x, "bias": bias}


def mask_outcome(threshold):
    class Fn(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, bias):
            p = x + bias
            ctx.mask = p > threshold
            return torch.where(ctx.mask, p, 0.2 * p)

        @staticmethod
        def backward(ctx, g):
            return torch.where(ctx.mask, g, 0.2 * g), None

    seen = {}

    def fn(x, bias):
        seen["mask"] = x + bias > threshold
        return Fn.apply(x, bias)

    mask = Mask(
        lambda kw, out: seen["mask"],
        lambda kw: (kw["x"] + kw["bias"], kw["x"].abs() + kw["bias"].abs()),
    )
    return outcome(fn, masked, make=mask_case, directions=("forward", "backward"), mask=mask)


def test_masks_may_differ_only_where_rounding_decides():
    rows = mask_outcome(threshold=2e-7)
    assert not failures(rows)
    assert any("mask differences" in r.note for r in rows)
    assert any("some where |p| is not small" in f for f in failures(mask_outcome(threshold=0.05)))


def test_gold_rounds_where_the_kernel_rounds():
    def fn(x):
        return (x * 1.7).to(torch.float16).to(torch.float32).sum(0)

    def exact(x, round_to=None):
        return rounded(x * 1.7, round_to).sum(0)

    assert not failures(outcome(fn, exact, "fp16", rounds=True))
    assert failures(outcome(fn, lambda x: (x.to(torch.float32) * 1.7).sum(0), "fp16"))


def test_an_exception_needs_a_reason_and_is_used():
    loose = {"out": Bound("a reason", ratio=1e3)}
    assert not failures(outcome(lambda x: x * (2 + 4e-6), bounds=loose))


def test_bounds_are_never_looser_than_the_design():
    assert bounds.L2["bf16"] <= 2.5e-3
    assert bounds.L2["fp16"] <= 3.5e-4
    assert bounds.L2["tf32"] <= 6e-4
    assert bounds.L2["fp32"] <= 1e-5
    assert bounds.L2_ACCUMULATED <= 5e-5
    assert bounds.PEAK["bf16"] <= 6e-3
    assert bounds.RATIO <= 2
    assert bounds.FLOOR <= 0.25


def test_one_correct_rounding_meets_every_bound_and_two_units_do_not():
    gold = torch.randn(4096, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        limit = bounds.limits(name, dtype, gold.numel(), 0.0)
        value = gold.to(dtype)
        assert relative_l2(value, gold) < min(limit.l2, limit.own)
        assert relative_peak(value, gold) < limit.peak
        eps = torch.finfo(dtype).eps
        off = (gold * (1 + 2 * eps)).to(dtype)
        assert relative_l2(off, gold) > min(limit.l2, limit.own)


def test_nan_and_infinity_are_errors_only_where_gold_has_none():
    nan, inf = float("nan"), float("inf")
    assert relative_l2(torch.tensor([nan, inf, 1.0]), torch.tensor([nan, inf, 1.0])) == 0
    assert relative_l2(torch.tensor([nan, 1.0]), torch.tensor([0.5, 1.0])) == inf
    assert relative_l2(torch.tensor([inf, 1.0]), torch.tensor([0.5, 1.0])) == inf
    assert relative_l2(torch.zeros(2), torch.zeros(3)) == inf
    assert relative_peak(torch.tensor([nan]), torch.tensor([0.5])) == inf


@given(
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8]),
    pad=st.integers(0, 3),
)
def test_guarded_copies_keep_values_strides_and_shared_memory(shape, dtype, pad):
    base = torch.arange(2000).to(dtype)
    stride = [1] * len(shape)
    for i in reversed(range(len(shape) - 1)):
        stride[i] = stride[i + 1] * shape[i + 1] + pad
    x = base.as_strided(shape, stride, 3) if 0 not in shape else torch.empty(shape, dtype=dtype)
    guards = Guards()
    copied = guards.copy({"x": x, "pair": [x, base], "n": None})
    assert copied["x"].stride() == x.stride()
    assert torch.equal(copied["x"], x)
    assert copied["pair"][0].data_ptr() == copied["x"].data_ptr()
    assert copied["pair"][1].data_ptr() != base.data_ptr()
    assert not guards.broken()


def test_poison_reaches_every_way_to_allocate_and_keeps_layouts():
    like = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    guards = Guards()
    with poisoned(guards):
        made = [
            torch.empty(2, 3),
            torch.empty((2, 3), dtype=torch.float16, device="cpu"),
            torch.empty_like(like),
            torch.empty(2, 3, 4, 5, memory_format=torch.channels_last),
            torch.empty_strided((2, 3), (1, 2)),
            like.new_empty(4, 4),
            torch.empty(()),
        ]
    assert all(bool(t.isnan().all()) for t in made)
    assert made[2].stride() == like.stride()
    assert made[3].is_contiguous(memory_format=torch.channels_last)
    assert made[4].stride() == (1, 2)
    assert not guards.broken()


def run_verify(*arguments, family="tests.support.toy_ops", cwd=ROOT, **env):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(cwd), **env}
    env.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "fastgan.verify", "--family", family, *arguments]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_runs_the_kernels_on_a_cpu_and_says_what_that_cannot_show():
    pytest.importorskip("triton")
    done = run_verify("--quick", "--json", "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert not report["failed"]
    triton_rows = [r for r in report["rows"] if r["engine"] == "triton"]
    assert {r["type"] for r in triton_rows} >= {"fp32", "fp16"}
    assert {r["direction"] for r in triton_rows} == {"forward", "backward", "double"}
    if not torch.cuda.is_available():
        assert not any(r["type"] == "bf16" for r in triton_rows)
        assert any(line.startswith("bf16") for line in report["not_exercised"])
        assert any("races" in line for line in report["not_exercised"])


@pytest.mark.slow
def test_a_failure_is_exit_code_1_and_an_unknown_op_is_2(tmp_path):
    pytest.importorskip("triton")
    (tmp_path / "broken_family.py").write_text(
        "import torch\nfrom fastgan.verify.registry import *\n"
        "register(Op('broken', lambda x: x * 1.1, lambda x: x, "
        "[Case('c', lambda t, d, g: {'x': torch.randn(9, generator=g).to(t)}, {'quick'})], "
        "engines=('reference',)))\n"
    )
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "broken_family.py").rename(tmp_path / "pkg" / "broken.py")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = run_verify("--quick", family="pkg.broken", PYTHONPATH=paths)
    assert done.returncode == 1
    assert "FAILED: 1 of 1 outputs (broken)" in done.stdout
    done = run_verify("--quick", "--op", "nonesuch", family="pkg.broken", PYTHONPATH=paths)
    assert done.returncode == 2
    assert done.stderr.strip() == "fastgan: no op named 'nonesuch': choose from broken"


@pytest.mark.parametrize("start", [["-m", "fastgan.verify"], ["-m", "fastgan", "verify"]])
def test_both_commands_read_the_same_arguments(start):
    """The second is the first's parser behind click, which a GPU machine may lack."""

    def run(*arguments):
        command = [sys.executable, *start, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    shown = run("--help")
    assert shown.returncode == 0
    assert "usage: fastgan verify" in shown.stdout
    for name in ("full", "op", "family", "aot", "json", "jobs", "defaults", "no-cache"):
        assert f"--{name}" in shown.stdout
    for arguments in ("--jobs 0", "sm_90", "--none", "--op"):
        done = run(*arguments.split())
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert done.stderr.startswith("fastgan: ")
        assert arguments.split()[0] in done.stderr


def test_targets_of_aot_have_a_default_and_may_be_followed_by_options(monkeypatch):
    from fastgan.verify import __main__, aot

    calls = []
    monkeypatch.setattr(aot, "command", lambda *given: calls.append(given) or 0)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert __main__.main(["--aot"]) == 0
    options = ["--defaults", "--no-cache", "--jobs", "3", "--json"]
    assert __main__.main(["--op", "uniform", "--aot", "sm_86", "sm_120", *options]) == 0
    assert calls == [
        (["sm_80", "sm_90"], [], None, None, True, False, False),
        (["sm_86", "sm_120"], ["uniform"], None, 3, False, True, True),
    ]


@pytest.mark.parametrize("axis", [0, 1])
def test_sums_in_the_interpreter_are_trees(axis):
    """As a GPU's: rounding grows with the logarithm of the length, not with the length."""
    x = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32) + 1
    total = interpreter.tree_sum(x, axis)
    assert total.dtype == np.float32
    gold = x.astype(np.float64).sum(axis)
    worst = np.abs(total - gold).max() / np.abs(gold).max()
    assert worst < 3e-7
    one_by_one = np.moveaxis(x, axis, 0)[0].copy()
    for row in np.moveaxis(x, axis, 0)[1:]:
        one_by_one += row
    assert np.abs(one_by_one - gold).max() / np.abs(gold).max() > 3 * worst
    assert np.array_equal(
        interpreter.tree_sum(np.arange(8, dtype=np.int32).reshape(2, 4), axis),
        np.arange(8).reshape(2, 4).sum(axis),
    )


def test_an_interpreter_that_numpy_breaks_is_named_before_anything_runs(monkeypatch, capsys):
    from fastgan.kernels import toolchain
    from fastgan.verify.__main__ import main

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(toolchain, "INTERPRET", True)
    monkeypatch.setattr(toolchain, "import_error", lambda: None)
    monkeypatch.setattr(toolchain, "versions", lambda: {"triton": "3.6.0", "numpy": "2.4.6"})
    toolchain.lacking.cache_clear()
    try:
        assert main(["--quick", "--op", "uniform"]) == 2
    finally:
        toolchain.lacking.cache_clear()
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert "Triton 3.6.0" in err
    assert "numpy 2.4.6" in err
