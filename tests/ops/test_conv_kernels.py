"""The convolution kernels in Triton's interpreter: each check in a process of its own, since the
interpreter is chosen at import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastgan.kernels.common import cdiv, has_triton, triton
from fastgan.kernels.conv import plan as conv_plan
from fastgan.kernels.conv.plan import gather_plan, schedule, tile
from fastgan.kernels.conv.spec import ConvSpec

pytestmark = pytest.mark.skipif(not has_triton, reason="needs Triton")


def test_schedules(monkeypatch):
    """A layer that fills the chip is not split; parts are whole K blocks that cover the reduction,
    none of them empty."""
    monkeypatch.setattr(conv_plan, "FILL", 8)  # as on a GPU, whatever this process is
    monkeypatch.setattr(conv_plan, "SHORTEST", 512)
    plan = gather_plan(
        ConvSpec(False, (4, 4), (2, 2), (1, 1)), (512, 256, 4, 4), (8, 8), (4, 4), gradient=False
    )
    config = tile(64, 64, 64, 4, 3, "channels")
    splits = {
        batch: schedule(plan, config, batch, 1, 132).splits for batch in (1, 16, 64, 128, 1024)
    }
    assert splits == {1: 8, 16: 8, 64: 2, 128: 1, 1024: 1}
    assert schedule(plan, config | {"SPLIT_K": 1}, 1, 1, 132).splits == 1
    for wanted in (1, 2, 3, 7, 16, 1000):
        how = schedule(plan, config | {"SPLIT_K": wanted}, 1, 1, 132)
        runs, rows = cdiv(256, how.span), cdiv(4, how.rows)
        assert how.splits == runs * rows <= wanted
        assert how.span % 64 == 0
        assert (runs - 1) * how.span < 256
        assert (rows - 1) * how.rows < 4


def test_merging_is_for_few_columns():
    transposed = ConvSpec(True, (4, 4), (2, 2), (1, 1))
    merged = [
        gather_plan(transposed, (64, c, 4, 4), (8, 8), (16, 16), gradient=False).merged
        for c in (1, 3, 4, 5)
    ]
    assert merged == [True, True, True, False]
    assert not gather_plan(
        transposed, (64, 3, 4, 4), (8, 8), (16, 16), gradient=True
    ).merged  # gathers from the large side
    plan = gather_plan(transposed, (64, 3, 4, 4), (8, 8), (16, 16), gradient=False)
    each = schedule(plan, tile(64, 16, 32, 4, 4, "taps") | {"MERGED": False}, 8, 1, 132)
    assert not each.merged
    assert each.programs == 4 * each.tiles


def test_parts_are_loaded_and_added_in_wide_words():
    """A split must not hide from the compiler that its first channel is a multiple of 16: loads
    would shrink to two bytes."""
    from triton.backends.compiler import GPUTarget

    from fastgan.verify import registry
    from fastgan.verify.aot import source_of

    registry.load()
    variants = {v.name: v for v in registry.ops("conv_moments")[0].kernels()}
    for name, wide in (
        ("parts of dgrad conv k4s2 512-512 at 4 bf16", "cp.async.cg.shared.global"),
        ("sum of dgrad conv k4s2 512-512 at 4 bf16", "ld.global.v4.b32"),
    ):
        source, options = source_of(variants[name], variants[name].configs[0])
        assert (
            wide
            in triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm["ptx"]
        )


def test_fp32_tiles_of_few_channels_keep_within_the_registers():
    from fastgan.verify import aot, registry

    registry.load()
    for op, kernel in (
        ("conv_moments", "dgrad conv k4s2 3-64 at 64 fp32"),
        ("conv_moments", "forward conv k3s1 16-16 at 16 fp32"),
        ("conv_transpose_moments", "forward transposed k4s2 64-3 at 32 fp32"),
    ):
        index, variant = next((i, v) for i, v in enumerate(aot.variants_of(op)) if v.name == kernel)
        row = aot.compile_job(
            aot.CompileJob(op, index, tuple(sorted(variant.configs[0].items())), "sm_89"),
            use_cache=False,
        )
        assert row.verdict == "pass", (kernel, row.note)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("geometry", "configurations", "switch"),
        ("splits", "merged_phases", "gradient_pass", "containers"),
    ],
    ids=" ".join,
)
def test_interpreted(names):
    """Several in one process, which takes longer to start than most of them to run."""
    script = Path(__file__).parents[1].joinpath("support", "interpreted_conv.py")
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(script.parents[2]),
    }
    done = subprocess.run(
        [sys.executable, str(script), *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
