"""`fastgan info` tells what is there, and never fails."""

import json
import sys

import pytest
from click.testing import CliRunner

from fastgan import info, machine
from fastgan.cli.info import command
from fastgan.kernels import toolchain


def facts(**changes):
    versions = {
        "fastgan": "0.1.0",
        "python": "3.11.9",
        "torch": "2.13.0",
        "triton": "3.7.1",
        "numpy": "2.4.6",
        "cuda": "13.0",
    }
    gpu = {
        "name": "NVIDIA H100",
        "usable": True,
        "capability": "9.0",
        "memory_bytes": 80 * 2**30,
        "free_bytes": 2**36,
    }
    found = {
        "versions": {**versions, "cudnn": "91002"},
        "driver": "580.10",
        "precision": "bf16",
        "devices": [{"index": 0, **gpu}],
        "platform": {
            "system": "Linux",
            "cpu": "CPU",
            "cores": 16,
            "torch_threads": 16,
            "memory_bytes": 2**37,
        },
        "cache": {"path": "/c", "bytes": 2048, "files": 3},
        "compiler": {
            "cc": "/usr/bin/gcc",
            "cc_named": None,
            "python_h": "/usr/include/python3.11/Python.h",
        },
    }
    for key, value in changes.items():
        found[key] = {**found[key], **value} if isinstance(value, dict) else value
    return found


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(toolchain, "import_error", lambda: None)
    monkeypatch.setattr(
        info.metadata, "requires", lambda name: None
    )  # the pairs as they are, whatever torch is installed
    monkeypatch.setattr(toolchain.sys, "platform", "linux")


def test_a_machine_with_everything_is_ready():
    assert info.kernels(facts()) == {
        "status": "ready",
        "reasons": [],
        "notes": [],
        "interpreter": False,
    }


OLD = {
    "index": 0,
    "name": "Tesla V100",
    "usable": True,
    "capability": "7.0",
    "memory_bytes": 2**34,
    "free_bytes": None,
}
BLIND = {**OLD, "usable": False}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": []}, "no NVIDIA GPU"),
        ({"devices": [OLD]}, "Ampere"),
        ({"devices": [BLIND], "versions": {"cuda": None}}, "a build without CUDA"),
        ({"devices": [BLIND]}, "driver 580.10"),
        ({"versions": {"triton": None}}, "Triton is not installed"),
        ({"compiler": {"cc": None}}, "no C compiler"),
        ({"compiler": {"cc": None, "cc_named": "nowhere"}}, "CC=nowhere"),
        ({"compiler": {"python_h": None}}, "no Python.h"),
    ],
)
def test_each_obstacle_is_named(changes, words):
    state = info.kernels(facts(**changes))
    assert state["status"] == "unavailable"
    assert len(state["reasons"]) == 1
    assert words in state["reasons"][0]


def test_a_triton_that_torch_was_not_built_with_is_a_note(monkeypatch):
    state = info.kernels(facts(versions={"torch": "2.11.0+cu130"}))
    assert state["status"] == "ready"
    assert "triton==3.6" in state["notes"][0]
    monkeypatch.setattr(
        info.metadata,
        "requires",
        lambda name: ["numpy", 'triton==3.5.0; platform_system == "Linux"'],
    )
    assert info.paired_triton("2.13.0") == "3.5"


def test_the_interpreter_needs_no_gpu_and_no_compiler(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    state = info.kernels(facts(devices=[], compiler={"cc": None, "python_h": None}))
    assert state["status"] == "interpreted"
    assert "interpreter" in info.render({**facts(), "kernels": state})


OLD_PAIR = {"versions": {"torch": "2.11.0", "triton": "3.6.0", "numpy": "2.5.5"}}


def test_an_interpreter_that_numpy_breaks_is_named_with_the_pair(monkeypatch):
    state = info.kernels(facts(**OLD_PAIR))
    assert state["status"] == "ready"
    assert "3.6.0" in state["notes"][0]
    assert "numpy 2.5.5" in state["notes"][0]
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    state = info.kernels(facts(**OLD_PAIR))
    assert state["status"] == "unavailable"
    assert "numpy 2.5.5" in state["reasons"][0]
    assert (
        info.kernels(facts(versions={**OLD_PAIR["versions"], "numpy": "2.3.5"}))["status"]
        == "interpreted"
    )
    assert info.kernels(facts(versions={"numpy": "2.5.5"}))["status"] == "interpreted"


def test_the_compiler_is_looked_for_where_triton_looks(monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("cc", "clang"):  # Triton asks for gcc and clang, never for cc
        assert toolchain.compiler()["cc"] is None
        (tmp_path / name).write_text("#!/bin/sh")
        (tmp_path / name).chmod(0o755)
    assert toolchain.compiler()["cc"] == str(tmp_path / "clang")


def test_a_missing_compiler_and_header_are_found_out(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    monkeypatch.setattr(toolchain.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert toolchain.compiler() == {"cc": None, "cc_named": str(tmp_path / "cc"), "python_h": None}


def test_the_report_of_a_gpu_machine_fits_one_look():
    found = facts()
    text = info.render({**found, "kernels": info.kernels(found)})
    for part in (
        "torch 2.13.0",
        "triton 3.7.1",
        "NVIDIA H100, 80.0 GiB, sm_90",
        "CUDA 13.0",
        "driver 580.10",
        "gcc",
        "bf16",
        "2.0 KiB",
    ):
        assert part in text, part
    assert len(text.splitlines()) < 20
    assert max(len(line) for line in text.splitlines()) < 120


def test_every_probe_may_fail(monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("no")

    for name in ("_platform", "_devices", "_cache", "_precision"):
        monkeypatch.setattr(info, name, broken)
    for name in ("versions", "driver"):
        monkeypatch.setattr(machine, name, broken)
    monkeypatch.setattr(toolchain, "compiler", broken)
    found = info.collect()
    json.dumps(found)
    assert "fastgan" in info.render(found)


def test_this_machine_from_the_command_line(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_bytes(b"12345")
    text = CliRunner().invoke(command)
    assert text.exit_code == 0, text.output
    assert "kernels" in text.output
    found = json.loads(CliRunner().invoke(command, ["--json"]).output)
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cache"] == {"path": str(tmp_path), "bytes": 5, "files": 1}
    assert found["kernels"]["status"] in ("ready", "interpreted", "unavailable")
    assert (found["kernels"]["status"] == "unavailable") == bool(found["kernels"]["reasons"])
