"""A run folder from a stranger: it may be read, and nothing else; what a run removes and replaces
is its own."""

import copy
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from run_support import images, in_a_hurry, leftovers, rows, tiny
from torch import nn

import fastgan
from fastgan import files
from fastgan.cli import main as cli
from fastgan.errors import printable
from fastgan.monitor.loggers import Wandb
from fastgan.objectives import Linear
from fastgan.runs import serialize
from fastgan.runs.checkpoint import Checkpoints
from fastgan.runs.run_folder import FOLDERS, NEEDED, OWN, RunFolder
from fastgan.trainer import fingerprint
from fastgan.trainer.reuse.load import samples_of

HERE = Path(__file__).parents[1] / "support"
EVIL = (
    "import pathlib\npathlib.Path({canary!r}).write_text('ran')\ndef build(**_): pass\nclass "
    "Gen: pass\n"
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)  # what waits for a FIFO would wait for ever
    yield tmp_path
    signal.alarm(0)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def command(capfd):
    """command(args...) -> (exit code, standard output, standard error)."""

    def run(*args):
        capfd.readouterr()
        with pytest.raises(SystemExit) as done:
            cli.main([str(a) for a in args])
        out, err = capfd.readouterr()
        return done.value.code or 0, out, err

    return run


@pytest.fixture(scope="module")
def python_run(tmp_path_factory):
    """A run made from Python, with a schedule and everything else that run.json can hold."""
    path = tmp_path_factory.mktemp("stranger") / "run"
    torch.manual_seed(1)
    data = fastgan.data.open(images(), labels=[i % 3 for i in range(21)])
    with tiny(path, schedules={"G": {"lr": Linear(1e-3, 0.0, 10)}}, data=data) as trainer:
        trainer.fit(2)
    return path


@pytest.fixture(scope="module")
def command_run(tmp_path_factory):
    """A run of the command line whose schedule falls over --steps."""
    folder = tmp_path_factory.mktemp("command")
    np.save(folder / "images.npy", images(30))
    small = [
        "--size",
        "8",
        "--width",
        "2",
        "--latent",
        "4",
        "--batch-size",
        "4",
        "--n-critic",
        "1",
        "--log-every",
        "1",
    ]
    start = [
        "train",
        "--recipe",
        "wgan-gp",
        "--data",
        str(folder / "images.npy"),
        "--device",
        "cpu",
        *small,
        "--channels",
        "1",
    ]
    with pytest.raises(SystemExit) as done:
        cli.main([*start, "--steps", "2", "--out", str(folder / "run")])
    assert not done.value.code
    return folder / "run"


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


