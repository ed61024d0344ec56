"""Ahead-of-time compilation without a GPU: what it reports, what it refuses, and the shipped
kernels on the two targets of CI."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("triton")

BAD_FAMILY = '''
from fastgan.kernels.common import tl, triton
from fastgan.verify.registry import Case, Op, Variant, register


@triton.jit
def greedy(x_ptr, y_ptr, N, BLOCK: tl.constexpr):
    """Keeps far more alive than a thread has registers."""
    i = tl.arange(0, BLOCK)
    a = tl.load(x_ptr + i)
    b = tl.load(x_ptr + BLOCK + i)
    for k in range(N):
        a = a * b + tl.load(x_ptr + k)
        b = b * a + 1.0
    tl.store(y_ptr + i, a)
    tl.store(y_ptr + BLOCK + i, b)


@triton.jit
def product(x_ptr, y_ptr, N, TYPE: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    at = i[:, None] * BLOCK + i[None, :]
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for k in range(0, N):
        a = tl.load(x_ptr + k * BLOCK * BLOCK + at).to(TYPE)
        acc = tl.dot(a, tl.load(y_ptr + k * BLOCK * BLOCK + at).to(TYPE), acc, input_precision="ieee")
    tl.store(x_ptr + at, acc.to(x_ptr.dtype.element_ty))


def variants():
    sig = {"x_ptr": "*fp32", "y_ptr": "*fp32", "N": "i32"}
    half = {"x_ptr": "*fp16", "y_ptr": "*fp16", "N": "i32"}
    return [
        Variant("spilling", greedy, sig, {}, [{"BLOCK": 32768, "num_warps": 4}]),
        Variant("fp32 dot", product, sig, {"TYPE": tl.float32}, [{"BLOCK": 32, "num_warps": 4}], needs_tensor_cores=True),
        Variant("fp16 dot", product, half, {"TYPE": tl.float16}, [{"BLOCK": 64, "num_warps": 4}], needs_tensor_cores=True),
        Variant("too much shared", product, half, {"TYPE": tl.float16}, [{"BLOCK": 128, "num_warps": 8, "num_stages": 5}]),
        Variant("forgotten argument", product, {"x_ptr": "*fp32"}, {}, [{"BLOCK": 16}]),
    ]


register(Op("bad", print, print, [Case("c", print, {"quick"})], kernels=variants))
'''


def aot(tmp_path, *arguments, family="tests.support.toy_ops", expect=None):
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "FASTGAN_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    command = [
        sys.executable,
        "-m",
        "fastgan.verify",
        *(["--family", family] if family else []),
        "--json",
        "--aot",
        *arguments,
    ]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    if expect is not None:
        assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_every_target_compiles_and_the_second_time_is_known(tmp_path):
    targets = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
    rows = json.loads(aot(tmp_path, *targets, expect=0).stdout)["rows"]
    assert len(rows) == 2 * len(targets)
    assert all(r["registers"] > 0 and r["verdict"] == "pass" and not r["kept"] for r in rows)
    limits = {r["target"]: r["limit"] // 1024 for r in rows}
    assert limits == {
        "sm_80": 163,
        "sm_86": 99,
        "sm_89": 99,
        "sm_90": 227,
        "sm_100": 227,
        "sm_120": 99,
    }
    again = json.loads(aot(tmp_path, *targets, expect=0).stdout)["rows"]
    assert all(r["kept"] for r in again)
    assert [{**r, "kept": False} for r in again] == rows


@pytest.mark.slow
def test_spills_missing_tensor_cores_and_shared_memory_fail(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "__init__.py").write_text("")
    (tmp_path / "bad" / "ops.py").write_text(BAD_FAMILY)
    rows = {
        (r["kernel"], r["target"]): r
        for r in json.loads(aot(tmp_path, "sm_86", "sm_90", family="bad.ops", expect=1).stdout)[
            "rows"
        ]
    }
    for target in ("sm_86", "sm_90"):
        assert "spills" in rows["spilling", target]["note"]
        assert rows["spilling", target]["spilled"] > 0
        assert rows["fp32 dot", target]["note"] == "no tensor cores"
        assert rows["fp16 dot", target]["verdict"] == "pass"
        assert "'y_ptr'" in rows["forgotten argument", target]["note"]
    assert "wgmma" in rows["fp16 dot", "sm_90"]["matrix"]
    assert "mma.sync" in rows["fp16 dot", "sm_86"]["matrix"]
    assert "over the limit" in rows["too much shared", "sm_86"]["note"]


def test_an_unknown_target_is_one_line_and_code_2(tmp_path):
    done = aot(tmp_path, "sm_75", expect=2)
    assert done.stderr.strip().startswith("fastgan: unknown target 'sm_75': choose from sm_80")


@pytest.mark.slow
def test_shipped_kernels_on_the_targets_of_ci():
    """Kept rows of an earlier run count: they carry the hash of the source they were compiled
    from."""
    command = [
        sys.executable,
        "-m",
        "fastgan.verify",
        "--json",
        "--defaults",
        "--aot",
        "sm_80",
        "sm_90",
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["rows"]
    assert not [
        f"{r['kernel']} {r['config']} {r['target']}: {r['note']}"
        for r in report["rows"]
        if r["verdict"] == "FAIL"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
def test_launch_options_reach_the_compiler(fused):
    """Adam is launched without fused multiply-adds: what is compiled here must be what is
    launched."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from fastgan.kernels.norm.forward import apply_kernel
    from fastgan.verify import aot
    from fastgan.verify.cases.norm_launches import variants

    variant = next(
        v for v in variants() if v.kernel is apply_kernel and "leaky_relu fp32" in v.name
    )
    source, options = aot.source_of(variant, {**variant.configs[0], "enable_fp_fusion": fused})
    assert options["enable_fp_fusion"] is fused
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    assert ("fma.rn.f32" in ptx) is fused
