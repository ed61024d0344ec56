"""What a run leaves, and what it refuses to touch."""

import csv
import json
import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch
from PIL import Image
from run_support import (
    assert_rows_whole,
    discriminator,
    generator,
    images,
    in_a_hurry,
    leftovers,
    newest,
    rows,
    tiny,
)
from torch import nn

import fastgan
from fastgan.runs.checkpoint import Checkpoints, flatten, unflatten
from fastgan.runs.run_folder import RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """13 steps: rows at 5 and 10, pictures at 0, 7 and 13, checkpoints at 0, 6, 12 and 13, of which
    two are kept."""
    path = tmp_path_factory.mktemp("left") / "deep" / "run"
    torch.manual_seed(1)
    with tiny(path, keep=2) as trainer:
        trainer.fit(13)
    return path


def test_what_lies_there(run):
    assert sorted(p.name for p in run.iterdir()) == [
        "checkpoints",
        "config.toml",
        "curves.png",
        "metrics.csv",
        "metrics.jsonl",
        "reals.png",
        "report.html",
        "run.json",
        "run.lock",
        "samples",
    ]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [
        "step-00000012",
        "step-00000013",
    ]
    assert {p.suffix for p in (run / "checkpoints").rglob("*") if p.is_file()} == {
        ".json",
        ".safetensors",
    }
    assert sorted(p.name for p in (run / "samples").iterdir()) == [
        "00000000.png",
        "00000007.png",
        "00000013.png",
    ]
    for picture in (run / "reals.png", run / "curves.png", run / "samples" / "00000013.png"):
        with Image.open(picture) as opened:
            opened.load()


def test_config_toml_is_resolved(run):
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["precision"] == "fp32"
    assert (config["batch_size"], config["seed"], config["log_every"]) == (8, 0, 5)


def test_metrics_rows(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["images"]) for row in found] == [(5, 40), (10, 80)]
    assert {"loss/D", "loss/G", "D/logit_real", "images_per_s", "time"} <= set(found[0])
    assert all(isinstance(value, (int, float)) for row in found for value in row.values())
    with open(run / "metrics.csv", newline="") as f:
        table = list(csv.DictReader(f))
    assert [{k: float(v) for k, v in line.items()} for line in table] == found
    assert_rows_whole(run)


def test_pictures_show_fixed_latents(run, tmp_path):
    """The picture of a step can be made again from its checkpoint."""
    from fastgan import files
    from fastgan.monitor import pictures

    files.save_with(
        tmp_path / "again.png",
        lambda f: pictures.save_grid(f, fastgan.sample(run, 64, device="cpu")),
    )
    with (
        Image.open(tmp_path / "again.png") as mine,
        Image.open(run / "samples" / "00000013.png") as left,
    ):
        assert mine.size == left.size
        worst = max(
            abs(a - b)
            for a, b in zip(mine.convert("L").tobytes(), left.convert("L").tobytes(), strict=True)
        )
    assert (
        worst <= 1
    )  # another memory format may round the last bit of a float, and so one level of a pixel


def test_an_existing_out_is_never_overwritten(run, tmp_path):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(fastgan.FastganError, match="exists already"):
        tiny(run)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for taken in ("mine", "file"):
        with pytest.raises(fastgan.FastganError, match="exists already"):
            tiny(tmp_path / taken)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    tiny(tmp_path / "empty").close()


def test_what_a_dead_start_left_is_replaced_but_nothing_else(tmp_path):
    tiny(tmp_path / "run").close()
    (tmp_path / "run" / ".partial-start").write_bytes(b"")
    (tmp_path / "run" / ".partial-77-run.json").write_bytes(b"torn")
    tiny(tmp_path / "run").close()
    assert leftovers(tmp_path) == []
    (tmp_path / "run" / ".partial-start").write_bytes(b"")
    (tmp_path / "run" / "notes.txt").write_text("precious")
    with pytest.raises(fastgan.FastganError, match="exists already"):
        tiny(tmp_path / "run")


class Judge(nn.Conv2d):
    def __init__(self):
        super().__init__(1, 1, 8)

    def forward(self, x, mood):
        return super().forward(x)


