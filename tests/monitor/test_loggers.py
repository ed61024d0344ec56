"""Outside loggers: only where asked for, in a folder that is claimed first, never a reason to stop.

None of the packages is among those of development, TensorBoard alone brings ten more and 60 MB:
stand-ins that make their folder when they are opened, as the real ones do, are always tested, the
real TensorBoard and MLflow where they are installed.
"""

import os
import shutil
import sys
import types

import numpy as np
import pytest
from run_support import images, in_a_hurry, rows, tiny

from fastgan.cli import main as cli
from fastgan.errors import FastganError
from fastgan.monitor.loggers import find_logger

TINY = [
    "--data",
    "images.npy",
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
TRAIN = ["train", "--recipe", "gan", *TINY, "--log-every", "1", "--sample-every", "2"]


class Writer:
    """As torch.utils.tensorboard.SummaryWriter: the folder and a file are made at once."""

    def __init__(self, log_dir, purge_step=None):
        os.makedirs(log_dir, exist_ok=True)
        self.file = os.path.join(log_dir, f"events.{len(os.listdir(log_dir))}")
        self.note("open", purge_step)

    def note(self, *words):
        with open(self.file, "a") as f:
            f.write(" ".join(map(str, words)) + "\n")

    def add_scalar(self, name, value, step):
        self.note("scalar", name, step)

    def add_image(self, name, image, step, dataformats):
        assert image.dtype == np.uint8
        assert dataformats == "HWC"
        self.note("image", name, step, *image.shape[2:])

    def add_text(self, name, text, step):
        self.note("text", name, step, *text.split())

    def flush(self):
        self.note("flush")

    def close(self):
        self.note("close")


class Wandb(types.ModuleType):
    """As wandb: init makes a folder wandb/ in `dir`, and a run that has an id."""

    def __init__(self):
        super().__init__("wandb")
        self.calls, self.rows, self.alerts, self.finished = [], [], [], 0

    def init(self, **options):
        os.makedirs(os.path.join(options["dir"], "wandb", f"offline-run-{len(self.calls)}"))
        self.calls.append(options)
        return types.SimpleNamespace(
            id=options["id"] or "abc123",
            log=lambda row, step: self.rows.append((step, dict(row))),
            alert=lambda title, text: self.alerts.append(text),
            finish=lambda: setattr(self, "finished", self.finished + 1),
        )

    def Image(self, image):
        return image.shape


@pytest.fixture(autouse=True)
def stand_ins(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    np.save("images.npy", images(30))
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setitem(sys.modules, "wandb", Wandb())


def fastgan(*args):
    with pytest.raises(SystemExit) as done:
        cli.main([str(a) for a in args])
    return done.value.code or 0


def events(out):
    return [path.read_text().splitlines() for path in sorted((out / "tensorboard").iterdir())]


def test_nothing_is_logged_unless_asked_for(tmp_path):
    assert find_logger(None, tmp_path) is None
    tiny(tmp_path / "run").close()
    assert not [p for p in (tmp_path / "run").iterdir() if p.name in ("tensorboard", "wandb")]


def test_a_new_run_is_logged_and_one_that_goes_on_too(tmp_path):
    assert fastgan(*TRAIN, "--out", "run", "--steps", 2, "--log", "tensorboard") == 0
    (first,) = events(tmp_path / "run")
    assert first[0] == "open 1"
    assert "text options 0" in first[1]
    assert "| batch_size | 8 |" in first[1]
    assert {"image reals 0 3", "image samples 0 3", "image samples 2 3"} <= set(first)
    assert [line for line in first if line.startswith("scalar loss/D")] == [
        "scalar loss/D 1",
        "scalar loss/D 2",
    ]
    assert first[-1] == "close"
    assert fastgan("train", "--resume", "run", "--steps", 4) == 0
    _, second = events(tmp_path / "run")
    assert second[0] == "open 3", "steps that are trained again replace those of before"
    assert [line for line in second if line.startswith("scalar loss/D")] == [
        "scalar loss/D 3",
        "scalar loss/D 4",
    ]
    assert fastgan("train", "--resume", "run", "--steps", 6, "--log", "none") == 0
    assert len(events(tmp_path / "run")) == 2


def test_wandb_is_offline_unless_its_own_variable_says_otherwise_and_one_run_stays_one(
    tmp_path, monkeypatch
):
    wandb = sys.modules["wandb"]
    with tiny(tmp_path / "mine", log="wandb", log_every=1) as trainer:
        trainer.fit(1)
        trainer.reporter.tell(
            [types.SimpleNamespace(step=1, cause="stall", evidence="e", remedy="r")]
        )
    (call,) = wandb.calls
    assert (call["mode"], call["name"], call["id"], call["config"]["batch_size"]) == (
        "offline",
        "mine",
        None,
        8,
    )
    assert [set(row) for step, row in wandb.rows if "loss/D" not in row] == [
        {"reals"},
        {"samples"},
        {"samples"},
    ]
    assert [step for step, row in wandb.rows if "loss/D" in row] == [1]
    assert (len(wandb.alerts), wandb.finished) == (1, 1)
    monkeypatch.setenv("WANDB_MODE", "online")
    tiny(tmp_path / "mine", log="wandb", log_every=1, resume=True).close()
    assert (wandb.calls[1]["mode"], wandb.calls[1]["id"], wandb.calls[1]["resume"]) == (
        "online",
        "abc123",
        "allow",
    )


@pytest.mark.parametrize(
    ("name", "module"),
    [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow.tracking")],
)
def test_a_package_that_can_not_be_imported_is_one_line_with_reason_and_remedy(
    name, module, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        FastganError, match=rf"can't be imported \(.*{name}.*\): pip install 'fastgan\[{name}\]'"
    ):
        tiny(tmp_path / "run", log=name)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("log", ["tensorboard", "wandb"])
def test_a_start_that_fails_leaves_no_folder(log, tmp_path):
    with pytest.raises(FastganError, match="no data at"):
        tiny(tmp_path / "run", log=log, data="nowhere")
    assert not (tmp_path / "run").exists()
    tiny(tmp_path / "run", log=log).close()
    with pytest.raises(FastganError, match="exists already"):
        tiny(tmp_path / "run", log=log)
    assert len(list((tmp_path / "run" / log).glob("[eo]*"))) == 1, (
        "nothing is opened in a run of somebody else"
    )


def test_a_logger_that_can_not_be_opened_ends_the_start_and_not_the_run(
    tmp_path, monkeypatch, capsys
):
    def refuse(self, log_dir, purge_step=None):
        os.makedirs(log_dir)
        raise RuntimeError("no\nroom")

    tiny(tmp_path / "run", log="tensorboard").close()
    monkeypatch.setattr(Writer, "__init__", refuse)
    with pytest.raises(FastganError, match="can't log to TensorBoard: no room"):
        tiny(tmp_path / "new", log="tensorboard")
    assert not (tmp_path / "new").exists()
    os.rename(tmp_path / "run" / "tensorboard", tmp_path / "aside")
    with tiny(tmp_path / "run", log="tensorboard", resume=True) as trainer:
        trainer.fit(2)
    assert (
        capsys.readouterr().err
        == "fastgan: can't log to TensorBoard: no room; training goes on without it\n"
    )


def test_a_logger_that_fails_is_named_once_and_training_goes_on(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise ConnectionError("the other side is gone")

    monkeypatch.setattr(Writer, "add_scalar", broken)
    with tiny(tmp_path / "run", log="tensorboard", log_every=1, sample_every=100) as trainer:
        trainer.fit(5)
    assert [row["step"] for row in rows(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert (
        capsys.readouterr().err.count(
            "can't write the log: the other side is gone; training goes on without it\n"
        )
        == 1
    )


def test_unknown_loggers_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(FastganError, match="unknown log 'comet'"):
        find_logger("comet", tmp_path)
    with pytest.raises(FastganError, match="needs out="):
        find_logger("wandb", None)


def test_the_real_tensorboard_reads_back_what_was_logged(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard")
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is an extra: pip install 'fastgan[tensorboard]'",
    )
    assert fastgan(*TRAIN, "--out", "run", "--steps", 2, "--log", "tensorboard") == 0
    assert fastgan("train", "--resume", "run", "--steps", 4) == 0
    everything = accumulators.EventAccumulator(
        str(tmp_path / "run" / "tensorboard"), {"scalars": 0, "images": 0, "tensors": 0}
    )
    everything.Reload()
    written = {row["step"]: row["loss/D"] for row in rows(tmp_path / "run" / "metrics.jsonl")}
    assert {e.step: e.value for e in everything.Scalars("loss/D")} == pytest.approx(written)
    assert [e.step for e in everything.Images("samples")] == [0, 2, 4]
    assert everything.Images("samples")[0].encoded_image_string.startswith(b"\x89PNG")
    options = everything.Tensors("options/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| batch_size | 8 |" in options


def test_the_real_mlflow_reads_back_one_run_that_went_on_and_back(tmp_path, capsys):
    tracking = pytest.importorskip(
        "mlflow.tracking", reason="MLflow is an extra: pip install 'fastgan[mlflow]'"
    )
    every = ("--checkpoint-every", 2)
    assert fastgan(*TRAIN, *every, "--out", "run", "--steps", 4, "--log", "mlflow") == 0
    assert fastgan("train", "--resume", "run", "--steps", 7, "--from-step", 2) == 0
    client = tracking.MlflowClient((tmp_path / "run" / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("fastgan").experiment_id])
    identity = run.info.run_id
    history = client.get_metric_history(identity, "loss.D")
    written = rows(tmp_path / "run" / "metrics.jsonl")
    assert [(m.step, m.value) for m in history] == [(r["step"], r["loss/D"]) for r in written]
    assert run.info.status == "FINISHED"
    assert (run.data.params["steps"], run.data.tags["changed.steps"]) == ("4", "7")
    assert (run.data.params["batch_size"], "changed.batch_size" in run.data.tags) == ("8", False)
    grids = [f.path for f in client.list_artifacts(identity, "samples")]
    assert grids == [f"samples/{step:08d}.png" for step in (0, 2, 4, 6, 7)]
    assert not (tmp_path / "mlruns").exists()

    shutil.copytree("run", "moved")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    logger = find_logger("mlflow", "moved")(tmp_path / "moved", {}, 7)
    logger.alert(8, "one")
    logger.alert(8, "two")
    logger.close()
    client = tracking.MlflowClient((tmp_path / "moved" / "mlflow").as_uri())
    moved = client.get_run(identity)
    assert moved.data.tags["alert.00000008"] == "one\ntwo"
    assert moved.info.artifact_uri.startswith((tmp_path / "moved").as_uri())
    assert {path: path.read_bytes() for path in before} == before

    (tmp_path / "moved" / "mlflow" / "aside").symlink_to(tmp_path)
    assert fastgan("train", "--resume", "moved", "--steps", 9) == 0
    assert "can't log to MLflow: " in (said := capsys.readouterr().err)
    assert "aside is a link" in said
