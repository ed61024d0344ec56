"""The page that runs a generator: its pixels against PyTorch's, in a browser."""

import re

import pytest
import torch
from browser import CHROMIUM, MISSING, Browser
from run_support import in_a_hurry, tiny
from torch import nn
from torch.nn import functional

import fastgan
from fastgan.export.web import export_web

in_browser = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


def trained(net, folder, latent):
    options = {"nets": {"G": net, "D": nn.Sequential(nn.Flatten(), nn.Linear(64, 1))}}
    with tiny(folder, latent_shape=latent, **options) as trainer:
        trainer.fit(2)
    return folder


def convolutional():
    return nn.Sequential(
        nn.ConvTranspose2d(4, 6, 2, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 4, 2, 1, groups=2), nn.LeakyReLU(0.2), nn.BatchNorm2d(4),
        nn.Upsample(scale_factor=2), nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6), nn.SiLU(),
        nn.Conv2d(6, 1, 3, padding=2, dilation=2), nn.Tanh(),
    )  # fmt: skip


def dense():
    return nn.Sequential(
        nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Sigmoid(), nn.Linear(16, 64), nn.Tanh(),
        nn.Unflatten(1, (1, 8, 8)),
    )  # fmt: skip


class Uncommon(nn.Module):
    """What recipes use beside layers: views, pools, gates, attention, bilinear upsampling."""

    def __init__(self):
        super().__init__()
        self.first = nn.ConvTranspose2d(4, 12, 8)
        self.last = nn.Conv2d(6, 1, 3, 1, 1)
        for layer in (self.first, self.last):
            nn.init.normal_(layer.weight, 0, 1)
        self.register_buffer("fade", torch.tensor(0.3))

    def forward(self, z):
        x = self.first(z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt())
        x = functional.glu(x, 1)
        small, large = functional.max_pool2d(x, 2), functional.adaptive_avg_pool2d(x, 4)
        small = functional.softplus(torch.lerp(small, large, self.fade))
        q, k, v = small.flatten(2).transpose(1, 2).split((2, 2, 2), 2)
        seen = functional.scaled_dot_product_attention(3 * q, 3 * k, v).transpose(1, 2)
        seen = torch.cat((seen.unflatten(2, (4, 4)), small[:, 2:]), 1)
        up = functional.interpolate(seen, scale_factor=2.0, mode="bilinear")
        return torch.tanh(self.last(up * x.permute(0, 1, 3, 2)))


@in_browser
@pytest.mark.slow
def test_pixels_are_pytorchs(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    browser = Browser()
    try:
        for name, net, latent in (
            ("conv", convolutional(), (4, 1, 1)),
            ("dense", dense(), (4,)),
            ("uncommon", Uncommon(), (4, 1, 1)),
        ):
            torch.manual_seed(3)
            run, page = trained(net, tmp_path / name, latent), tmp_path / f"{name}.html"
            _, difference = export_web(run, page, trust=True)
            assert difference <= 1
            browser.open(page.as_uri())
            assert int(browser.run("document.getElementById('check').dataset.difference")) <= 2
            browser.run(
                "[...document.querySelectorAll('input')].forEach((slider, i) => { slider.value = "
                "[-1.5, 0.5, 2, -0.25][i]; slider.dispatchEvent(new Event('input')) })"
            )
            seen = browser.run(
                "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 8, 8).data]"
            )
            z = torch.tensor([-1.5, 0.5, 2, -0.25]).view(1, *latent)
            wanted = fastgan.load(run, trust=True)(z).add(1).mul(127.5).flatten()
            assert name != "uncommon" or wanted.std() > 20  # grey would show nothing
            assert (torch.tensor(seen[::4]) - wanted).abs().max() <= 2
            browser.run("document.getElementById('again').click()")
        assert browser.problems == []
    finally:
        browser.close()


def test_a_layer_without_a_word_is_named(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    net = nn.Sequential(nn.ConvTranspose2d(4, 1, 8), nn.Softsign())
    run = trained(net, tmp_path / "run", (4, 1, 1))
    with pytest.raises(fastgan.FastganError, match=r"layer G\.1 \(Softsign\) of .* needs abs"):
        export_web(run, tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


def test_whatever_a_name_holds_is_text(tmp_path, monkeypatch):
    in_a_hurry(monkeypatch)
    run = trained(dense(), tmp_path / "<script>alert(1)<", (4,))
    export_web(run, tmp_path / "x.html")
    text = (tmp_path / "x.html").read_text()
    assert "<script>alert" not in text
    assert len(re.findall("<script", text)) == 3