BAD_STARTS = {
    "data": ({"data": "nowhere"}, "no data at nowhere"),
    "few": ({"data": images(5)}, "fewer than one batch"),
    "size": (
        {
            "nets": {
                "G": nn.Sequential(*generator(), nn.Upsample(scale_factor=2)),
                "D": discriminator(),
            }
        },
        "makes 16x16",
    ),
    "layers": ({"nets": {"G": generator(), "D": nn.Conv2d(3, 1, 1)}}, "do not fit"),
    "no-D": ({"nets": {"G": generator()}}, "needs a network 'D'"),
    "sigmoid": (
        {"nets": {"G": generator(), "D": nn.Sequential(discriminator(), nn.Sigmoid())}},
        "Sigmoid",
    ),
    "flattened-sigmoid": (
        {
            "nets": {
                "G": generator(),
                "D": nn.Sequential(discriminator(), nn.Sigmoid(), nn.Flatten()),
            }
        },
        "Sigmoid",
    ),
    "no-labels": (
        {"objective": fastgan.Adversarial(latent_shape=(4, 1, 1), conditional=True)},
        "no 'label' here, only 'image'",
    ),
    "arguments": ({"nets": {"G": generator(), "D": Judge()}}, r"do not fit .* TypeError: .*'mood'"),
    "optimizer": ({"optimizers": {"E": None}}, "names 'E'"),
    "lr": ({"optimizers": {"G": lambda p: torch.optim.Adam(p, lr=-1)}}, "learning rate"),
    "schedule": ({"schedules": {"G": {"speed": lambda step: 1.0}}}, "sets 'speed'"),
    "ema": ({"ema_decay": 1.5}, "ema_decay"),
    "loss": ({"loss": "hinj"}, "unknown loss"),
    "seed": ({"seed": -1}, "seed must be at least 0"),
    "device": ({"device": "abacus"}, "unknown device"),
}