HUB = {
    "observer": {"$name": "torch.hub:load"},
    "repo_or_dir": "stranger",
    "model": "g",
    "source": "local",
}
HOSTILE = {
    "function": {"$name": "os:_exit"},
    "call": {"$object": "os:_exit", "args": {"status": 3}},
    "class": {"$object": "subprocess:Popen", "args": {"args": "touch canary", "shell": True}},
    "builtin": {"$object": "builtins:eval", "args": {"source": "1"}},
    "module in the folder": {"$object": "evil:Gen", "args": {}},
    "layer that calls": {
        "$object": "torch.ao.quantization.fake_quantize:FakeQuantize",
        "args": HUB,
    },
    "lazy": {"$object": "torch.nn.modules.linear:LazyLinear", "args": {"out_features": 3}},
    "under torch.nn": {"$object": "torch.nn.utils:evil", "args": {}},
    "torch.nn's imports": {"$object": "torch.nn.modules.module:torch.hub.load", "args": {}},
    "fastgan's imports": {"$object": "fastgan.models.dcgan:itertools.count", "args": {}},
    "fastgan's functions": {"$name": "fastgan.models.dcgan:init_weights"},
    "fastgan's other rooms": {
        "$object": "fastgan.trainer.optimization.optimizers:Ema",
        "args": {"nets": {"$dict": []}, "decay": 0},
    },
    "argument of a layer": {
        "$object": "torch.nn.modules.linear:Identity",
        "args": {"x": {"$name": "os:_exit"}},
    },
    "dtype": {"$dtype": "hub"},
    "container": {"$container": "functional", "children": []},
    "no name": {"$object": "", "args": {}},
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("where", ["network", "objective", "inside"])
def test_nothing_but_known_classes_is_made(kind, where, python_run, place):
    run, canary = copied(python_run, place), place / "canary"
    for folder in (
        run,
        place,
    ):  # the current folder, which python -m puts on the path, and the run's own
        (folder / "evil.py").write_text(EVIL.format(canary=str(canary)))
        (folder / "hubconf.py").write_text(EVIL.format(canary=str(canary)) + "def g(**_): pass\n")
    sys.path.insert(0, str(place))
    parts = {
        "network": lambda f: f["stages"][0]["nets"]["G"].update(spec=HOSTILE[kind]),
        "objective": lambda f: f["stages"][0]["objective"].update(spec=HOSTILE[kind]),
        "inside": lambda f: f["stages"][0]["objective"]["spec"]["args"].update(reuse=HOSTILE[kind]),
    }
    change(run, parts[where])
    uses = [lambda: fastgan.sample(run, 2, device="cpu"), lambda: samples_of(run, 2)]
    for use in [*uses, lambda: fastgan.load(run)][: 3 if where == "network" else 2]:
        said = one_line(use)
        assert "run.json" in said
        assert "no network" in said or "trust" in said or "damaged" in said
    assert not canary.exists()
    assert "evil" not in sys.modules


def test_every_layer_on_the_list_is_torch_s_and_keeps_plain_values():
    assert serialize.LAYERS.issubset(dir(nn))
    for name in serialize.LAYERS:
        assert issubclass(getattr(nn, name), nn.Module)
        assert not issubclass(getattr(nn, name), nn.modules.lazy.LazyModuleMixin)


CALLED = [
    {"$name": "os:_exit"},
    {"$name": "builtins:input"},
    {"$name": "ctypes:string_at"},
    {"$name": "evil:build"},
    {"$object": "torch.nn.modules.linear:Identity", "args": {}},
    {"$object": "evil:Gen", "args": {}},
    5,
    "x",
    [],
    None,
    {"$object": "fastgan.objectives.schedules:Constant", "args": {"value": "x"}},
]


@pytest.mark.parametrize("spec", CALLED, ids=str)
def test_a_schedule_of_a_file_is_not_called(spec, command_run, place, command):
    run = copied(command_run, place)
    (run / "evil.py").write_text(EVIL.format(canary=str(place / "canary")))
    change(run, lambda f: f["identity"]["stages"][0]["schedules"]["G"].update(lr=spec))
    code, out, err = command("train", "--resume", run, "--steps", 4)
    assert code == 0, err
    assert "lr goes on with" in out
    assert not (place / "canary").exists()


def test_what_a_file_names_is_printable(command_run, place, command):
    run = copied(command_run, place)
    change(run, lambda f: f["identity"]["stages"][0]["schedules"].update({"G\n\x1b[2J": {"lr": 5}}))
    code, out, err = command("train", "--resume", run, "--steps", 3)
    assert code == 0, err
    assert "G\\n\\x1b[2J" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("rate", [10**400, "x", None, [], {"lr": 10**400}])
def test_learning_rates_of_a_file_are_only_compared(rate, python_run, place):
    run = copied(python_run, place)
    change(
        run,
        lambda s: s["identity"]["optimizers"]["D"]["options"].update(lr=rate),
        "checkpoints/step-00000002/state.json",
    )
    data = fastgan.data.open(images(), labels=[i % 3 for i in range(21)])
    said = one_line(
        lambda: tiny(
            run,
            resume=True,
            schedules={"G": {"lr": Linear(1e-3, 0.0, 10)}},
            data=data,
            reschedule=True,
        )
    )
    assert "is damaged" in said or "can't go on" in said


def test_what_changed_before_is_a_list(command_run, place, command):
    run = copied(command_run, place)
    for changes in (5, None, {}, [5], "x"):
        change(run, lambda f, changes=changes: f.update(changes=changes))
        code, _, err = command("train", "--resume", run, "--steps", 4)
        assert (code, err.count("\n"), "run.json is damaged" in err) == (2, 1, True), err


def test_what_is_known_of_a_user_s_own_schedule_is_told():
    assert fingerprint.at({"$name": "math:sqrt"}, 4, ours=True) == "2"
    assert fingerprint.at({"$name": "math:sqrt"}, 4) == "one that can't be told"
    assert fingerprint.at(serialize.serialize(Linear(1.0, 0.0, 4)), 2) == "0.5"


# Running on with one's own networks.


PROJECT = """
from torch import nn
from layers import Last
class Gen(nn.Module):
    def __init__(self, latent):
        super().__init__()
        self.latent, self.net = latent, nn.Sequential(nn.ConvTranspose2d(latent, 4, 4), nn.ConvTranspose2d(4, 1, 4, 2, 1), Last())
    def forward(self, z):
        return self.net(z)
class Dis(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4), nn.Flatten())
def build(latent):
    return Gen(latent), Dis()
"""


@pytest.fixture
def project(place, monkeypatch):
    """A folder with somebody's own networks, and how a run of them is started there."""
    (place / "project").mkdir()
    (place / "project" / "mynets.py").write_text(PROJECT)
    (place / "project" / "layers.py").write_text(
        "from torch import nn\nclass Last(nn.Tanh): pass\n"
    )
    np.save(place / "images.npy", images(30))
    monkeypatch.chdir(place / "project")
    return [
        "train",
        "--recipe",
        "dcgan",
        "--data",
        place / "images.npy",
        "--latent",
        4,
        "--batch-size",
        8,
        "--device",
        "cpu",
        "--steps",
        2,
    ]


def forget(*names):
    """As a new process begins: nothing imported, the Python path as it was."""
    for name in names or ("mynets", "layers"):
        sys.modules.pop(name, None)
    sys.path[:] = [p for p in sys.path if not p.endswith("project")]


def test_own_networks_are_used_by_those_who_say_so(project, place, command, monkeypatch):
    assert command(*project, "--model", "mynets:build", "--out", place / "run")[0] == 0
    monkeypatch.chdir(place)  # from another folder: where the module lay is on record
    grid = ["sample", "run", "--n", 2, "--device", "cpu"]
    for refused in (
        grid,
        ["evaluate", "run", "--n", 100],
        ["train", "--resume", "run", "--steps", 3],
    ):
        forget()
        code, _, err = command(*refused)
        assert (code, err.count("\n")) == (2, 1), err
        assert "mynets:" in err
        assert "--trust" in err
        assert "mynets" not in sys.modules
        assert not any(p.endswith("project") for p in sys.path)
    forget()
    assert command(*grid, "--trust")[0] == 0
    forget()
    assert command("train", "--resume", "run", "--steps", 3, "--trust")[0] == 0
    forget()
    assert fastgan.load("run", trust=True)(torch.zeros(1, 4, 1, 1)).shape == (1, 1, 8, 8)
    monkeypatch.chdir(place / "project")
    forget()
    code, _, err = command(
        "train", "--resume", place / "run", "--steps", 4, "--model", "mynets:build"
    )
    assert code == 0, err
    monkeypatch.chdir(place)
    shutil.move(place / "project", place / "elsewhere")
    forget()
    code, _, err = command(*grid, "--trust")
    assert (code, err.count("\n")) == (2, 1), err
    assert f"lay in {place / 'project'}: put the folder" in err


def test_own_discriminators_do_not_matter_to_samples(project, place, command):
    (place / "project" / "mynets.py").write_text(
        PROJECT + "def build(): return nn.Sequential(*Gen(4).net[:2], nn.Tanh()), Dis()"
    )
    assert command(*project, "--model", "mynets:build", "--out", place / "run")[0] == 0
    forget()
    assert command("sample", place / "run", "--n", 2, "--device", "cpu")[0] == 0
    assert "trust=True" in one_line(lambda: fastgan.load(place / "run", network="D"))
    assert "mynets" not in sys.modules


def test_modules_that_lie_in_a_run_are_never_imported(project, place, command, monkeypatch):
    assert command(*project, "--model", "mynets:build", "--out", place / "run")[0] == 0
    run = place / "run"
    for name in ("mynets.py", "layers.py"):
        (run / name).write_text(EVIL.format(canary=str(place / "canary")))
    change(run, lambda f: f.update(modules={"mynets": str(run)}))
    monkeypatch.chdir(run)
    uses = [
        ["sample", ".", "--n", 2, "--trust"],
        ["train", "--resume", ".", "--steps", 3, "--trust"],
        ["train", "--resume", ".", "--steps", 3, "--model", "mynets:build"],
        ["train", "--config", "config.toml", "--out", place / "new", "--trust"],
        [
            "train",
            "--config",
            "config.toml",
            "--out",
            place / "new",
            "--model",
            "mynets:build",
            "--dry-run",
        ],
    ]
    for path, use in itertools.product(
        ([], [str(run)]), uses
    ):  # as the console script begins, and as python -m did
        forget()
        sys.path[:0] = path
        code, _, err = command(*use)
        sys.path[:] = [p for p in sys.path if p != str(run)]
        assert (code, err.count("\n")) == (2, 1), err
        assert "lies in a run folder" in err if path else "mynets" in err
        assert not (place / "canary").exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_model_that_a_file_names_is_not_imported_unasked(more, project, place, command):
    Path("mine.toml").write_text(
        'model = "mynets:build"\nrecipe = "dcgan"\nlatent = 4\nbatch_size = 8\nsteps = 2\n'
    )
    argv = [
        "train",
        "--config",
        "mine.toml",
        "--data",
        place / "images.npy",
        "--out",
        place / "run",
        "--device",
        "cpu",
        *more,
    ]
    code, _, err = command(*argv)
    assert (code, err.count("\n")) == (2, 1), err
    assert "--model mynets:build" in err
    assert "mynets" not in sys.modules
    assert command(*argv, "--model", "mynets:build")[0] == 0


def test_python_m_takes_no_module_from_the_current_folder(place):
    (place / "click.py").write_text(EVIL.format(canary=str(place / "canary")))
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "fastgan", "--help"], capture_output=True, env=environment, cwd=place
    )
    assert done.returncode == 0, done.stderr
    assert not (place / "canary").exists()


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


