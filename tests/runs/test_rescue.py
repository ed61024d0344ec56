"""A run that falls ill goes back to its last good checkpoint, once, and on with a remedy: in the same
numbers as by hand, and however often it is stopped."""

import json

import pytest
import torch
from run_support import assert_same_run, images, in_a_hurry, newest, rows, tiny

import fastgan
from fastgan import recipes
from fastgan.graphs.backends import RecordedGraph
from fastgan.monitor.health import Health
from fastgan.objectives import Adversarial
from fastgan.recipes.training import make_trainer
from fastgan.reports import page
from fastgan.runs.run_folder import RunFolder
from fastgan.trainer import loop, session
from fastgan.trainer.callbacks import Callbacks

ILL, GOOD = 15, 7
"""The step at which the planted illness is seen, and the last one at which all was well."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    in_a_hurry(monkeypatch)


@pytest.fixture
def ill(monkeypatch):
    """Every look from step ILL on sees a collapse, and may name it as often as the watch lets it;
    returns the step up to which all was well, in a list."""
    since = [GOOD]

    def observe_samples(self, step, *_, **__):
        return self._alert("collapse", step, "planted", since[0]) if step >= ILL else []

    monkeypatch.setattr(Health, "observe_samples", observe_samples)
    monkeypatch.setattr(loop, "look_due", lambda step: step % 5 == 0)
    return since


def python(out, *, resume=False, from_step=None, remedy=False, **more):
    changed = {"r1": 5.0, "augment": "color,translation,cutout"} if remedy else {}
    objective = Adversarial(latent_shape=(4, 1, 1), **changed)
    given = {"objective": objective, "from_step": from_step, **more}
    torch.manual_seed(0)
    return tiny(out, resume=resume, reschedule=remedy, **given)


def recipe(name, remedies, **options):
    def make(out, *, resume=False, from_step=None, remedy=False, rescue=False):
        run = {"log_every": 5, "sample_every": 50, "checkpoint_every": 6, "device": "cpu"}
        given = {**run, **options, **(remedies if remedy else {}), "rescue": rescue}
        if resume:  # as the command line does it
            kept = json.loads((out / "run.json").read_text()).get("rescue", {}).get("options", {})
            given |= kept
        config = recipes.find(name)(out=str(out), progress=False, **given)
        return make_trainer(config, resume=resume, log=None, out=str(out), from_step=from_step)

    return make


KINDS = {
    "python": (python, {"r1": 5.0, "augment": "color,translation,cutout"}),
    "gan": (
        recipe(
            "gan",
            {"augment": "color,translation,cutout"},
            data=images(21),
            hidden_g=8,
            hidden_d=4,
            latent=4,
            batch_size=8,
        ),
        {"augment": "color,translation,cutout"},
    ),
    "dcgan": (
        recipe(
            "dcgan",
            {"r1": 5.0, "augment": "color,translation,cutout"},
            data=images(21, size=32),
            base_width=2,
            latent=4,
            batch_size=4,
        ),
        {"r1": 5.0, "augment": "color,translation,cutout"},
    ),
}


@pytest.mark.parametrize("kind", ["python", "dcgan"])
def test_a_rescued_run_is_the_one_that_was_brought_back_by_hand(kind, tmp_path, ill, capsys):
    make, options = KINDS[kind]
    with make(tmp_path / "run", rescue=True) as trainer:
        trainer.fit(24)
        assert trainer.step == 24
    said = capsys.readouterr().err
    assert "step 15: collapse: planted" in said
    assert said.count("back to step 6, and on from there with --") == 1
    with make(tmp_path / "by hand") as trainer:
        trainer.fit(14)
    with make(tmp_path / "by hand", resume=True, from_step=6, remedy=True) as trainer:
        trainer.fit(24)
    mine, facts = newest(tmp_path / "run")
    others, other_facts = newest(tmp_path / "by hand")
    assert [k for k in mine if mine[k] != others[k]] == []
    assert facts[1]["watch"] == other_facts[1]["watch"]
    assert rows(tmp_path / "run" / "metrics.jsonl") == rows(tmp_path / "by hand" / "metrics.jsonl")
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["rescue"]["options"] == options
    assert (run["rescue"]["step"], run["rescue"]["to"]) == (15, 6)
    assert run["changes"][0]["step"] == 6
    assert run["cuts"] == [{"from": 12, "to": 6}]
    assert "rescued from collapse at step 15: back to step 6" in page.gone_back(run)
    if kind == "python":
        config = (tmp_path / "run" / "config.toml").read_text()
        assert config == (tmp_path / "by hand" / "config.toml").read_text().replace(
            "rescue = false", "rescue = true"
        )
    told = rows(tmp_path / "run" / "alerts.jsonl")
    assert [(row["step"], row["cause"]) for row in told] == [(6, "collapse"), (15, "collapse")]
    assert told[0]["remedy"].startswith("rescued: back to step 6, and on from there with --")
    assert "rescued: " not in told[1]["remedy"], "a second illness is only told"


def test_swapped_networks_and_replayed_steps_are_rescued_alike(tmp_path, ill, monkeypatch):
    """The same networks go on, whose layers were swapped and whose steps were captured before."""
    monkeypatch.setattr(session, "graph_backend", lambda *_: RecordedGraph)
    with python(tmp_path / "run", rescue=True, impl="cudnn") as trainer:
        trainer.fit(20)
        assert trainer.active.graph_reason is None
        assert type(trainer.nets["G"]).__name__ == "FusedSequential"
    with python(tmp_path / "by hand", impl="cudnn") as trainer:
        trainer.fit(14)
    again = {"resume": True, "from_step": 6, "remedy": True, "impl": "cudnn"}
    with python(tmp_path / "by hand", **again) as trainer:
        trainer.fit(20)
    mine, others = newest(tmp_path / "run")[0], newest(tmp_path / "by hand")[0]
    assert [k for k in mine if mine[k] != others[k]] == []
    assert type(fastgan.load(tmp_path / "run")).__name__ == "Sequential", "as its author wrote it"


@pytest.mark.parametrize("kind", ["python", "gan"])
def test_a_rescued_run_that_was_stopped_ends_like_a_straight_one(kind, tmp_path, ill):
    """Before the rescue, on the second way to where it was, and after it."""
    make, _ = KINDS[kind]
    with make(tmp_path / "run", rescue=True) as trainer:
        trainer.fit(24)
    straight = (tmp_path / "run").rename(tmp_path / "straight")  # remedies name the folder
    resume, again = False, False
    for stop in (3, 11, 14, 9, 16, 24):
        with make(tmp_path / "run", resume=resume, rescue=True) as trainer:
            if again := stop == 9 or again:
                trainer.callbacks = Callbacks([StopAt(stop)])
            trainer.fit(24 if again else stop)
            assert trainer.step == stop
        resume = True
    assert_same_run(tmp_path / "run", straight)


class StopAt:
    """Stops at a step, however the run has come there."""

    def __init__(self, step):
        self.step = step

    def on_step(self, trainer):
        if trainer.step == self.step:
            trainer.stop("here")


def test_killed_after_the_rescue_it_is_rescued_again(tmp_path, ill):
    with python(tmp_path / "run", rescue=True) as trainer:
        trainer.callbacks = Callbacks([Killing()])
        with pytest.raises(KeyboardInterrupt):
            trainer.fit(24)
    assert "rescue" not in json.loads((tmp_path / "run" / "run.json").read_text())
    assert RunFolder(tmp_path / "run").checkpoints.steps()[-1] == 12, "nothing was lost"
    assert not (tmp_path / "run" / "cut-off").exists()
    with python(tmp_path / "run", resume=True, rescue=True) as trainer:
        trainer.fit(24)
    with python(tmp_path / "straight", rescue=True) as trainer:
        trainer.fit(24)
    assert_same_run(tmp_path / "run", tmp_path / "straight")


class Killing:
    seen = False

    def on_step(self, trainer):
        self.seen = self.seen or trainer.step == 14
        if self.seen and trainer.step == 8:
            raise KeyboardInterrupt


class Breaking:
    """The generator breaks at step 14, once."""

    done = False

    def on_step(self, trainer):
        if trainer.step == 14 and not self.done:
            self.done = True
            with torch.no_grad():
                next(trainer.nets["G"].parameters()).fill_(float("nan"))


def test_what_diverged_goes_on_at_half_the_rate(tmp_path, capsys):
    with KINDS["gan"][0](tmp_path / "run", rescue=True) as trainer:
        trainer.callbacks = Callbacks([Breaking()])
        trainer.fit(20)
    assert "rescue, the only one: back to step 12, and on from there with --lr 0.05" in (
        capsys.readouterr().err
    )
    assert [row["step"] for row in rows(tmp_path / "run" / "metrics.jsonl")] == [5, 10, 15, 20]
    assert rows(tmp_path / "run" / "alerts.jsonl")[0]["cause"] == "non-finite"


def test_without_an_option_that_helps_it_ends_as_ever(tmp_path, capsys):
    with python(tmp_path / "run", rescue=True) as trainer:
        trainer.callbacks = Callbacks([Breaking()])
        with pytest.raises(fastgan.FastganError, match=r"training diverged.*step-00000012"):
            trainer.fit(20)
    assert "non-finite, and no rescue: no option of this run may help" in capsys.readouterr().err
    assert [row["cause"] for row in rows(tmp_path / "run" / "alerts.jsonl")] == ["non-finite"]


def test_without_a_good_checkpoint_it_is_told_and_goes_on(tmp_path, ill, capsys):
    ill[0] = 5
    with python(tmp_path / "run", rescue=True, keep=1) as trainer:
        trainer.fit(20)
    assert "no checkpoint of up to step 5 is left: raise --keep" in capsys.readouterr().err
    assert [row["step"] for row in rows(tmp_path / "run" / "alerts.jsonl")] == [15]


def test_saving_often_drops_no_checkpoint_that_a_rescue_needs(tmp_path):
    with python(tmp_path / "run", rescue=True, keep=2) as trainer:
        for step in (5, 7, 8, 9, 13, 14):
            trainer.fit(step)
    assert RunFolder(tmp_path / "run").checkpoints.steps() == [6, 12, 13, 14]


@pytest.mark.parametrize(
    ("options", "why"), [({"out": None}, "it needs out="), ({"watch": False}, "leave watch on")]
)
def test_a_rescue_that_can_not_be_is_refused(tmp_path, options, why):
    with pytest.raises(fastgan.FastganError, match=why):
        tiny(**{"out": tmp_path / "run", "rescue": True, **options})
    assert not (tmp_path / "run").exists()


def test_without_rescue_an_illness_is_only_told(tmp_path, ill):
    with python(tmp_path / "run") as trainer:
        trainer.fit(20)
    assert [row["step"] for row in rows(tmp_path / "run" / "alerts.jsonl")] == [15]
    assert "rescue" not in json.loads((tmp_path / "run" / "run.json").read_text())


def read_tensorboard(out):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    everything = module.EventAccumulator(str(out / "tensorboard"), {"scalars": 0, "images": 0})
    everything.Reload()
    return (
        [(e.step, e.value) for e in everything.Scalars("loss/D")],
        [e.step for e in everything.Images("samples")],
    )


def read_mlflow(out):
    tracking = pytest.importorskip("mlflow.tracking")
    client = tracking.MlflowClient((out / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("fastgan").experiment_id])
    return (
        [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss.D")],
        [int(f.path[8:-4]) for f in client.list_artifacts(run.info.run_id, "samples")],
    )


@pytest.mark.parametrize(
    ("log", "package", "read"),
    [("tensorboard", "tensorboard", read_tensorboard), ("mlflow", "mlflow.tracking", read_mlflow)],
)
def test_loggers_hold_one_line_of_a_rescued_run(log, package, read, tmp_path, ill):
    pytest.importorskip(package, reason=f"an extra: pip install 'fastgan[{log}]'")
    out = tmp_path / "run"
    with python(out, rescue=True, log=log, log_every=1, sample_every=4) as trainer:
        trainer.fit(20)
    losses, grids = read(out)
    written = [(row["step"], row["loss/D"]) for row in rows(out / "metrics.jsonl")]
    assert [step for step, _ in losses] == [*range(1, 21)]
    assert [value for _, value in losses] == pytest.approx([value for _, value in written])
    assert grids == [0, 4, 6, 8, 12, 16, 20]
