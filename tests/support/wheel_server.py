"""Runs `fastgan` commands of an installed wheel in forked children, so that torch is imported once.

Reads one JSON list a line, a folder and arguments, and writes one JSON object a line for each: the
child's exit code, its CPU seconds, and what it printed.
"""

import json
import os
import sys
import tempfile

import torch

import fastgan
from fastgan.cli.main import main

torch.set_num_threads(1)
print(json.dumps(fastgan.__file__), flush=True)
for line in sys.stdin:
    with tempfile.TemporaryFile() as printed:
        pid = os.fork()
        if pid == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            code = 1
            try:
                folder, *arguments = json.loads(line)
                os.chdir(folder)
                main(arguments)
            except SystemExit as done:
                code = int(done.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status, used = os.wait4(pid, 0)
        printed.seek(0)
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": used.ru_utime + used.ru_stime,
            "printed": printed.read().decode(errors="replace"),
        }
    print(json.dumps(answer), flush=True)