# Links, pipes and other things that stand where a run has its files.


def snapshot(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "other"])
def test_own_names_are_plain_files_and_folders(name, kind, command_run, place, command):
    run, outside = copied(command_run, place), place / "outside"
    outside.mkdir()
    for left in ("20240101.png", "00000002.png", ".partial-tax.pdf", "notes.txt"):
        (outside / left).write_text("precious")
    (outside / "step-00000001").mkdir()
    shutil.copytree(run / "checkpoints" / "step-00000000", outside / "step-00000000")
    files.remove(run / name)
    if kind == "link":
        (run / name).symlink_to(outside if name in FOLDERS else outside / "notes.txt")
    elif kind == "dangling":
        (run / name).symlink_to(outside / "new")
    elif kind == "pipe":
        os.mkfifo(run / name)
    elif name in FOLDERS:
        (run / name).write_text("x")
    else:
        (run / name).mkdir()
    before = snapshot(outside)
    for argv in (
        ["train", "--resume", run, "--steps", 3],
        ["sample", run, "--n", 1],
        ["train", "--resume", run, "--seed", 5],
    ):
        code, _, err = command(*argv)
        if argv[0] == "sample" and kind == "other" and name not in NEEDED:
            assert code == 0, "nothing outside is reached, and samples do not need it"
        else:
            assert (code, err.count("\n")) == (2, 1), err
    one_line(RunFolder(run).open)
    assert snapshot(outside) == before
    assert not (outside / "new").exists()


