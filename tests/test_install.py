"""What `make setup` chooses, with stand-ins for the machine; no network."""

import importlib.util
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
install = importlib.util.module_from_spec(spec)
spec.loader.exec_module(install)


def never():
    raise AssertionError("asked for nothing")


def answering(code, text):
    return lambda *_, **__: SimpleNamespace(returncode=code, stdout=text)


def failing(error):
    def run(*_, **__):
        raise error

    return run


def test_a_gpu_is_seen_by_its_tool_or_its_driver(tmp_path):
    nowhere = str(tmp_path / "none")
    assert install.has_gpu(answering(0, "GPU 0: NVIDIA H100"), nowhere)
    for run in (
        answering(9, "NVIDIA-SMI has failed"),
        answering(0, "No devices were found"),
        failing(FileNotFoundError()),
        failing(subprocess.TimeoutExpired("nvidia-smi", 10)),
    ):
        assert not install.has_gpu(run, nowhere)
        assert not install.has_gpu(run, str(tmp_path))
    (tmp_path / "0000:01:00.0").mkdir()
    assert install.has_gpu(failing(FileNotFoundError()), str(tmp_path))


def test_the_cpu_build_is_chosen_only_where_it_answers_and_is_needed():
    assert install.choose(True, "Linux", never)[0] is False
    assert install.choose(False, "Darwin", never)[0] is False
    assert install.choose(False, "Linux", lambda: True)[0] is True
    chosen, why = install.choose(False, "Linux", lambda: False)
    assert chosen is False
    assert "pip is configured" in why


def test_what_comes_is_said_with_its_size():
    assert "600 MB" in install.announcement(False, True, "Linux", "x")
    assert "3,100 MB" in install.announcement(True, False, "Linux", "x")
    assert "up to 3,100 MB" in install.announcement(False, False, "Linux", "x")


@pytest.mark.parametrize("error", [OSError("no route"), TimeoutError(), ValueError("proxy")])
def test_a_failing_probe_is_a_no(error, monkeypatch):
    monkeypatch.setattr(install.urllib.request, "urlopen", failing(error))
    assert install.reachable() is False


def test_a_probe_that_hangs_is_a_no(monkeypatch):
    wait = threading.Event()
    monkeypatch.setattr(install.urllib.request, "urlopen", lambda url: wait.wait())
    assert install.reachable(seconds=0.05) is False
    wait.set()


def test_half_an_environment_is_removed(tmp_path, capsys):
    half = tmp_path / "venv"
    assert install.main(str(half), lambda command: half.mkdir() or 1) == 2
    assert not half.exists()
    assert "python3-venv" in capsys.readouterr().err


def test_uv_is_used_where_pip_has_no_settings_that_it_would_miss():
    assert install.installers("py", None, False)[0][1:3] == ["-m", "pip"]
    assert [command[0] for command in install.installers("py", "uv", False)] == ["uv", "py"]
    assert [command[0] for command in install.installers("py", "uv", True)] == ["py"]
    assert install.own_settings({"PIP_INDEX_URL": "x"}, "")
    assert install.own_settings({}, "global.find-links='/wheels'")
    assert not install.own_settings({"PIP_DISABLE_PIP_VERSION_CHECK": "1"}, "global.timeout='60'")


@pytest.mark.parametrize("cpu_fails", [False, True])
def test_a_failing_index_falls_back_to_pips_own(cpu_fails, tmp_path, monkeypatch, capsys):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    monkeypatch.setattr(install, "has_gpu", lambda: False)
    monkeypatch.setattr(install, "reachable", lambda: True)
    monkeypatch.setattr(install, "said", lambda command: "")
    monkeypatch.setattr(install.platform, "system", lambda: "Linux")
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    calls = []

    def call(command):
        calls.append(command)
        return int(cpu_fails and install.CPU_INDEX in command)

    assert install.main(str(tmp_path), call) == 0
    assert install.CPU_INDEX in calls[0]
    assert calls[0][-1].startswith("torch==")
    assert calls[-1][-2:] == ["--editable", f"{ROOT}[dev]"]
    assert install.CPU_INDEX not in calls[-1]
    assert ("failed" in capsys.readouterr().out) == cpu_fails


def test_torch_that_is_there_is_not_asked_for_again(tmp_path, monkeypatch, capsys):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    torch = install.pins((ROOT / "constraints.txt").read_text())["torch"]
    monkeypatch.setattr(install, "said", lambda command: f"{torch}+cpu" if "-c" in command else "")
    monkeypatch.setattr(install, "has_gpu", never)
    calls = []
    assert install.main(str(tmp_path), lambda command: calls.append(command) or 3) == 3
    assert len(calls) == 1 or install.shutil.which("uv")
    assert "is installed" in capsys.readouterr().out
