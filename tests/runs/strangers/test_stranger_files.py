"""run.json, state.json and rows of a stranger: changed ones give a run or one line."""

import copy
import itertools
import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from run_support import images, rows, tiny
from strangers import copied, one_line

import fastgan
from fastgan.objectives import Linear
from fastgan.runs.checkpoint import Checkpoints
from fastgan.runs.run_folder import RunFolder
from fastgan.trainer import fingerprint
from fastgan.trainer.reuse.load import samples_of

# Fields of run.json and state.json.


VALUES = [
    None,
    True,
    -1,
    0,
    7,
    1.5,
    10**30,
    float("nan"),
    "",
    "x\ny",
    "torch.hub:load",
    [],
    {},
    [[]],
    [None],
    {"x": 1},
    {"$name": "os:_exit"},
    {"$tuple": 5},
    {"$dict": [[1]]},
    {"spec": {"$object": 5}},
    {"why_not": 3},
]


def fields(tree, path=()):
    """Paths of everything in a JSON tree."""
    yield path
    inner = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in inner:
        yield from fields(value, (*path, key))


def mutations(tree, values):
    """(what was changed, the changed tree): every field replaced by each value, and each left
    out."""
    for path in fields(tree):
        for value in [*values, KeyError]:
            if not path:
                if value is not KeyError:
                    yield f"all = {value!r}", value
                continue
            changed = copy.deepcopy(tree)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            if value is KeyError:
                del holder[path[-1]]
            else:
                holder[path[-1]] = value
            yield f"{path} = {value!r}", changed


def harmless(use, what):
    """Whether `use` is done or ends in one line; anything else fails."""
    try:
        use()
    except fastgan.FastganError as error:
        if "\n" not in str(error):
            return False
        raise AssertionError(f"{what}: two lines: {error}") from error
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return True


@pytest.fixture
def cheap(monkeypatch):
    """Checkpoints that are read once: what is tried below is run.json."""
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    read, kept = Checkpoints.load, {}
    monkeypatch.setattr(
        Checkpoints, "load", lambda c, step=None: copy.copy(kept.setdefault(step, read(c, step)))
    )


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.long)])
def test_a_changed_run_json_gives_images_or_one_line(every, python_run, place, cheap):
    signal.alarm(600)
    run = copied(python_run, place)
    facts = json.loads((run / "run.json").read_text())
    now = copy.deepcopy(facts["identity"])
    tried = passed = 0

    def resume():
        folder = RunFolder(run)
        then = folder.facts()["identity"]
        fingerprint.reschedule(then, now, 2)
        fingerprint.compare(then, now, run)

    for what, changed in itertools.islice(mutations(facts, VALUES), 0, None, every):
        (run / "run.json").write_text(json.dumps(changed))
        tried += 1
        if what.startswith("('identity'"):
            passed += harmless(resume, what)
            continue
        passed += harmless(lambda: fastgan.load(run), what)
        passed += harmless(lambda: samples_of(run, 1), what)
    assert tried > 6000 // every
    assert passed > 600 // every
    print(f"{tried} mutations of run.json, 0 tracebacks")


def test_files_that_are_no_json_are_named(python_run, place, command):
    run = copied(python_run, place)
    for text in (
        "",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 900 + "]" * 900,
        "9" * 5000,
        "\udcff",
        "null",
    ):
        (run / "run.json").write_bytes(text.encode(errors="surrogateescape"))
        code, _, err = command("sample", run, "--n", 1)
        assert (code, err.count("\n"), "run.json is damaged" in err) == (2, 1, True), err
    for text in ("a = " + "[" * 2000, "steps = " + "9" * 5000):
        Path("deep.toml").write_text(text)
        code, _, err = command("train", "--config", "deep.toml")
        assert (code, err.count("\n"), "is not TOML" in err) == (2, 1, True), err


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_changed_state_json_gives_a_run_or_one_line(every, python_run, place):
    signal.alarm(600)
    run = copied(python_run, place)
    path = run / "checkpoints" / "step-00000002" / "state.json"
    state = json.loads(path.read_text())
    tried = 0
    short = [None, -1, "x", [], {"x": 1}]
    for what, changed in itertools.islice(mutations(state, short), 0, None, every):
        path.write_text(json.dumps(changed))
        tried += 1
        harmless(lambda: fastgan.sample(run, 1, device="cpu"), what)
    assert tried > 1500 // every
    print(f"{tried} mutations of state.json, 0 tracebacks")
    for key, value in itertools.product(state, short[::2] if every > 1 else short):
        path.write_text(json.dumps({**state, key: value}))
        for name in ("metrics.jsonl", "metrics.csv"):
            (run / name).unlink(missing_ok=True)
        data = fastgan.data.open(images(), labels=[i % 3 for i in range(21)])

        def resume(data=data):
            tiny(
                run, resume=True, schedules={"G": {"lr": Linear(1e-3, 0.0, 10)}}, data=data
            ).close()

        harmless(resume, f"resume, {key} = {value!r}")


def test_rows_that_are_none_are_dropped(place):
    folder = RunFolder(place / "run")
    folder.create()
    for torn in (
        '{"step": "x"}',
        "null",
        "[1]",
        "[" * 100_000,
        '{"step": 2, "loss": "x"}',
        '{"step": 2, "a": [1]}',
        "7",
    ):
        folder.metrics.write_text('{"step": 1}\n' + torn + '\n{"step": 3}\n')
        folder.rewind(5)
        assert rows(folder.metrics) == [{"step": 1}, {"step": 3}]
    folder.metrics.write_text('{"step": 1, "\\ud800": 2}\n')
    folder.rewind(5)
    folder.close()


def test_a_checkpoint_under_another_name_is_none(place):
    checkpoints = Checkpoints(place / "checkpoints")
    real = checkpoints.save(3, {}, {})
    for name in ("step-5", "step-٠٠٠٠٠٠٠٥", f"step-{'9' * 5000}"[:200]):
        shutil.copytree(real, place / "checkpoints" / name)
    (place / "checkpoints" / "step-00000007").symlink_to(real)
    assert checkpoints.steps() == [3]
    shutil.copytree(real, place / "checkpoints" / "step-00000009")
    assert "says it is of step 3" in one_line(checkpoints.load)
