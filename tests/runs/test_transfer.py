"""Fine-tuning: weights of an earlier run for the networks of a new one."""

import json
import shutil

import numpy as np
import pytest
import torch
from run_support import discriminator, generator, images, in_a_hurry, newest, tiny
from safetensors.torch import save_file
from torch import nn

import fastgan
from fastgan.cli import main as cli
from fastgan.models.dcgan import Discriminator, Generator
from fastgan.models.resnet import Generator as ResidualGenerator
from fastgan.runs import transfer
from fastgan.runs.checkpoint import Checkpoints


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    in_a_hurry(monkeypatch)


@pytest.fixture
def base(tmp_path):
    with tiny(tmp_path / "base") as trainer:
        trainer.fit(9)
    return tmp_path / "base"


def weights(run, group="nets"):
    groups, _ = Checkpoints(run / "checkpoints").load()
    return {f"{n}/{k}": v for n, net in groups[group].items() for k, v in net.items()}


def test_a_new_run_begins_with_weights_and_averages_but_not_with_state(base, tmp_path):
    other = images(30, seed=5)
    with tiny(tmp_path / "new", data=other, init_from=base) as trainer:
        assert trainer.taken == f"weights of {base} at step 9: G whole, D whole, averages too"
        assert trainer.step == 0
        for group in ("nets", "ema"):
            old, new = weights(base, group), weights(tmp_path / "new", group)
            assert old.keys() == new.keys()
            assert all(torch.equal(old[key], new[key]) for key in old)
        assert not any(optimizer.state for optimizer in trainer.optimizers.values())
        trainer.fit(2)
        late = weights(tmp_path / "new", "ema")
        change = {k: (late[k] - v).abs().max() for k, v in new.items() if k.endswith("t")}
        assert 0 < max(change.values()) < 1e-4, "an average that was trained does not warm up again"
    facts = json.loads((tmp_path / "new" / "run.json").read_text())
    assert facts["init_from"]["taken"] == trainer.taken


def test_such_a_run_resumes_exactly(base, tmp_path):
    with tiny(tmp_path / "straight", init_from=base) as trainer:
        trainer.fit(8)
    with tiny(tmp_path / "cut", init_from=base) as trainer:
        trainer.fit(3)
    with tiny(tmp_path / "cut", resume=True) as trainer:
        trainer.fit(8)
    assert newest(tmp_path / "straight") == newest(tmp_path / "cut")


@pytest.mark.parametrize("folder", ["checkpoint", "safetensors", "exported"])
def test_other_folders_of_weights(base, tmp_path, folder):
    source = base / "checkpoints" / "step-00000006"
    if folder != "checkpoint":
        source = tmp_path / folder
        source.mkdir()
        for name, net in (("G", generator()), ("D", discriminator())):
            if folder == "safetensors":
                save_file(net.state_dict(), source / f"{name}.safetensors")
        save_file(generator().state_dict(), source / "model.safetensors")
    with tiny(None, init_from=source) as trainer:
        what = f"{base} at step 6" if folder == "checkpoint" else str(source)
        d = "D begins anew" if folder == "exported" else "D whole"
        assert trainer.taken == f"weights of {what}: G whole, {d}, averages too"


@pytest.mark.parametrize(
    ("make", "old", "new", "fit", "count"),
    [
        (Generator, (32, 3, 16, 4), (64, 3, 16, 4), ["4", "6", "7", "9"][1:], None),
        (Discriminator, (32, 3, 4), (64, 3, 4), ["0", "2", "3", "5", "6"], 8),
        (Discriminator, (32, 1, 4), (32, 3, 4), ["2", "3", "5", "6", "8"], 6),
        (ResidualGenerator, (16, 3, 8, 4), (32, 3, 8, 4), None, None),
    ],
)
def test_layers_are_aligned_across_sizes_and_channels(make, old, new, fit, count):
    here, there = make(*new).state_dict(), make(*old).state_dict()
    pairs, left = transfer.aligned(here, there)
    assert all(here[a].shape == there[b].shape for a, b in pairs.items())
    assert left
    assert len(pairs) > len(there) / 2, "most of the smaller network is used"
    layers = {key.rpartition(".")[0] for key in pairs}
    if fit is not None:
        assert set(fit) <= layers
    if count is not None:
        assert len(left) == count - len(fit)


