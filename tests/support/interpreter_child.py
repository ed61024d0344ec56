"""Kernel tests without a GPU: TRITON_INTERPRET is read when kernels are decorated, so they run in a
process of their own.

A test marked `@interpreted` is skipped in the parent and run by `run_child`, or by
`run_interpreted(__file__)`, which fails if one does not pass.
"""

import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastgan.kernels.common import INTERPRET, has_triton

interpreted = pytest.mark.skipif(not INTERPRET, reason="runs in the interpreter's process")
compiled = pytest.mark.skipif(
    INTERPRET or not has_triton, reason="compiles: needs Triton, and no interpreter in its place"
)
"""Run in the parent by every suite that has Triton; its child alone leaves them out."""
parent = pytest.mark.skipif(
    INTERPRET or not has_triton, reason="starts the interpreter's process, which needs Triton"
)


@functools.cache
def server() -> subprocess.Popen:
    """Where children are forked from; it ends with this process.

    No plugin of pytest is loaded there: importing them takes longer than many a test.
    """
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    env.pop("FASTGAN_IMPL", None)
    command = [sys.executable, str(Path(__file__).with_name("interpreter_server.py"))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    return subprocess.Popen(command, env=env, start_new_session=True, **pipes)


def run_child(*arguments: str | Path) -> str:
    """Runs pytest with these arguments where kernels are interpreted, and returns what it printed.
    Fails where it fails."""
    there = server()
    try:
        there.stdin.write(json.dumps([os.getcwd(), "-x", *map(str, arguments)]) + "\n")
        code, text = json.loads(there.stdout.readline() or '["none", "the server is gone"]')
    except BaseException:  # its answer, still to come, is not the next one's
        os.killpg(there.pid, signal.SIGKILL)
        server.cache_clear()
        raise
    if code == "none":
        server.cache_clear()
    assert code == 0, f"exit {code}: {text[-6000:]}"
    assert re.search(r"\d+ passed|\[100%\]", text), text[-6000:]
    return text


def run_interpreted(path: str) -> None:
    """Runs the `interpreted` tests (names contain "kernel") of the file `path` in a child
    process."""
    text = run_child("-v", "-W", "ignore", "-k", "_kernel", path)
    assert re.search(r"\d+ passed", text), text[-6000:]
    assert "skipped" not in text.splitlines()[-1], text[-6000:]
