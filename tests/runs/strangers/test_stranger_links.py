"""What a run removes and replaces is its own: links, pipes, starts, the demo."""

import os
import shutil
import sys
import types
from pathlib import Path

import filelock
import pytest
from run_support import leftovers, tiny
from strangers import change, copied, one_line

import fastgan
from fastgan import files
from fastgan.errors import printable
from fastgan.monitor.loggers import Wandb
from fastgan.runs.run_folder import FOLDERS, NEEDED, OWN, RunFolder

TRAVERSAL = "traversal-class.png"
"""Which only runs with inputs to traverse have."""

# Links, pipes and other things that stand where a run has its files.


def snapshot(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", [*OWN, TRAVERSAL])
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


@pytest.mark.parametrize("name", [n for n in (*OWN, TRAVERSAL) if n not in FOLDERS])
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
