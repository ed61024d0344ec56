"""Tuning tables: what a lookup answers, what it refuses, that it costs nothing, and that the
shipped tables are sound."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from interpreter_child import interpreted, parent, run_interpreted

from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels.common import TRITON_VERSION, has_triton, triton_minor
from fastgan.kernels.tuning import Device, Entry, Table
from fastgan.ops import dispatch
from fastgan.trainer.optimization import fused
from fastgan.verify import registry, tune, tuning_tables
from fastgan.verify.timing import Timing

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


def other_minor(by):
    return f"{TRITON_VERSION[0]}.{TRITON_VERSION[1] + by}"


def test_engines_come_from_the_nearest_triton_and_configurations_from_this_one_alone():
    far, near = (entry(1024, 0, engine=e) for e in ("reference", "cudnn"))
    others = table(far, triton=other_minor(2)), table(near, triton=other_minor(1))
    assert find(1024, H100, *others) is None
    ask = lambda *tables: tuning.find(
        "k", "bf16", (("c", 64), ("rows", 1024)), H100, tables, any_minor=True
    )
    assert ask(*others).engine == "cudnn"
    assert (
        ask(*others, table(entry(2048, 0))).engine == "triton"
    )  # measured here, though at another size
    assert ask(*others, table(entry(1024, 0), gpu="NVIDIA H200")).engine == "cudnn"


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
    tuning_tables.save(path, table(entry(4096, 7, engine="cudnn", ms=0.5), entry(1024, 9)))
    again = tuning.read(path)
    assert [e.shape["rows"] for e in again.entries] == [1024, 4096]
    assert not list(path.parent.glob(".partial-*"))
    tuning.forget()
    device, default = torch.device("cuda", 0), {"BLOCK": 1, "num_warps": 4}
    assert tuning.config("k", torch.bfloat16, (("c", 64), ("rows", 4096)), default, device) == {
        "BLOCK": 7,
        "num_warps": 4,
    }
    assert (
        tuning.config("k", torch.float16, (("c", 64), ("rows", 4096)), default, device) is default
    )
    assert tuning.engine("k", "bf16", {"c": 64, "rows": 4096}, device) == "cudnn"
    assert tuning.engine("other", "bf16", {"c": 64, "rows": 4096}, device) is None
    assert len(tuning.entries("k", "sm_90")) == 2
    assert not tuning.entries("k", "sm_80")


def test_a_table_of_another_triton_chooses_engines(own_tables):
    path = own_tables / tuning.slug(H100.gpu) / f"triton-{other_minor(1)}.json"
    tuning_tables.save(path, table(entry(4096, 7, engine="cudnn"), triton=other_minor(1)))
    tuning.forget()
    device, default, shape = torch.device("cuda", 0), {"BLOCK": 1}, (("c", 64), ("rows", 4096))
    assert tuning.engine("k", "bf16", dict(shape), device) == "cudnn"
    assert tuning.config("k", torch.bfloat16, shape, default, device) is default
    assert not tuning.entries("k")


@pytest.mark.skipif(not has_triton, reason="compiles")
def test_recheck_takes_over_what_this_triton_compiles(own_tables, monkeypatch):
    folder, said = own_tables / tuning.slug(H100.gpu), []
    monkeypatch.setattr(tuning, "SHIPPED", own_tables / "none")
    draw = lambda count, block: Entry(
        "random", "fp32", {"count": count}, config={"BLOCK": block, "num_warps": 4}, ms=0.1
    )
    engine = Entry("conv2d", "bf16", {"rows": 8}, engine="cudnn", triton="0.1.0")
    way = Entry(
        "conv_way", "bf16", {"rows": 8}, config={"WAY": "tma"}
    )  # steers a launcher: there is nothing to compile
    old = [draw(10, 256), draw(11, 48), draw(12, 512), engine, way]  # 48 is no power of two
    tuning_tables.save(folder / f"triton-{other_minor(1)}.json", table(*old, triton=other_minor(1)))
    mine = folder / f"triton-{triton_minor()}.json"
    tuning_tables.save(mine, table(draw(12, 1024)))
    tuning.forget()
    assert tuning_tables.recheck(False, said.append) == 0
    found = {(e.op, *e.shape.values()): e for e in tuning.read(mine).entries}
    assert set(found) == {("random", 10), ("random", 12), ("conv2d", 8), ("conv_way", 8)}
    assert found["random", 12].config["BLOCK"] == 1024  # measured under this version: it stands
    assert found["random", 10].rechecked.startswith(triton_minor())
    assert found["random", 10].ms == 0.1
    assert found["conv2d", 8].triton == "0.1.0"
    assert any("48" in line for line in said)
    device = torch.device("cuda", 0)
    assert tuning.config("random", "fp32", (("count", 10),), {}, device) == draw(10, 256).config


class Uneven(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, engine):
        ctx.engine = engine
        time.sleep({"triton": 0.0, "cudnn": 0.004}[engine])
        return x * 2

    @staticmethod
    def backward(ctx, g):
        time.sleep({"triton": 0.02, "cudnn": 0.0}[ctx.engine])
        return g * 2, None


def test_an_engine_is_chosen_by_the_time_of_forward_and_backward(monkeypatch):
    choose = dispatch.Dispatcher("uneven", ("triton", "cudnn", "reference"))

    def fn(x, impl="auto"):
        if impl == "auto":
            return x * 2
        choose(impl, x, shape=(("n", x.numel()),))
        return Uneven.apply(x, impl)

    case = registry.Case(
        "case",
        lambda dtype, device, generator: {"x": torch.randn(8, generator=generator)},
        {"layer"},
    )
    engines = ("triton", "cudnn", "reference")
    op = registry.Op(
        "uneven", fn, lambda x: x * 2, [case], engines, ("x",), directions=("forward", "backward")
    )
    monkeypatch.setattr(dispatch, "missing", lambda engine, device: None)
    assert tune.tune_engine(op, case, "fp32", torch.device("cpu")).engine == "cudnn"


def test_flat_adam_is_tuned_at_the_sizes_of_the_recipes():
    found = {name: (tune._size(net), averaged) for name, net, averaged in tune.networks()}
    assert found["dcgan G"] == (3_576_704, True)
    assert found["dcgan D"] == (2_765_568, False)
    assert len(found) >= 8


@interpreted
@pytest.mark.parametrize("averaged", [True, False])
def test_flat_adam_on_the_kernel_is_timed_against_torchs(own_tables, monkeypatch, averaged):
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 3)
    )
    cpu = torch.device("cpu")
    entry = tune.tune_flat_adam(net, averaged, cpu)
    assert entry.engine == "reference"  # the interpreter is slow
    assert entry.error < 1e-6
    times = iter((1.0, 0.5))
    monkeypatch.setattr(tune, "measure", lambda calls: Timing(next(times), 0, 0, "cpu"))
    entry = tune.tune_flat_adam(net, averaged, cpu)
    assert (entry.engine, entry.ms) == ("triton", 0.5)
    path = tuning_tables.table_path(cpu, ship=False)
    tuning_tables.merge(path, cpu, [entry])
    assert fused.engine_of("auto", 200, cpu) == "triton"
    assert fused.engine_of("auto", 200_000, cpu) is None


@parent
def test_the_interpreters_process():
    run_interpreted(__file__)


def test_a_damaged_table_is_named(own_tables):
    path = own_tables / "gpu" / f"triton-{triton_minor()}.json"
    path.parent.mkdir()
    path.write_text('{"gpu": "x", "entries": [')
    with pytest.raises(FastganError, match="cannot be read"):
        tuning.tables()
    path.write_text(
        json.dumps(
            {
                "gpu": "x",
                "capability": "sm_90",
                "triton": triton_minor(),
                "entries": [{"nonsense": 1}],
            }
        )
    )
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
from fastgan.ops import dispatch; from fastgan.verify import registry
from fastgan.verify import tune, tuning_tables
torch.set_num_threads(1)
cpu = torch.device("cpu")
registry.load(["tests.support.toy_ops"])
op = registry.ops("scale_act")[0]
op.candidates["scale_act"][:] = [{"BLOCK": 1024}, {"BLOCK": 48}]
targets = list(tune.targets([op], cpu, ["fp32"], tag="quick"))
entry, tried = tune.tune(targets[0], cpu, default_ms=1e9)
tuning.device_facts = lambda device: tuning.Device("Imaginary GPU", "sm_90", 99 * 1024)
path = tuning_tables.table_path(cpu, ship=False)
tuning_tables.merge(path, cpu, [entry])
tuning_tables.merge(path, cpu, [entry])
found = tuning.find("scale_act", "fp32", targets[0].shape, tuning.device_facts(cpu))
stays, _ = tune.tune(targets[0], cpu, default_ms=1e-9)
n = len(tuning.read(path).entries)
answer = {"targets": len(targets), "tried": tried, "path": str(path), "config": found.config, "n": n, "stays": stays.config}
print(json.dumps(answer))
"""


@pytest.mark.slow
def test_tuning_checks_each_candidate_times_the_right_ones_and_writes_the_users_table(tmp_path):
    pytest.importorskip("triton")
    root = Path(__file__).resolve().parents[2]
    env = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "FASTGAN_CONFIG_DIR": str(tmp_path),
        "PYTHONPATH": str(root),
    }
    done = subprocess.run(
        [sys.executable, "-c", TUNE], env=env, cwd=root, capture_output=True, text=True, check=False
    )
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
    assert (
        result["stays"] == {}
    )  # kept all the same: without it a neighbour's winner would reach this shape


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
    known = {tune.FLAT_ADAM}
    known |= {
        n
        for op in ops
        for n in (op.name, *op.candidates, *(v.tuned for v in (op.kernels() if op.kernels else ())))
    }
    keys = [(e.op, e.type, tuple(sorted(e.shape.items()))) for e in shipped.entries]
    assert len(set(keys)) == len(keys)
    for e in shipped.entries:
        assert e.op in known
        assert e.engine in registry.ENGINES
        assert e.ms is not None
        assert e.error is not None
        assert e.commit
        assert (e.rechecked or e.triton).startswith(shipped.triton)
