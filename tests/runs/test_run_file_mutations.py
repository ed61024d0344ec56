"""One field of a run's files changed: it is used as before, or refused in one line."""

import json
import shutil
import tomllib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_support import images, tiny

import fastgan
from fastgan.cli import options
from fastgan.objectives import Linear
from fastgan.recipes.config import as_dict
from fastgan.recipes.dcgan import Dcgan
from fastgan.runs import toml
from fastgan.runs.checkpoint import Checkpoints, infinite, pack

WRONG = [
    None, True, -1, 0, 1.5, 2**63, 10**400, float("nan"), float("inf"), "", "x", "\ud800", "\0",
    [], {}, [[]], [None], {"x": 1}, {"$tensor": "x"}, {"$object": "x", "args": {}},
]  # fmt: skip
QUICK = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("mutated") / "run"
    data = fastgan.data.open(images(), labels=[i % 3 for i in range(21)])
    with tiny(path, schedules={"G": {"lr": Linear(1e-3, 0.0, 10)}}, data=data) as trainer:
        trainer.fit(2)
    return path


def places(tree, path=()):
    """Every place in a JSON tree."""
    yield path
    for key in tree if isinstance(tree, dict) else range(len(tree) if type(tree) is list else 0):
        yield from places(tree[key], (*path, key))


def changed(tree, path, value, drop):
    if not path:
        return value
    tree = json.loads(json.dumps(tree))
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return tree


def used(path):
    """Everything that reads a run without its script."""
    for use in (
        lambda: fastgan.load(path),
        lambda: fastgan.sample(path, 2, device="cpu"),
        lambda: fastgan.load(path, network="D", ema=False),
    ):
        try:
            use()
        except fastgan.FastganError as error:
            yield str(error)


@pytest.mark.parametrize("name", ["run.json", "checkpoints/step-00000002/state.json"])
@given(draw=st.data())
@QUICK
def test_one_field_of_a_json_file(name, run, draw):
    whole = (run / name).read_text()
    tree = json.loads(whole)
    knowing = draw.draw(st.booleans())  # of the checksum
    if knowing:
        tree.pop("checksum", None)
    place = draw.draw(st.sampled_from(sorted(places(tree), key=str)))
    wrong = changed(tree, place, draw.draw(st.sampled_from(WRONG)), draw.draw(st.booleans()))
    try:
        (run / name).write_text(json.dumps(wrong))
        said = list(used(run))
    finally:
        (run / name).write_text(whole)
    assert not any("\n" in line or len(line) > 2000 for line in said)
    if "state" in name and not knowing and wrong != tree and place != ("checksum",):
        assert len(said) == 3


@given(name=st.sampled_from(sorted(as_dict(Dcgan()))), value=st.sampled_from(WRONG))
@QUICK
def test_one_option_of_a_toml_file(name, value):
    try:
        file = tomllib.loads(toml.dumps({**as_dict(Dcgan()), name: value}))
    except (ValueError, AttributeError):
        return  # no TOML; what can't be read is another matter
    said = ""
    try:
        options.assemble(Dcgan, file, {}, "x.toml")
    except fastgan.FastganError as error:
        said = str(error)
    assert not said or (said.startswith(f"x.toml: {name} ") and "\n" not in said), said


@pytest.mark.parametrize("group", ["nets", "ema", "optimizers"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_all_saved_state_is_finite_or_the_checkpoint_is_damaged(group, bad, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    checkpoints = Checkpoints(copy / "checkpoints")
    groups, state = checkpoints.load()
    tree = groups[group]["G"]
    key = next(k for k in tree if isinstance(tree[k], (torch.Tensor, dict)))
    value = tree[key]
    while not isinstance(value, torch.Tensor):
        value = next(v for v in value.values() if isinstance(v, (torch.Tensor, dict)))
    value[(0,) * value.dim()] = bad
    assert infinite(groups).startswith(f"{group}/G/")
    checkpoints.save(state.pop("step"), groups, state)
    for said in used(copy):
        assert f"({group}/G/" in said
        assert "is not finite" in said
    assert len(list(used(copy))) == 3


def test_a_checkpoint_without_a_checksum_is_read(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    file = copy / "checkpoints/step-00000002/state.json"
    state = json.loads(file.read_text())
    del state["checksum"]
    file.write_text(json.dumps(state))
    assert not list(used(copy))
    assert pack({})  # what the sums are of


def test_moments_that_are_not_finite_end_a_run_before_they_are_saved(tmp_path):
    with tiny(tmp_path / "run") as trainer:
        trainer.fit(1)
        state = next(iter(trainer.active.optimizers["D"].state.values()))
        next(v for v in state.values() if isinstance(v, torch.Tensor) and v.numel() > 1)[:1] = (
            float("inf")
        )
        assert trainer.active.infinite().startswith("optimizers/D/")
