"""Runs pytest in forked children of a process whose kernels are interpreted, so that torch and
fastgan are imported once.

Reads one JSON list a line, a folder and pytest's arguments, and writes one JSON list a line: the
child's exit code, and what it printed.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # this checkout, as pytest has it

OURS = ("fastgan.acceleration", "fastgan.trainer.trainer", "fastgan.verify")
TORCHS = ("torch._dynamo", "torch.testing._internal.optests")
for module in (*OURS, *TORCHS):
    importlib.import_module(module)

SECONDS = 600
"""After which a child is killed."""

torch.set_num_threads(1)
for line in sys.stdin:
    with tempfile.TemporaryFile() as printed:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.alarm(SECONDS)
                os.dup2(printed.fileno(), 1)
                os.dup2(printed.fileno(), 2)
                folder, *arguments = json.loads(line)
                os.chdir(folder)
                code = int(pytest.main(arguments))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        printed.seek(0)
        answer = [os.waitstatus_to_exitcode(status), printed.read().decode(errors="replace")]
    print(json.dumps(answer), flush=True)