@pytest.mark.parametrize("case", BAD_STARTS)
def test_a_start_that_fails_leaves_no_folder(case, tmp_path):
    options, named = BAD_STARTS[case]
    with pytest.raises(fastgan.FastganError, match=named) as error:
        tiny(tmp_path / "runs" / "mine", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_one_run_one_trainer(tmp_path):
    first = tiny(tmp_path / "run")
    with pytest.raises(fastgan.FastganError, match="another Trainer of this program is training"):
        tiny(tmp_path / "run", resume=True)
    child = os.fork()
    if child == 0:
        try:
            RunFolder(tmp_path / "run").open()
        except fastgan.FastganError as error:
            said = (
                f"another process is training in {tmp_path / 'run'}: wait for it (process "
                f"{os.getppid()})"
            )
            os._exit(7 if said in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    first.fit(2)
    first.close()
    tiny(tmp_path / "run", resume=True).close()


def test_a_refused_resume_lets_go_of_the_run(tmp_path):
    tiny(tmp_path / "run").close()
    for _ in range(2):
        with pytest.raises(fastgan.FastganError, match="seed was 0 and is 5 now"):
            tiny(tmp_path / "run", resume=True, seed=5)


@pytest.mark.parametrize("harm", ["truncated", "flipped", "missing", "state", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(harm, tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    torch.manual_seed(1)
    with tiny(tmp_path / "run") as trainer:
        trainer.fit(12)
    newest_one = tmp_path / "run" / "checkpoints" / "step-00000012"
    weights, state = newest_one / "nets.safetensors", newest_one / "state.json"
    if harm == "truncated":
        weights.write_bytes(weights.read_bytes()[:-7])
    elif harm == "flipped":
        data = bytearray(weights.read_bytes())
        data[-5] ^= 1
        weights.write_bytes(bytes(data))
    elif harm == "missing":
        weights.unlink()
    elif harm == "state":
        state.write_text(state.read_text()[: len(state.read_text()) // 2])
    else:
        state.write_text("")
    for use in (
        lambda: tiny(tmp_path / "run", resume=True),
        lambda: fastgan.load(tmp_path / "run"),
    ):
        with pytest.raises(
            fastgan.FastganError,
            match=r"is damaged .*: remove that folder to go on from the one before",
        ) as error:
            use()
        assert str(newest_one) in str(error.value)
        assert "\n" not in str(error.value)
    for file in newest_one.iterdir():
        file.unlink()
    newest_one.rmdir()
    with tiny(tmp_path / "run", resume=True) as trainer:
        assert trainer.step == 6
        trainer.fit(12)
    assert_rows_whole(tmp_path / "run")


def test_a_damaged_run_json_is_named(tmp_path):
    tiny(tmp_path / "run").close()
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(fastgan.FastganError, match=r"run\.json is damaged"):
        tiny(tmp_path / "run", resume=True)


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(fastgan.FastganError, match="is not a run"):
        tiny(tmp_path / "none", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_saving_twice_at_a_step_replaces_the_checkpoint(tmp_path):
    with tiny(tmp_path / "run") as trainer:
        trainer.fit(3)
        with torch.no_grad():
            next(trainer.nets["G"].parameters()).fill_(0.5)
        path = trainer.save()
        assert path.name == "step-00000003"
    assert leftovers(tmp_path) == []
    assert bool((fastgan.load(tmp_path / "run", ema=False)[0].weight == 0.5).all())


def test_rows_that_could_not_be_written_are_written_later(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.append(folder.metrics, {"step": 1})
    folder.metrics.chmod(0o400)
    with monkeypatch.context() as patch:
        from fastgan import files

        def full(f, data):
            f.write(data[:3])
            raise OSError(28, "No space left on device")

        patch.setattr(files, "write_all", full)
        folder.metrics.chmod(0o600)
        with pytest.raises(fastgan.FastganError, match="No space left"):
            folder.append(folder.metrics, {"step": 2})
    assert rows(folder.metrics) == [{"step": 1}]
    folder.append(folder.metrics, {"step": 3})
    assert rows(folder.metrics) == [{"step": 1}, {"step": 2}, {"step": 3}]
    folder.close()


def test_rewinding_drops_what_is_made_again(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.metrics.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st\xff')
    folder.alerts.write_text('{"step": 2}\n{"step": 3}\n7\n')
    for step in (2, 3):
        (folder.path / "samples" / f"{step:08d}.png").write_bytes(b"")
    folder.rewind(2)
    folder.rewind_pictures(2)
    assert folder.metrics.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert folder.alerts.read_text() == '{"step": 2}\n'
    assert [p.name for p in (folder.path / "samples").iterdir()] == ["00000002.png"]
    folder.close()


def test_nothing_is_written_without_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tiny(None) as trainer:
        trainer.fit(7)
        assert trainer.sample(2).shape == (2, 1, 8, 8)
        with pytest.raises(fastgan.FastganError, match="without out="):
            trainer.save()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_diverges_names_the_last_good_checkpoint(tmp_path):
    with tiny(tmp_path / "run", checkpoint_every=2, log_every=4) as trainer:
        trainer.fit(2)
        with torch.no_grad():
            next(trainer.nets["D"].parameters()).fill_(float("nan"))
        with pytest.raises(fastgan.FastganError, match="step-00000002") as error:
            trainer.fit(8)
    assert "not finite" in str(error.value)
    assert newest(tmp_path / "run")[1][1]["step"] == 2


TREE = {
    "tensors": [
        torch.arange(3),
        torch.zeros(0, 4),
        torch.tensor(2.5),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ],
    "bfloat": torch.randn(3).bfloat16(),
    "bools": torch.tensor([True, False]),
    "numbered": {0: {"step": torch.tensor(3.0)}, 1: {"$tensor": "a key that looks special"}},
    "plain": (1, 2.5, None, True, "text", [], {}, ()),
    "nan": torch.tensor(float("nan")),
}


def test_trees_survive_bit_for_bit(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, {"tree": TREE, "nothing": {}}, {"more": [1]})
    groups, state = checkpoints.load()
    assert state == {"format": 1, "step": 3, "more": [1]}
    mine: dict = {}
    others: dict = {}
    assert flatten(groups["tree"], mine) == flatten(TREE, others)
    assert groups["nothing"] == {}
    for key, value in others.items():
        assert mine[key].dtype == value.dtype
        assert mine[key].stride() == value.stride()
        assert (
            mine[key].contiguous().view(torch.uint8).tolist()
            == value.contiguous().view(torch.uint8).tolist()
            if value.dim()
            else True
        )
    assert torch.isnan(unflatten(flatten(TREE, others), others)["nan"])
    with pytest.raises(fastgan.FastganError, match=r"can't hold tree/x: a set"):
        flatten({"x": {1}}, {}, "tree")


def test_a_checkpoint_from_the_future_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    path = checkpoints.save(3, {}, {})
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 99}))
    with pytest.raises(fastgan.FastganError, match="newer fastgan"):
        checkpoints.load()


def test_foreign_names_among_the_checkpoints_are_left_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    (tmp_path / "checkpoints" / "step-best").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-best" / "state.json").write_text("{}")
    for step in (1, 2):
        checkpoints.save(step, {}, {})
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-00000002", "step-best"]


def test_the_page_on_runs_is_executed(tmp_path, monkeypatch, capsys):
    """Every command and program of docs/runs.md, with fewer steps and smaller networks."""
    from fastgan.cli import main as cli

    page = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    monkeypatch.chdir(tmp_path)
    in_a_hurry(monkeypatch)
    Path("my_images").mkdir()
    for i, image in enumerate(images(70, size=16, channels=3)):
        Image.fromarray(image).save(f"my_images/{i}.png")
    shorter = {"20000": "3", "30000": "4", "64": "8"}
    block, _ = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)  # the second needs a package
    for line in block.splitlines():
        words = [shorter.get(word, word) for word in shlex.split(line)]
        extra = ["--base-width", "2", "--log-every", "1"] if "--recipe" in words else []
        with pytest.raises(SystemExit) as done:
            cli.main([*words[1:], *extra])
        assert not done.value.code, capsys.readouterr().err
    assert Path("grid.png").is_file()
    assert_rows_whole(Path("runs/mine"))
    documented = set(
        re.findall(
            r"`([\w.]+?)(?:/[^`]*)?`",
            "\n".join(line for line in page.splitlines() if line.startswith("| `")),
        )
    )
    assert {p.name for p in Path("runs/mine").iterdir()} <= documented
    names: dict = {}
    for program in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(program, names)
    assert names["second"].step == 30
    assert names["images"].shape == (16, 1, 8, 8)
    assert torch.equal(names["G"][0].weight, fastgan.load("runs/own")[0].weight)