def test_spectral_norm_and_root_parameters_are_layers(tmp_path):
    net = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 4, 3)), nn.Flatten())
    net.register_parameter("scale", nn.Parameter(torch.ones(3)))
    pairs, left = transfer.aligned(net.state_dict(), net.state_dict())
    assert pairs == {key: key for key in net.state_dict()}
    assert left == []


def test_frozen_layers_of_the_discriminator_stay():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4)
    )
    assert transfer.freeze_first(net, 1) == ["0", "1"]
    before = {name: p.clone() for name, p in net.named_parameters()}
    with tiny(None, nets={"G": generator(), "D": net}) as trainer:
        trainer.fit(3)
    same = [name for name, p in net.named_parameters() if torch.equal(p, before[name])]
    assert same == ["0.weight", "0.bias", "1.weight", "1.bias"]
    with pytest.raises(fastgan.FastganError, match="it has 2, and the last one must be trained"):
        transfer.freeze_first(net, 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("absent", "no weights at .*: give a run"),
        ("empty", "is no run and has no .safetensors file"),
        ("damaged", "G.safetensors is damaged"),
        ("other", "no layer of .* fits"),
        ("nan", r"G of .* is not finite \(0.weight\): take an earlier checkpoint"),
    ],
)
def test_bad_sources_are_one_line_and_leave_nothing(tmp_path, spoil, message):
    source = tmp_path / "source"
    if spoil != "absent":
        source.mkdir()
    g = generator(norm=False)
    if spoil == "damaged":
        (source / "G.safetensors").write_bytes(b"\0" * 40)
    if spoil == "other":
        save_file(nn.Linear(3, 2).state_dict(), source / "G.safetensors")
    if spoil == "nan":
        g[0].weight.data[0, 0, 0, 0] = torch.nan
        save_file(g.state_dict(), source / "G.safetensors")
    with pytest.raises(fastgan.FastganError, match=message):
        tiny(
            tmp_path / "new",
            init_from=source,
            nets={"G": generator(norm=False), "D": discriminator()},
        )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["G", "D"])
def test_networks_that_are_wholly_frozen_are_named(tmp_path, name):
    nets = {"G": generator(), "D": discriminator()}
    nets[name].requires_grad_(False)
    with pytest.raises(fastgan.FastganError) as found:
        tiny(tmp_path / "new", nets=nets)
    assert f"network '{name}' has no parameter that is trained" in str(found.value)
    assert f"{name}.requires_grad_(True)" in str(found.value)
    assert not (tmp_path / "new").exists()


def test_a_refused_resume_names_the_way(base):
    with pytest.raises(fastgan.FastganError, match=f"--init-from {base}"):
        tiny(base, resume=True, data=images(22))


def test_the_command_line_says_what_was_taken_and_goes_on_without_the_source(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    np.save("few.npy", images(12, channels=3))
    np.save("other.npy", images(20, size=16, channels=3))
    small = ["--recipe", "dcgan", "--base-width", "2", "--latent", "4", "--batch-size", "4"]

    def run(*args):
        with pytest.raises(SystemExit) as done:
            cli.main(["train", *args])
        return done.value.code or 0

    assert run("--data", "few.npy", "--size", "8", "--out", "base", "--steps", "2", *small) == 0
    begin = ["--data", "other.npy", "--out", "tuned", "--init-from", "base", "--freeze-d", "1"]
    assert run(*begin, "--steps", "2", *small) == 0
    out = capsys.readouterr().out
    assert "weights of " in out
    assert "base at step 2: G 3 of 5 layers (new: 0, 1), D 1 of 4 layers (new: 2, 3, 5)" in out
    shutil.rmtree("base")
    assert run("--resume", "tuned", "--steps", "3") == 0