@pytest.mark.parametrize("name", [name for name in OWN if name not in FOLDERS])
def test_files_with_other_names_are_not_written(name, command_run, place, command):
    """cp -al: what is appended here would be appended there."""
    run = copied(command_run, place)
    (run / name).touch()
    os.link(run / name, place / "elsewhere")
    before = (place / "elsewhere").read_bytes()
    code, _, err = command("train", "--resume", run, "--steps", 3)
    assert (code, err.count("\n"), f"{name} is the same file as another one" in err) == (
        2,
        1,
        True,
    ), err
    assert command("sample", run, "--n", 1, "--device", "cpu")[0] == 0, "reading changes nothing"
    assert (place / "elsewhere").read_bytes() == before
    shutil.copy(place / "elsewhere", run / "copy")
    (run / "copy").rename(run / name)
    assert command("train", "--resume", run, "--steps", 3)[0] == 0
    assert (place / "elsewhere").read_bytes() == before


@pytest.mark.parametrize(
    "out",
    ["run.json", "checkpoints/", "checkpoints/step-00000002/state.json", "samples", "curves.png"],
)
def test_samples_do_not_go_where_a_run_has_its_own(out, command_run, place, command, monkeypatch):
    run = copied(command_run, place)
    (place / "aside").symlink_to(run)
    before = snapshot(run)
    monkeypatch.chdir(run)
    for path in (run / out, place / "aside" / out, out, f"samples/../{out}"):
        code, _, err = command("sample", run, "--n", 1, "--out", path)
        assert (code, err.count("\n"), "belongs to the run in" in err) == (2, 1, True), err
    assert snapshot(run) == before
    for path in ("mine.png", f"mine/{out}" if out.endswith(("/", ".png")) else f"mine/{out}.png"):
        assert command("sample", run, "--n", 1, "--device", "cpu", "--out", path)[0] == 0


