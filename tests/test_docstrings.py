"""The public names: each docstring has the sections that fit it, stays within 100 columns, and its
example runs."""

import doctest
import inspect

import pytest

import fastgan

NAMES = sorted(fastgan.__all__)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))


def test_every_public_name_is_tested():
    assert len(NAMES) >= 13


@pytest.mark.parametrize("name", NAMES)
def test_example_runs(name):
    thing = getattr(fastgan, name)
    (example,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
    assert example.examples, f"{name} shows no example"
    said: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert outcome.failed == 0, "".join(said)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_described(name):
    thing = getattr(fastgan, name)
    text = inspect.getdoc(thing)
    described = {
        line.strip().partition(":")[0] for line in text.splitlines() if line.startswith("    ")
    }
    if name not in (
        "Callback",
        "FastganError",
        "Objective",
    ):  # which are not called with arguments of their own
        missing = [name for name in inspect.signature(thing).parameters if name not in described]
        assert not missing
        assert "\nArgs:\n" in text
    if inspect.isfunction(thing):
        assert "\nReturns:\n" in text


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_100_columns(name):
    assert max(map(len, inspect.getdoc(getattr(fastgan, name)).splitlines())) <= 96
