"""Commands of fastgan in children of a server that has imported it, and their events."""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TINY = [
    "--recipe",
    "gan",
    "--hidden-g",
    "8",
    "--hidden-d",
    "4",
    "--latent",
    "4",
    "--batch-size",
    "8",
    "--device",
    "cpu",
]
EVERY_STEP = ["--checkpoint-every", "1", "--log-every", "2", "--sample-every", "5", "--keep", "2"]


class Server:
    """Talks to fork_server.py: one child at a time."""

    def __init__(self, folder):
        self.log = folder / "log"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, HERE / "fork_server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=folder,
            env=environment,
        )

    def begin(self, argv, **options):
        """Start `fastgan argv`; returns its pid."""
        self.log.write_text("")
        self.say(json.dumps({"argv": argv, "log": str(self.log), **options}))
        return int(self.expect("pid"))

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def event(self):
        line = self.process.stdout.readline()
        assert line, "the server is gone"
        return line.split()

    def expect(self, word):
        """The argument of the next event, which must be `word`."""
        event = self.event()
        assert event[0] == word, (event, self.log.read_text())
        return event[1]

    def until_started(self, go=True):
        """All events until a trainer is ready; lets it go on."""
        events = [self.event()]
        while events[-1][0] != "started":
            assert events[-1][0] != "ended", self.log.read_text()
            events.append(self.event())
        if go:
            self.say("go")
        return events

    def until_end(self):
        """All events up to the end, and the exit status."""
        events = []
        while (event := self.event())[0] != "ended":
            events.append(event)
        return events, int(event[1])

    def run(self, argv, **options):
        """A whole command: (step it began at, exit status)."""
        self.begin(argv, **options)
        event, step = self.event(), None
        if event[0] == "started":
            step = int(event[1])
            self.say("go")
            return step, self.until_end()[1]
        return step, int(event[1])


def command(out, steps):
    return [
        "train",
        *TINY,
        *EVERY_STEP,
        "--data",
        "images.npy",
        "--out",
        str(out),
        "--steps",
        str(steps),
    ]
