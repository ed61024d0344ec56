"""Generators as one file: torch.export and ONNX."""

import importlib.util

import pytest
import torch
from run_support import in_a_hurry, tiny
from tiny_recipes import flags
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import fastgan
from fastgan.cli import main as cli
from fastgan.export.program import export_program
from fastgan.export.tracing import exported, trace
from fastgan.export.web import export_web
from fastgan.models.layers.fourier import FourierBlock
from fastgan.trainer.reuse.restoring import OpenRun


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    in_a_hurry(monkeypatch)


@pytest.fixture
def run(tmp_path):
    with tiny(tmp_path / "run") as trainer:
        trainer.fit(2)
    return tmp_path / "run"


def export(*argv):
    with pytest.raises(SystemExit) as done:
        cli.main(["export", *map(str, argv)])
    return done.value.code or 0


def opened_with(net, latent):
    """An open run of a network that lies nowhere."""

    class Plain(fastgan.Objective):
        noise = {"z": fastgan.Noise(latent)}

        def generate(self, step):
            return step.nets.G(step.noise.z)

    facts = {"seed": 0, "classes": None}
    return OpenRun("mine", facts, 0, Plain(), {"G": net}, {}, {}, {}, torch.device("cpu"))


def awake(net):
    """With running statistics and gains that are not those of the start."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 2)
    return net.eval()


def test_norms_of_every_kind_of_layer_are_folded():
    net = awake(
        nn.Sequential(
            spectral_norm(nn.Linear(6, 32)), nn.BatchNorm1d(32), nn.Unflatten(1, (8, 2, 2)), nn.ReLU(),
            nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2, bias=False), nn.BatchNorm2d(6), nn.LeakyReLU(0.2),
            nn.BatchNorm2d(6), nn.Upsample(scale_factor=2),  # of no layer: a scale and a shift
            spectral_norm(nn.Conv2d(6, 4, 3, padding=1, groups=2)), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 3, 1), nn.Tanh(),
        )
    )  # fmt: skip
    traced = trace(opened_with(net, (6,)))
    assert traced.folded == 3
    text = str(traced.module.graph)
    assert "batch_norm" not in text
    assert "vdot" not in text
    assert text.count("aten.mul") == 1
    z = torch.randn(7, 6)
    torch.testing.assert_close(traced.module(z), net(z), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(exported(traced).module()(z), net(z), rtol=1e-4, atol=1e-5)


def test_a_layer_with_two_readers_keeps_its_own_output():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, z):
            made = self.conv(z)
            return self.norm(made) + made

    net = awake(Twice())
    traced = trace(opened_with(net, (3, 4, 4)))
    assert traced.folded == 0
    z = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(traced.module(z), net(z), rtol=1e-4, atol=1e-5)


def test_a_layer_that_draws_is_named():
    class Noisy(nn.Module):
        def forward(self, z):
            return z + torch.randn_like(z)

    with pytest.raises(fastgan.FastganError, match=r"G\.1 \(.*Noisy.*\) of mine draws random"):
        trace(opened_with(nn.Sequential(nn.Conv2d(3, 3, 1), Noisy()), (3, 4, 4)))


def test_fourier_transforms_leave_as_a_torch_file_alone(tmp_path, monkeypatch):
    layers = nn.ConvTranspose2d(4, 8, 4), FourierBlock(8), nn.Conv2d(8, 1, 1), nn.Tanh()
    run = opened_with(awake(nn.Sequential(*layers)), (4, 1, 1))
    for module in ("program", "web"):
        monkeypatch.setattr(f"fastgan.export.{module}.open_run", lambda *a, **how: run)
    assert export_program("mine", tmp_path / "g.pt2", "torch")[1] < 1e-5
    said = r"layer G\.1\.layers\.0\.spectral\.unit \(FourierUnit\) computes with complex"
    with pytest.raises(fastgan.FastganError, match=f"{said}.*ONNX can't hold: use --format torch"):
        export_program("mine", tmp_path / "g.onnx", "onnx")
    with pytest.raises(fastgan.FastganError, match=f"{said}.*a page can't hold"):
        export_web("mine", tmp_path / "g.html")
    assert [path.name for path in tmp_path.iterdir()] == ["g.pt2"]


def test_torch_file_needs_no_fastgan(run, tmp_path, capsys):
    assert export(run, "--format", "torch", "--out", tmp_path / "g.pt2") == 0
    said = capsys.readouterr().out
    assert "takes z float32 (B, 4, 1, 1)" in said
    assert "1 normalisations folded" in said
    z = torch.randn(3, 4, 1, 1)
    made = torch.export.load(tmp_path / "g.pt2").module()(z)
    torch.testing.assert_close(made, fastgan.load(run)(z), rtol=1e-4, atol=1e-5)


def test_uint8_images(run, tmp_path):
    _, difference = export_program(run, tmp_path / "g.pt2", "torch", uint8=True)
    assert difference <= 1
    z = torch.randn(3, 4, 1, 1)
    made = torch.export.load(tmp_path / "g.pt2").module()(z)
    wanted = fastgan.load(run)(z).add(1).mul(127.5)
    assert made.dtype == torch.uint8
    assert (made.float() - wanted).abs().max() <= 1


def test_onnx_file(run, tmp_path):
    onnx = pytest.importorskip("onnx", reason="no onnx here")
    for uint8 in (False, True):
        out = tmp_path / f"{uint8}.onnx"
        traced, difference = export_program(run, out, "onnx", uint8=uint8)
        assert difference <= (1 if uint8 else 1e-5)
        assert traced.folded == 1
        graph = onnx.load(out).graph
        assert [value.name for value in graph.input] == ["z"]
        assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        assert not any("BatchNorm" in node.op_type for node in graph.node)


def test_bad_input_is_one_line(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "there.pt2").touch()
    for argv in (
        ["--format", "torch", "--out", tmp_path / "x.onnx"],
        ["--format", "torch", "--out", tmp_path / "there.pt2"],
        ["--format", "web", "--uint8", "--out", tmp_path / "x.html"],
        ["--out", tmp_path / "x.onnx"],
    ):
        assert export(run, *argv) == 2
        assert capsys.readouterr().err.count("\n") == 1
    if importlib.util.find_spec("onnx") is None:
        assert export(run, "--format", "onnx", "--out", tmp_path / "x.onnx") == 2
        assert "pip install 'fastgan[onnx]'" in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))


def test_label_conditional(tmp_path):
    class Labelled(nn.Module):
        def __init__(self, classes=2):
            super().__init__()
            self.classes, self.told, self.up = classes, nn.Embedding(classes, 4), nn.Linear(4, 64)

        def forward(self, z, label):
            return self.up(z + self.told(label)).tanh().view(len(z), 1, 8, 8)

    class Ask(fastgan.Objective):
        noise = {"z": fastgan.Noise((4,))}

        def generate(self, step):
            return step.nets.G(step.noise.z, step.batch["label"])

    facts = {"seed": 0, "classes": ["a", "b"]}
    run = OpenRun("m", facts, 0, Ask(), {"G": Labelled()}, {}, {}, {}, torch.device("cpu"))
    traced = trace(run, batch=2)
    assert [*traced.inputs] == ["z", "label"]


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "kind"), [("text-to-image", "texts"), ("pix2pix", "images")])
def test_what_needs_more_than_noise_stays_with_the_folder(recipe, kind, tmp_path, capsys):
    width = flags("text-to-image") if kind == "texts" else ["--width=2"]
    small = [*width, "--size=16", "--batch-size=2", "--steps=1"]
    with pytest.raises(SystemExit):
        cli.main(["train", f"--recipe={recipe}", *small, f"--out={tmp_path / 'run'}"])
    capsys.readouterr()
    for ending in ("pt2", "html"):
        out = tmp_path / f"x.{ending}"
        form = "web" if ending == "html" else "torch"
        assert export(tmp_path / "run", "--format", form, "--out", out) == 2
        assert f"makes images from {kind}: only --format folder" in capsys.readouterr().err
