"""Forms and precision by measurement: what is measured, kept, not believed, and gone on with."""

import json
import os
from pathlib import Path

import pytest
import torch
from run_support import assert_same_run, in_a_hurry, tiny

from fastgan.cpu import identity, measure, table
from fastgan.cpu.layers import Look, give, operations
from fastgan.cpu.measure import Task, choose, forms_of
from fastgan.cpu.table import CpuTable
from fastgan.errors import FastganError
from fastgan.ops.conv.formed import Forms

MS = {"onednn": 10.0, "nchw": 20.0, "product": 1.0, "patches": 4.0, "fold": 2.0}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Networks of any size are measured; each form takes what MS says, bf16 `share` of it."""
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measure, "WORTH", 0)
    found = {"share": 2.0, "ms": dict(MS), "runs": 0}

    def run(task, form):
        found["runs"] += 1
        share = found["share"] if " bf16 " in task.key else 1.0
        task.best[form] = found["ms"][form] * share

    monkeypatch.setattr(Task, "run", run)
    in_a_hurry(monkeypatch)
    return found


def facts(run):
    return json.loads((run / "run.json").read_text())


def test_the_fastest_form_of_each_operation_is_taken_and_written_down(measured, tmp_path):
    with tiny(tmp_path / "run", precision="fp32") as trainer:
        trainer.fit(2)
        assert "4 layers by forms that are faster here" in trainer.cpu.line()
    chosen = facts(tmp_path / "run")["cpu"]
    product, thin = ["product", "product", "product"], ["patches", "fold", "patches"]
    first = ["onednn", "product", "product"]  # noise has no gradient: it is not measured
    assert chosen["forms"] == {"G": {"0": first, "3": thin}, "D": {"0": thin, "2": product}}
    assert chosen["cpu"] == identity.identity()["cpu"]
    runs = measured["runs"]
    with tiny(None, precision="fp32"):
        assert measured["runs"] == runs, "measured again"


def test_it_is_measured_really(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path))
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 4, 2, 1), torch.nn.Conv2d(3, 1, 4))
    with Look({"D": net}) as look:
        net(torch.randn(4, 2, 8, 8))
    layers = look.layers(2)
    assert [o.images for o in operations(layers)] == [8] * 5
    found = measure.measure(layers, ["fp32", "bf16"])
    assert len(found.operations) == 10
    assert all(ms > 0 for times in found.operations.values() for ms in times.values())
    assert not net[0]._forward_hooks


@pytest.mark.parametrize(("share", "precision"), [(0.5, "bf16"), (0.95, "fp32"), (3.0, "fp32")])
def test_precision_is_measured_and_kept(measured, tmp_path, share, precision):
    measured["share"] = share
    run = tmp_path / "run"
    with tiny(run) as trainer:
        assert trainer.precision.name == precision
        assert "ms in bf16" in trainer.cpu.line()
        trainer.fit(1)
    assert facts(run)["cpu"]["precision"] == facts(run)["identity"]["precision"] == precision
    assert f'precision = "{precision}"' in (run / "config.toml").read_text()
    measured["share"] = 1.4 - share
    for path in (tmp_path / "cache" / "cpu").iterdir():
        path.unlink()
    with tiny(run, resume=True) as trainer:
        assert trainer.precision.name == precision


def test_resume_goes_on_with_the_forms_of_the_run(measured, tmp_path):
    for name, steps in (("whole", 7), ("cut", 3)):
        torch.manual_seed(0)
        with tiny(tmp_path / name) as trainer:
            trainer.fit(steps)
    measured["ms"] = dict.fromkeys(MS, 1.0)  # another machine would choose PyTorch's
    for path in (tmp_path / "cache" / "cpu").iterdir():
        path.unlink()
    with tiny(tmp_path / "cut", resume=True) as trainer:
        trainer.fit(7)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_the_reference_and_an_unmeasured_machine_have_pytorchs_bits(measured, tmp_path):
    outputs = []
    for impl, ms in (("reference", MS), ("auto", dict.fromkeys(MS, 1.0))):
        measured["ms"] = ms
        torch.manual_seed(0)
        with tiny(None, impl=impl, precision="fp32") as trainer:
            trainer.fit(3)
            assert "forward" not in trainer.nets["G"][0].__dict__
            outputs.append(trainer.sample(4))
    assert torch.equal(*outputs)


def test_a_table_of_another_cpu_or_a_broken_one_counts_for_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path))
    assert table.save(CpuTable({"op": {"onednn": 2.0, "fold": 1.0}})) is None
    path, text = table.path(), table.path().read_text()
    assert table.load().form("op") == "fold"
    path.write_text(text.replace(str(torch.__version__), "1.0"))  # copied from elsewhere
    assert table.load().operations == {}
    for broken in ("", "[]", "{", text.replace("2.0", '"x"')):
        path.write_text(broken)
        assert table.load().operations == {}
    path.write_text(text)
    other = "SSE41" if os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2" else "AVX2"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", other)
    assert table.load().operations == {}


def test_training_starts_without_proc_and_with_a_cache_that_cannot_be_written(
    measured, monkeypatch, tmp_path
):
    def refuse(self, *given, **more):
        raise FileNotFoundError(2, "no such file")

    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("FASTGAN_CACHE", str(blocked))  # a folder can't be made below a file
    monkeypatch.setattr(Path, "read_text", refuse)
    assert identity.identity()["cpu"]
    assert table.save(CpuTable()) is not None
    with tiny(None) as trainer:
        trainer.fit(1)
        assert trainer.cpu.choice.forms


def test_what_is_not_measured():
    layers = []
    assert choose(layers, "auto").precision == "fp32"
    assert choose(layers, "bf16").precision == "bf16"
    with pytest.raises(FastganError, match="by forms fourier, fold, nchw"):
        forms_of({"G": {"0": ["fourier", "fold", "nchw"]}})


def test_a_copied_and_a_parametrized_layer_keep_their_forms_and_weights():
    import copy

    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(2, 3, 4, 2, 1)).eval()
    net = torch.nn.Sequential(layer)
    x = torch.randn(2, 2, 8, 8)
    want = net(x)
    give({"D": net}, {"D": {"0": Forms("patches", "fold", "patches")}})
    twin = copy.deepcopy(net)
    assert twin[0].__dict__["forward"].__self__ is twin[0]
    torch.testing.assert_close(twin(x), want)
    torch.testing.assert_close(net(x), want)
    give({"D": net}, {})
    assert torch.equal(net(x), want)
    assert os.environ.get("FASTGAN_IMPL") is None


def test_tune_writes_the_table_that_trainings_read(measured, monkeypatch):
    from fastgan.verify.tuner import cpu as tune_cpu

    monkeypatch.setattr(tune_cpu, "MEASURED", ("dcgan",))
    lines = []
    assert tune_cpu.run(["fp32"], 60, lines.append) == 0
    assert any("fold, 2.000 ms, PyTorch's own 10.000" in line for line in lines)
    assert table.load().operations
    with pytest.raises(FastganError, match="--type fp16: on a CPU"):
        tune_cpu.run(["fp16"], 1, lines.append)
