"""A stranger's run: copied, changed, and what may be said of it."""

import json
import shutil
from pathlib import Path

import pytest

import fastgan


def copied(run, place):
    return Path(shutil.copytree(run, place / "stranger"))


def change(run, edit, name="run.json"):
    path = next(run.glob(name))
    facts = json.loads(path.read_text())
    edit(facts)
    facts.pop("checksum", None)  # as of a checkpoint of before it, or of somebody who knows it
    path.write_text(json.dumps(facts))


def one_line(use):
    with pytest.raises(fastgan.FastganError) as error:
        use()
    assert "\n" not in str(error.value)
    return str(error.value)
