"""Nothing but known classes is made of a run folder from a stranger, and no module is found there."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from run_support import images, tiny
from strangers import change, copied, one_line
from torch import nn

import fastgan
from fastgan.objectives import Linear
from fastgan.runs import serialize
from fastgan.trainer import fingerprint
from fastgan.trainer.reuse.load import samples_of

HERE = Path(__file__).parents[2] / "support"
EVIL = (
    "import pathlib\npathlib.Path({canary!r}).write_text('ran')\ndef build(**_): pass\nclass "
    "Gen: pass\n"
)


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
