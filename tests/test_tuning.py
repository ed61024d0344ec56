"""Tuning tables: what a lookup answers, what it refuses, that it costs nothing, and that the shipped tables are sound."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels._common import triton_minor
from fastgan.kernels.tuning import Device, Entry, Table
from fastgan.ops import registry
from fastgan.verify import tune

H100 = Device("NVIDIA H100 80GB HBM3", "sm_90", 227 * 1024)
SMALL = Device("NVIDIA Small", "sm_90", 99 * 1024)


def entry(rows, block=64, **more):
    return Entry("k", "bf16", {"c": 64, "rows": rows}, config={"BLOCK": block}, **more)


def table(*entries, gpu=H100.gpu, capability="sm_90", triton=None):
    return Table(gpu, capability, triton or triton_minor(), entries)


def find(rows, device, *tables, c=64, dtype="bf16"):
    return tuning.find("k", dtype, (("c", c), ("rows", rows)), device, tables)


def test_exact_then_nearest_then_nothing():
    t = table(entry(1024, 1), entry(4096, 2))
    assert find(4096, H100, t).config == {"BLOCK": 2}
    assert find(1500, H100, t).config == {"BLOCK": 1}
    assert find(3000, H100, t).config == {"BLOCK": 2}
    assert find(4096 * 9, H100, t) is None  # more than MAX_DOUBLINGS away
    assert find(1024, H100, t, dtype="fp32") is None


def test_where_the_default_stands_no_neighbours_winner_reaches():
    t = table(entry(1024, 1), Entry("k", "bf16", {"rows": 4096, "c": 64}))
    assert find(4096, H100, t).config == {}
    assert find(3000, H100, t).config == {}


def test_only_what_fits_the_device_and_this_triton_is_eligible():
    big = entry(1024, 128, shared=200 * 1024)
    small = entry(2048, 32, shared=50 * 1024)
    assert find(1024, H100, table(big, small)).config == {"BLOCK": 128}
    assert find(1024, SMALL, table(big, small)).config == {"BLOCK": 32}
    assert find(1024, H100, table(big, triton="0.1")) is None
    assert find(1024, H100, table(big, capability="sm_80")) is None


def test_the_same_gpu_model_goes_before_a_nearer_size_of_another():
    other = table(entry(1024, 1), gpu="NVIDIA H200")
    own = table(entry(2048, 2))
    assert find(1024, H100, other, own).config == {"BLOCK": 2}
    assert find(1024, H100, other).config == {"BLOCK": 1}


@pytest.fixture
def own_tables(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CONFIG_DIR", str(tmp_path))
    monkeypatch.setattr(tuning, "device_facts", lambda device: H100)
    monkeypatch.setattr(tuning, "INTERPRET", False)
    tuning.forget()
    yield tmp_path
    tuning.forget()


def test_a_users_own_table_is_read_and_written_whole(own_tables):
    path = own_tables / tuning.slug(H100.gpu) / f"triton-{triton_minor()}.json"
    assert path.parent.name == "nvidia-h100-80gb-hbm3"
    tune.save(path, table(entry(4096, 7, engine="cudnn", ms=0.5), entry(1024, 9)))
    again = tuning.read(path)
    assert [e.shape["rows"] for e in again.entries] == [1024, 4096]
    assert not list(path.parent.glob(".partial-*"))
    tuning.forget()
    device, default = torch.device("cuda", 0), {"BLOCK": 1, "num_warps": 4}
    assert tuning.config("k", torch.bfloat16, (("c", 64), ("rows", 4096)), default, device) == {"BLOCK": 7, "num_warps": 4}
    assert tuning.config("k", torch.float16, (("c", 64), ("rows", 4096)), default, device) is default
    assert tuning.engine("k", "bf16", {"c": 64, "rows": 4096}, device) == "cudnn"
    assert tuning.engine("other", "bf16", {"c": 64, "rows": 4096}, device) is None
    assert len(tuning.entries("k", "sm_90")) == 2
    assert not tuning.entries("k", "sm_80")


def test_a_damaged_table_is_named(own_tables):
    path = own_tables / "gpu" / f"triton-{triton_minor()}.json"
    path.parent.mkdir()
    path.write_text('{"gpu": "x", "entries": [')
    with pytest.raises(FastganError, match="cannot be read"):
        tuning.tables()
    path.write_text(json.dumps({"gpu": "x", "capability": "sm_90", "triton": triton_minor(), "entries": [{"nonsense": 1}]}))
    with pytest.raises(FastganError, match="run fastgan tune"):
        tuning.tables()


def test_a_lookup_asks_the_driver_and_the_disk_once(own_tables, monkeypatch):
    asked = []
    monkeypatch.setattr(tuning, "device_facts", lambda device: asked.append(device) or H100)
    device = torch.device("cuda", 0)
    for _ in range(5):
        tuning.config("k", torch.bfloat16, (("c", 1), ("rows", 2)), {}, device)
    assert len(asked) == 1


def test_override_and_record_are_undone():
    cpu = torch.device("cpu")
    ask = lambda: tuning.config("k", torch.float32, (("n", 5),), {"BLOCK": 1, "num_warps": 4}, cpu)
    with tuning.override({"k": {"BLOCK": 2}}), tuning.record() as seen:
        assert ask() == {"BLOCK": 2, "num_warps": 4}
    assert seen == [("k", "fp32", (("n", 5),))]
    assert ask() == {"BLOCK": 1, "num_warps": 4}


def test_without_a_gpu_the_safe_default_wins():
    default = {"BLOCK": 1}
    assert tuning.config("k", torch.float32, (("n", 5),), default, torch.device("cpu")) is default


TUNE = """
import json, torch
from pathlib import Path
from fastgan.kernels import tuning
from fastgan.ops import registry
from fastgan.verify import tune
from fastgan.verify import tune
torch.set_num_threads(1)
cpu = torch.device("cpu")
registry.load(["tests.toy_ops"])
op = registry.ops("scale_act")[0]
op.candidates["scale_act"][:] = [{"BLOCK": 1024}, {"BLOCK": 48}]
targets = list(tune.targets([op], cpu, ["fp32"], tag="quick"))
entry, tried = tune.tune(targets[0], cpu, default_ms=1e9)
tuning.device_facts = lambda device: tuning.Device("Imaginary GPU", "sm_90", 99 * 1024)
path = tune.table_path(cpu, ship=False)
tune.merge(path, cpu, [entry])
tune.merge(path, cpu, [entry])
found = tuning.find("scale_act", "fp32", targets[0].shape, tuning.device_facts(cpu))
stays, _ = tune.tune(targets[0], cpu, default_ms=1e-9)
n = len(tuning.read(path).entries)
answer = {"targets": len(targets), "tried": tried, "path": str(path), "config": found.config, "n": n, "stays": stays.config}
print(json.dumps(answer))
"""


@pytest.mark.slow
def test_tuning_checks_each_candidate_times_the_right_ones_and_writes_the_users_table(tmp_path):
    pytest.importorskip("triton")
    root = Path(__file__).resolve().parents[1]
    env = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "FASTGAN_CONFIG_DIR": str(tmp_path),
        "PYTHONPATH": str(root),
    }
    done = subprocess.run([sys.executable, "-c", TUNE], env=env, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["targets"] == 1
    by_block = {t["config"]["BLOCK"]: t for t in result["tried"] if t["config"]}
    assert "wrong" in by_block[48]  # not a power of two: it must not be timed, let alone win
    assert "ms" not in by_block[48]
    assert all("ms" in t and t["error"] < 1e-6 for b, t in by_block.items() if b != 48)
    assert result["config"]["BLOCK"] in by_block
    assert result["path"] == str(tmp_path / "imaginary-gpu" / f"triton-{triton_minor()}.json")
    assert result["n"] == 1
    assert result["stays"] == {}  # kept all the same: without it a neighbour's winner would reach this shape


def test_tuning_without_a_gpu_is_one_line():
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    with pytest.raises(FastganError, match="needs an NVIDIA GPU"):
        tune.run([], ["bf16"], 1.0, False, print)


SHIPPED = sorted(tuning.SHIPPED.glob("*/*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=[f"{p.parent.name}/{p.stem}" for p in SHIPPED])
def test_shipped_tables_name_ops_configurations_and_evidence(path):
    shipped = tuning.read(path)
    assert path.parent.name == tuning.slug(shipped.gpu)
    assert path.stem == f"triton-{shipped.triton}"
    ops = registry.load().values()
    known = {n for op in ops for n in (op.name, *op.candidates, *(v.tuned for v in (op.kernels() if op.kernels else ())))}
    keys = [(e.op, e.type, tuple(sorted(e.shape.items()))) for e in shipped.entries]
    assert len(set(keys)) == len(keys)
    for e in shipped.entries:
        assert e.op in known
        assert e.engine in registry.ENGINES
        assert e.ms is not None
        assert e.error is not None
        assert e.commit
        assert e.triton.startswith(shipped.triton)
