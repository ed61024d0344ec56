"""Checkpoints first: what is saved when, and that nothing a run can do without ends its
training."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from run_support import assert_same_run, images, in_a_hurry, newest, rows, tiny

import fastgan
from fastgan import files
from fastgan.cli import main as cli
from fastgan.runs.checkpoint import Checkpoints
from fastgan.trainer.graceful_stop import GracefulStop


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    in_a_hurry(monkeypatch)


def checkpoints(path):
    return Checkpoints(Path(path) / "checkpoints").steps()


def in_the_way(path):
    """A folder where a file is to be written."""
    if path.is_file():
        path.unlink()
    (path / "not empty").mkdir(parents=True)


ACCESSORIES = {
    "samples are a file": (
        "samples",
        lambda run: (shutil.rmtree(run / "samples"), (run / "samples").write_text("")),
    ),
    "one sample": ("00000007.png", lambda run: in_the_way(run / "samples" / "00000007.png")),
    "curves": ("curves.png", lambda run: in_the_way(run / "curves.png")),
    "report": ("report.html", lambda run: in_the_way(run / "report.html")),
    "table": ("metrics.csv", lambda run: in_the_way(run / "metrics.csv")),
    "rows": ("metrics.jsonl", lambda run: in_the_way(run / "metrics.jsonl")),
    "alerts": ("alerts.jsonl", lambda run: in_the_way(run / "alerts.jsonl")),
}


@pytest.mark.parametrize("case", ACCESSORIES)
def test_what_a_run_can_do_without_costs_one_line(case, tmp_path, capsys):
    name, break_it = ACCESSORIES[case]
    with tiny(tmp_path / "run", checkpoint_every=50) as trainer:
        break_it(tmp_path / "run")
        trainer.fit(12)
    assert checkpoints(tmp_path / "run") == [0, 12]
    lines = capsys.readouterr().err.splitlines()
    assert len(set(lines)) == len(lines) == (2 if case == "rows" else 1), (
        lines
    )  # rows: of what reads them, too
    assert all(name in line and line.startswith("fastgan: can't ") for line in lines)
    fastgan.load(tmp_path / "run")


def test_a_folder_of_pictures_that_was_tidied_up_is_made_again(tmp_path, capsys):
    with tiny(tmp_path / "run") as trainer:
        shutil.rmtree(tmp_path / "run" / "samples")
        trainer.fit(7)
    assert [p.name for p in (tmp_path / "run" / "samples").iterdir()] == ["00000007.png"]
    assert capsys.readouterr().err == ""


def test_pictures_come_early_and_a_resumed_run_has_the_same(tmp_path):
    rare = {"sample_every": 60, "checkpoint_every": 1000, "log_every": 60}
    with tiny(tmp_path / "run", **rare) as trainer:
        trainer.fit(49)
    with tiny(tmp_path / "run", resume=True, **rare) as trainer:
        trainer.fit(60)
    made = sorted(int(p.stem) for p in (tmp_path / "run" / "samples").iterdir())
    assert made == [0, 49, 50, 60], "49 is where it stopped"


def test_rows_that_could_not_be_written_come_later(tmp_path, capsys):
    with tiny(tmp_path / "run", log_every=1) as trainer:
        in_the_way(tmp_path / "run" / "metrics.jsonl")
        trainer.fit(2)
        shutil.rmtree(tmp_path / "run" / "metrics.jsonl")
        trainer.fit(4)
    assert [row["step"] for row in rows(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4]
    assert "can't write" in capsys.readouterr().err


def test_the_checkpoint_comes_before_the_picture(tmp_path, monkeypatch):
    """Whatever happens while a picture is made, memory running out too."""

    def fail(*_, **__):
        raise MemoryError

    with tiny(tmp_path / "run", sample_every=5, checkpoint_every=5) as trainer:
        monkeypatch.setattr(trainer, "sample", fail)
        with pytest.raises(fastgan.FastganError, match="memory"):
            trainer.fit(9)
    assert checkpoints(tmp_path / "run") == [0, 5]
    with tiny(tmp_path / "run", resume=True, sample_every=5, checkpoint_every=5):
        assert (tmp_path / "run" / "samples" / "00000005.png").is_file(), (
            "made when the run goes on"
        )


def test_pictures_that_can_not_be_removed_do_not_keep_a_run_from_going_on(tmp_path, capsys):
    tiny(tmp_path / "run").close()
    in_the_way(tmp_path / "run" / "samples" / "00000003.png")
    with tiny(tmp_path / "run", resume=True) as trainer:
        trainer.fit(2)
    assert "can't remove" in capsys.readouterr().err


def test_a_save_by_time_takes_the_place_of_one_checkpoint_only(tmp_path):
    with tiny(tmp_path / "run", checkpoint_every=4, keep=2, checkpoint_minutes=1e-9) as trainer:
        for steps, kept in ((1, [0, 1]), (3, [1, 3]), (4, [3, 4]), (7, [4, 7])):
            trainer.fit(steps)
            assert checkpoints(tmp_path / "run") == kept, (
                "the end of each fit is a checkpoint of its own"
            )
    seen = []
    with tiny(tmp_path / "long", checkpoint_every=4, keep=2, checkpoint_minutes=1e-9) as trainer:
        trainer.reporter.sync = lambda: seen.append(checkpoints(tmp_path / "long"))
        trainer.fit(10)
    assert seen == [[0], [0, 1], [0, 2], [0, 3], [0, 4], [4, 5], [4, 6], [4, 7], [4, 8], [8, 9]]
    assert checkpoints(tmp_path / "long") == [8, 10]


def test_saving_by_time_changes_no_number(tmp_path):
    for name, minutes in (("often", 1e-9), ("never", 0)):
        torch.manual_seed(1)
        with tiny(tmp_path / name, checkpoint_minutes=minutes) as trainer:
            trainer.fit(13)
    assert_same_run(tmp_path / "often", tmp_path / "never")
    shutil.copytree(tmp_path / "often", tmp_path / "cut")
    for path in (tmp_path / "cut" / "checkpoints").iterdir():
        if path.name not in ("step-00000012",):
            shutil.rmtree(path)
    with tiny(tmp_path / "cut", resume=True) as trainer:
        assert trainer.step == 12
        trainer.fit(13)
    assert_same_run(tmp_path / "cut", tmp_path / "never")


def test_at_most_ten_minutes_are_lost_by_default(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    seen = []
    with tiny(tmp_path / "run", checkpoint_every=10**6, log_every=100) as trainer:
        save = trainer.folder.checkpoints.save
        trainer.folder.checkpoints.save = lambda step, *rest: (seen.append(step), save(step, *rest))
        take = trainer.active.train_step
        trainer.active.train_step = lambda step: (clock.__setitem__(0, clock[0] + 240), take(step))[
            1
        ]
        trainer.fit(10)
    assert seen == [3, 6, 9, 10]
    with pytest.raises(fastgan.FastganError, match="checkpoint_minutes must be a finite number"):
        tiny(tmp_path / "new", checkpoint_minutes=float("nan"))


@pytest.fixture
def hearing():
    """SIGHUP is not ignored, in whatever way the tests were started; children inherit that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hearing")
