"""Threads wait quietly unless the user says otherwise, and a busy machine is named."""

import os
import subprocess
import sys

import pytest

from fastgan.cpu import threads


@pytest.mark.parametrize("own", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}])
def test_waiting_is_set_before_torch_and_not_over_the_users(own):
    code = (
        "import os, sys; from fastgan.cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, os.environ.get('OMP_WAIT_POLICY'))"
    )
    clean = {k: v for k, v in os.environ.items() if k not in threads.OWN}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **own}, capture_output=True, text=True
    )
    wanted = "PASSIVE" if not own else own.get("OMP_WAIT_POLICY")
    assert done.stdout.splitlines()[-1] == f"False {wanted}"


@pytest.fixture
def groups(tmp_path):
    """Write control groups as Linux shows them: {file below the root: text}."""

    def write(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            file = tmp_path / "root" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return threads.quota(tmp_path / "own", tmp_path / "root")

    return write


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/pod/one\n", {"pod/cpu.max": "400000 100000", "pod/one/cpu.max": "max 100000"}, 4),
        ("0::/gone/inside\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("4:memory:/a\n2:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1"}, None),
        (
            "2:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("0::/\n", {}, None),
    ],
)
def test_a_containers_share_is_read(groups, own, files, wanted):
    assert groups(own, files) == wanted


def test_no_system_of_groups_is_no_limit(tmp_path):
    assert threads.quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("share", "set_by_user", "wanted"),
    [(2.5, {}, "2"), (0.5, {}, "1"), (8.0, {}, None), (None, {}, None)]
    + [(2.5, {name: "3"}, {"OMP_NUM_THREADS": "3"}.get(name)) for name in threads.NUMBERS],
)
def test_torch_gets_the_threads_that_a_container_has_time_for(
    monkeypatch, share, set_by_user, wanted
):
    monkeypatch.setattr(os, "environ", dict(set_by_user))
    monkeypatch.setattr(threads, "quota", lambda: share)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    threads.stay_within_quota()
    assert os.environ.get("OMP_NUM_THREADS") == wanted


def test_a_busy_machine_is_named(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0, 0), raising=False)
    assert "load 3.0 on 2 cores" in threads.busy(2)
    assert threads.busy(8) is None
    monkeypatch.delattr(os, "getloadavg")  # Windows
    assert threads.busy(2) is None
