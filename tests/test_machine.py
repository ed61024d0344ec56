"""The description of the machine that proofs, benchmarks, tables and `fastgan info` share."""

import json
import subprocess
import sys
import types
from pathlib import Path

import torch

from fastgan import info, machine
from fastgan.bench import store
from fastgan.bench.benchmark import Bench
from fastgan.verify import runner

CPU = torch.device("cpu")


def test_everybody_gives_the_same_description(monkeypatch):
    here = machine.describe(CPU)
    json.dumps(here)
    assert here["device"].startswith("CPU: ")
    assert here["torch"] == torch.__version__
    monkeypatch.setattr(machine, "describe", lambda device: {**here, "commit": "abc1234"})
    monkeypatch.setattr(runner, "plan", lambda *_: ([], []))
    seen = {**here, "commit": "abc1234"}
    assert runner.run(device=CPU, families=[]).environment == {**seen, "mode": "PyTorch on the CPU"}
    assert Bench(CPU).run([], [])["machine"] == seen
    rows = store.machine.__wrapped__()
    assert rows.items() <= here.items()
    facts = info.collect()
    assert facts["versions"].items() <= {**here, "triton": facts["versions"]["triton"]}.items()
    assert facts["platform"]["cpu"] == machine.cpu_name()
    assert facts["platform"]["cores"] == here["cores"]


def test_the_driver_is_asked_where_there_is_one(monkeypatch):
    library = types.ModuleType("pynvml")
    ended = []
    library.nvmlInit = lambda: None
    library.nvmlShutdown = lambda: ended.append(1)
    library.nvmlSystemGetDriverVersion = lambda: "580.10"
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert (machine.driver(), ended) == ("580.10", [1])
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert machine.driver() is None


ALONE = """
import importlib, sys
for name in {missing}:
    sys.modules[name] = None
for name in {wanted}:
    importlib.import_module(name)
"""
MISSING = ("click", "tqdm", "PIL", "safetensors", "filelock", "pynvml", "matplotlib")
WANTED = (
    "fastgan.ops.norm",
    "fastgan.acceleration",
    "fastgan.trainer.step.runner",
    "fastgan.machine",
    "fastgan.verify.__main__",
    "fastgan.verify.runner",
    "fastgan.verify.aot",
    "fastgan.verify.tune",
    "fastgan.bench.benchmark",
    "fastgan.bench.gpu",
    "fastgan.bench.store",
)


def test_proof_and_measurement_need_torch_triton_and_numpy_alone():
    code = ALONE.format(missing=MISSING, wanted=WANTED)
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