@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGTERM"])
def test_signals_that_ask_to_end_save_first(name, tmp_path):
    with tiny(tmp_path / "run", checkpoint_every=10**6) as trainer:
        take = trainer.active.train_step
        trainer.active.train_step = lambda step: (
            step == 5 and os.kill(os.getpid(), signal.Signals[name]),
            take(step),
        )[1]
        trainer.fit(100)
        assert (trainer.stopped_by, trainer.step) == (name, 6)
    assert checkpoints(tmp_path / "run") == [0, 6]


def test_ignored_signals_stay_ignored():
    """nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulStop() as wish:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert wish.name == "SIGUSR1"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_starter_that_was_killed_is_a_wish_to_stop():
    """torchrun, killed with -9, tells its processes nothing."""
    with GracefulStop(parent=os.getppid()) as wish:
        assert wish.name is None
    read, write = os.pipe()
    starter = os.fork()
    if starter == 0:
        parent = os.getpid()
        if os.fork() == 0:
            with GracefulStop(parent) as wish:
                os.write(write, b"ready")
                while wish.name is None:
                    time.sleep(0.01)
                os.write(write, wish.name.encode())
            os._exit(0)
        time.sleep(60)
        os._exit(0)
    os.close(write)
    assert os.read(read, 5) == b"ready"
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    assert os.read(read, 9) == b"SIGHUP"


@pytest.mark.usefixtures("hearing")
def test_a_closed_terminal_saves(tmp_path):
    """SIGHUP, and from then on every write to the terminal fails."""
    np.save(tmp_path / "images.npy", images(30))
    small = [
        "--hidden-g",
        "8",
        "--hidden-d",
        "4",
        "--latent",
        "4",
        "--batch-size",
        "8",
        "--data",
        "images.npy",
    ]
    argv = [
        "train",
        "--recipe",
        "gan",
        *small,
        "--log-every",
        "2",
        "--out",
        "run",
        "--steps",
        "1000000",
        "--device",
        "cpu",
    ]
    master, terminal = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "fastgan", *argv],
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(terminal)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and child.poll() is None:
        time.sleep(0.02)
    assert child.poll() is None, os.read(master, 9999)
    os.close(master)
    child.wait(30)
    assert checkpoints(tmp_path / "run")[-1] > 0


def command(capfd, *args):
    capfd.readouterr()
    with pytest.raises(SystemExit) as done:
        cli.main([str(a) for a in args])
    return done.value.code or 0, *capfd.readouterr()


def test_the_way_out_of_a_divergence_is_a_command_that_works(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", images(30, 16))
    small = [
        "--data",
        "images.npy",
        "--base-width",
        2,
        "--latent",
        4,
        "--batch-size",
        4,
        "--device",
        "cpu",
        "--log-every",
        1,
    ]
    start = ["train", *small, "--lr-d", "1e30", "--lr-g", "1e-4", "--out", "my run", "--steps", 40]
    code, _, err = command(capfd, *start)
    assert (code, "training diverged" in err) == (2, True)
    said = re.search(r"fastgan (train --resume .*)", err.splitlines()[-1]).group(1)
    assert shlex.split(said) == [
        "train",
        "--resume",
        "my run",
        "--lr-g",
        "5e-05",
        "--lr-d",
        "5e+29",
    ]
    assert command(capfd, *shlex.split(said))[0] == 2, (
        "accepted, but half of 1e30 is still too much"
    )
    code, out, err = command(capfd, "train", "--resume", "my run", "--lr-d", "1e-4", "--steps", 3)
    assert code == 0, err
    said = "G: lr goes on with 5e-05 instead of 0.0001; D: lr goes on with 0.0001 instead of 1e+30"
    assert f"changed from step 0 on, of 3: {said}\n" in out
    groups, _ = Checkpoints(tmp_path / "my run" / "checkpoints").load()
    assert [groups["optimizers"][net]["param_groups"][0]["lr"] for net in "GD"] == [5e-5, 1e-4]
    code, out, _ = command(capfd, "train", "--resume", "my run", "--steps", 5)
    assert (code, "changed" in out) == (0, False)
    assert '"what": "G: lr goes on with 5e-05' in (tmp_path / "my run" / "run.json").read_text()


def test_a_scheduled_rate_may_change_too(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", images(30))
    small = [
        "--data",
        "images.npy",
        "--hidden-g",
        8,
        "--hidden-d",
        4,
        "--latent",
        4,
        "--batch-size",
        8,
        "--device",
        "cpu",
    ]
    assert command(capfd, "train", "--recipe", "gan", *small, "--out", "run", "--steps", 2)[0] == 0
    code, out, err = command(
        capfd, "train", "--resume", "run", "--steps", 4, "--lr", 0.01, "--log-every", 1
    )
    assert (code, "--log-every can't be changed" in err) == (2, True)
    code, out, err = command(capfd, "train", "--resume", "run", "--steps", 4, "--lr", 0.01)
    said = "G: lr goes on with 0.01 instead of 0.1; D: lr goes on with 0.005 instead of 0.05"
    assert f"changed from step 2 on, of 4: {said}\n" in out


def test_a_python_run_that_diverges_names_what_to_pass(tmp_path):
    sgd = lambda rate: {name: lambda p: torch.optim.SGD(p, rate) for name in "GD"}
    with (
        tiny(tmp_path / "run", optimizers=sgd(1e30), log_every=1) as trainer,
        pytest.raises(fastgan.FastganError, match="resume=True and reschedule=True"),
    ):
        trainer.fit(9)
    with pytest.raises(
        fastgan.FastganError, match=r"optimizers\.G\.options\.lr was 1e\+30 and is 0.01 now"
    ):
        tiny(tmp_path / "run", optimizers=sgd(0.01), log_every=1, resume=True)
    with tiny(
        tmp_path / "run", optimizers=sgd(0.01), log_every=1, resume=True, reschedule=True
    ) as trainer:
        trainer.fit(9)
        assert trainer.optimizers["G"].param_groups[0]["lr"] == 0.01


def test_weights_that_are_not_finite_are_named_without_a_folder_too():
    with (
        tiny(None, optimizers=lambda p: torch.optim.SGD(p, float("nan"))) as trainer,
        pytest.raises(
            fastgan.FastganError, match=r"nets/.* is not finite; .* Start again with lower"
        ),
    ):
        trainer.fit(2)


def test_a_checkpoint_that_goes_while_it_is_looked_for_is_looked_for_again(tmp_path, monkeypatch):
    """Between listing and looking, step 1 gives way to step 2."""
    tiny(tmp_path / "run").close()
    real, moved = files.kind, []

    def late(path, **how):
        if path.name == "state.json" and not moved:
            moved.append(path.parent.rename(path.parent.with_name("step-00000002")))
            state = moved[0] / "state.json"
            written = json.loads(state.read_text()) | {"step": 2}
            del written["checksum"]
            state.write_text(json.dumps(written))
        return real(path, **how)

    monkeypatch.setattr(files, "kind", late)
    fastgan.load(tmp_path / "run")
    assert moved


def test_rows_that_were_lost_are_counted_and_the_others_kept(tmp_path, capsys):
    with tiny(tmp_path / "run", log_every=1) as trainer:
        trainer.fit(6)
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][:20] + b"\n", *lines[3:5], b"\0" * 200]))
    with tiny(tmp_path / "run", log_every=1, resume=True) as trainer:
        trainer.fit(7)
    assert [row["step"] for row in rows(path)] == [1, 2, 4, 5, 7]
    assert capsys.readouterr().err == f"fastgan: {path} has lost 2 of its 6 rows\n"


def test_a_checkpoint_without_its_state_is_named(tmp_path, capsys):
    with tiny(tmp_path / "run") as trainer:
        trainer.fit(6)
    (tmp_path / "run" / "checkpoints" / "step-00000006" / "state.json").unlink()
    with tiny(tmp_path / "run", resume=True) as trainer:
        assert trainer.step == 0
        trainer.fit(6)
    assert "step-00000006 has no state.json: going on from step 0\n" in capsys.readouterr().err
    assert newest(tmp_path / "run")[1][1]["step"] == 6