def test_the_id_of_a_logger_is_read_and_written_in_the_run_only(place, monkeypatch):
    module = types.ModuleType("wandb")
    module.init = lambda **options: types.SimpleNamespace(id="other", finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", module)
    (place / "notes.txt").write_text("precious")
    (place / "wandb").mkdir()
    (place / "wandb" / "run-id").symlink_to(place / "notes.txt")
    with pytest.raises(OSError, match="it is a link"):
        Wandb(place, {}, 0)
    assert (place / "notes.txt").read_text() == "precious"


def test_a_lock_that_is_a_link_is_not_followed_by_a_start(place):
    (place / "notes.txt").write_text("precious")
    (place / "run").mkdir()
    (place / "run" / "run.lock").symlink_to(place / "notes.txt")
    assert "run.lock is a link" in one_line(lambda: tiny(place / "run"))
    assert (place / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["nets.safetensors", "state.json"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_files_of_a_checkpoint_are_plain(name, kind, python_run, place):
    run = copied(python_run, place)
    file = run / "checkpoints" / "step-00000002" / name
    moved = file.rename(place / name)
    file.symlink_to(moved) if kind == "link" else os.mkfifo(file)
    said = one_line(lambda: fastgan.load(run, step=2))
    assert "is damaged" in said or "there are 0" in said


@pytest.mark.skipif(not Path("/dev/urandom").exists(), reason="no such device here")
def test_options_come_from_a_file_of_bounded_size(place, command):
    os.mkfifo("pipe")
    with open("large.toml", "wb") as f:
        f.truncate(files.TEXT + 1)
    for name in ("pipe", "/dev/urandom", "/dev/zero", "large.toml", "."):
        code, _, err = command("train", "--config", name)
        assert (code, err.count("\n"), f"can't read {name}: " in err) == (2, 1, True), err
    Path("real.toml").write_text("steps = -1")
    Path("link.toml").symlink_to("real.toml")
    assert "link.toml: steps must be at least 1" in command("train", "--config", "link.toml")[2]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_names_that_no_file_can_have_are_one_line(name, python_run, place, command):
    uses = [
        lambda: fastgan.load(name),
        lambda: tiny(name),
        lambda: tiny(name, resume=True),
        lambda: fastgan.sample(name),
        lambda: RunFolder(name).exists(),
    ]
    assert all(printable(name)[:3] in one_line(use) for use in uses)
    for argv in (
        ["sample", name],
        ["train", "--resume", name],
        ["train", "--out", name],
        ["sample", python_run, "--out", name],
    ):
        code, _, err = command(*argv)
        assert (code, err.count("\n")) == (2, 1), err


def test_folders_that_can_t_be_looked_into_are_named(python_run, place, monkeypatch):
    def forbidden(path, **_):
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        for name in ("stat", "lstat"):
            patch.setattr(files.os, name, forbidden)
        said = one_line(lambda: fastgan.load(python_run))
    assert "Permission denied" in said
    assert "is not a run" not in said


# Starts.


def test_a_start_looks_again_when_it_holds_the_lock(place, monkeypatch):
    """Between its first look and the lock, another start trains a whole run."""
    run, take = place / "run", RunFolder._take_lock

    def late(folder):
        monkeypatch.setattr(RunFolder, "_take_lock", take)
        with tiny(run) as first:
            first.fit(6)
        late.before = snapshot(run)
        take(folder)

    monkeypatch.setattr(RunFolder, "_take_lock", late)
    assert "exists already" in one_line(lambda: tiny(run))
    after = snapshot(run)
    assert after.keys() == late.before.keys()
    assert {p for p in after if after[p] != late.before[p]} <= {run / "run.lock"}
    with tiny(run, resume=True) as again:
        assert again.step == 6


def test_a_lock_whose_file_was_removed_is_taken_anew(place, monkeypatch):
    """A start that waited for one that gave up must not hold a lock that nobody else sees."""
    lock, calls = filelock.lock_descriptor, []

    def removed(handle, **how):
        calls.append(how)
        if len(calls) == 1:
            (place / "run" / "run.lock").unlink()
        return lock(handle, **how)

    monkeypatch.setattr(filelock, "lock_descriptor", removed)
    first = tiny(place / "run")
    assert len(calls) == 2
    assert "is training" in one_line(RunFolder(place / "run").open)
    first.close()


def test_a_start_on_a_full_disk_leaves_nothing(place, monkeypatch):
    def full(f, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_all", full)
    assert "No space left on device" in one_line(lambda: tiny(place / "runs" / "new"))
    assert list(place.iterdir()) == []


# The demo.


def demo(command, out, *more):
    return command("demo", "--out", out, "--steps", 1, *more)


def test_a_demo_is_replaced_and_nothing_else_is(place, command, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    assert demo(command, "~/demo")[0] == 0
    assert (place / "demo" / "run.json").is_file()
    assert demo(command, "~/demo")[0] == 0
    kept = Path(shutil.copytree(place / "demo", place / "more"))
    (kept / "notes.txt").write_text("precious")
    gone_on = Path(shutil.copytree(place / "demo", place / "on"))
    assert command("train", "--resume", gone_on, "--steps", 2)[0] == 0
    longer = Path(shutil.copytree(place / "demo", place / "longer"))
    shutil.copytree(
        longer / "checkpoints" / "step-00000001", longer / "checkpoints" / "step-00000005"
    )
    own = Path(shutil.copytree(place / "demo", place / "own"))
    change(own, lambda f: f.pop("demo"))
    linked = Path(shutil.copytree(place / "demo", place / "linked"))
    shutil.rmtree(linked / "samples")
    (linked / "samples").symlink_to(kept)
    for run in (kept, gone_on, longer, own, linked):
        before = snapshot(run)
        code, _, err = demo(command, run)
        assert (code, err.count("\n")) == (2, 1), err
        assert "is not a demo" in err or "is a link" in err
        assert {p: v for p, v in snapshot(run).items() if p.name != "run.lock"} == {
            p: v for p, v in before.items() if p.name != "run.lock"
        }
    assert leftovers(place) == []
