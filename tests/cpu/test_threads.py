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


def test_a_busy_machine_is_named(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0, 0), raising=False)
    assert "load 3.0 on 2 cores" in threads.busy(2)
    assert threads.busy(8) is None
    monkeypatch.delattr(os, "getloadavg")  # Windows
    assert threads.busy(2) is None
