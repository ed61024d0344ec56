"""impl="reference" keeps Triton out of everything a Trainer runs, and one answer to "can the
kernels run here?"."""

import collections

import pytest
import torch
from interpreter_child import interpreted, parent, run_interpreted
from run_support import tiny

from fastgan import info
from fastgan.errors import FastganError
from fastgan.kernels import toolchain
from fastgan.kernels.norm import running
from fastgan.kernels.spectral import launch as spectral
from fastgan.ops.dispatch import Dispatcher, constant, missing, why
from fastgan.trainer import loop


@parent
def test_the_interpreters_process():
    run_interpreted(__file__)


@interpreted
def test_reference_runs_no_kernel(monkeypatch, tmp_path):
    chosen = collections.Counter()
    choose = Dispatcher.__call__

    def counting(self, *args, **options):
        engine = choose(self, *args, **options)
        chosen[engine] += 1
        return engine

    monkeypatch.setattr(Dispatcher, "__call__", counting)
    monkeypatch.setattr(loop, "look_due", lambda step: True)
    with tiny(tmp_path / "run", impl="reference") as run:
        run.fit(2)
        run.sample(4)
    assert chosen["reference"] > 10
    assert chosen["triton"] == 0
    with tiny(tmp_path / "run", impl="reference", resume=True) as run:
        run.fit(3)
    assert chosen["triton"] == 0


@pytest.fixture(name="fresh_answers")
def forget_answers():
    yield
    toolchain.lacking.cache_clear()
    missing.cache_clear()


@pytest.mark.usefixtures("fresh_answers")
@pytest.mark.parametrize("lost", ["cc", "python_h"])
@pytest.mark.skipif(not toolchain.has_triton, reason="needs Triton")
def test_auto_falls_back_where_info_says_that_triton_cant_run(monkeypatch, tmp_path, lost):
    monkeypatch.delenv("CC", raising=False)
    if lost == "cc":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setattr(toolchain.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    toolchain.lacking.cache_clear()
    missing.cache_clear()
    device = torch.device("cuda", 0)
    gpu = {"name": "NVIDIA H100", "usable": True, "capability": "9.0"}
    facts = {
        "versions": {**toolchain.versions(), "torch": "2.13.0"},
        "devices": [gpu],
        "compiler": toolchain.compiler(),
    }
    assert info.kernels(facts)["reasons"] == [missing("triton", device)]
    choose = Dispatcher("fall-back-test", ("triton", "reference"))
    assert choose._decide("auto", device, torch.float32, (), None, False).engine == "reference"


def test_what_a_tracer_is_not_to_follow_is_marked_as_torch_marks_it():
    mine = constant(lambda: None)
    assert vars(mine) == vars(torch.compiler.assume_constant_result(lambda: None)) != {}


class OnGpu:
    """As much of a CUDA tensor as a dispatcher looks at."""

    def __init__(self, index):
        self.device, self.dtype, self.is_cuda = torch.device("cuda", index), torch.float32, True


def test_kernels_are_not_launched_for_a_tensor_of_another_gpu_than_the_current_one(monkeypatch):
    monkeypatch.setattr("fastgan.ops.dispatch.missing", lambda engine, device: None)
    current = [0]
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    choose = Dispatcher("away-test", ("triton", "reference"))
    assert choose("auto", OnGpu(0)) == "triton"
    assert choose("auto", OnGpu(1)) == "reference"
    assert "torch.cuda.set_device(1)" in why("away-test")
    with pytest.raises(
        FastganError, match=r"away-test cannot run .* cuda:1, another GPU is current"
    ):
        choose("triton", OnGpu(1))
    current[0] = 1
    assert choose("auto", OnGpu(1)) == "triton"
    assert choose("auto", OnGpu(0)) == "reference"


def test_tables_that_graphs_point_to_are_never_let_go():
    cpu = torch.device("cpu")
    table = running.device_table((1.0,), torch.float32, cpu)
    plan = spectral.plan(((2, 3, 3, 3, 1, 0, 1, 0),), 8, 64, cpu)
    for i in range(600):
        running.device_table((1.0, float(i)), torch.float32, cpu)
        spectral.plan(((2, i + 4, i + 4, i + 4, 1, 0, 1, 0),), 8, 64, cpu)
    assert running.device_table((1.0,), torch.float32, cpu) is table
    assert spectral.plan(((2, 3, 3, 3, 1, 0, 1, 0),), 8, 64, cpu) is plan
