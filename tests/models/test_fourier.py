"""Fast Fourier convolutions against their formula written out, in half precision, and in a
network."""

import math

import pytest
import torch
from torch.nn import functional as F

import fastgan
from fastgan.models.layers.fourier import FourierBlock, FourierConv2d, FourierUnit
from fastgan.models.srresnet import FourierResNet


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def any_norms(net):
    """With gains and biases that are not those of the start."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 2)
            torch.nn.init.normal_(module.bias)
    return net


def waves(count, sign):
    """(count, count) complex exp(sign 2 pi i jk / count) / sqrt(count)."""
    k = torch.arange(count, dtype=torch.float64)
    angle = sign * 2 * math.pi * torch.outer(k, k) / count
    return torch.complex(angle.cos(), angle.sin()) / count**0.5


def written_norm(x, norm):
    mean = x.mean((0, 2, 3), keepdim=True)
    scaled = (x - mean) / ((x - mean).square().mean((0, 2, 3), keepdim=True) + 1e-5).sqrt()
    gain, bias = (p.view(1, -1, 1, 1) for p in (norm.weight, norm.bias))
    return (scaled * gain + bias).clamp_min(0)


def written_mix(x, layers):
    mixed = torch.einsum("oi,bihw->bohw", layers[0].weight[:, :, 0, 0], x)
    return written_norm(mixed, layers[1])


def written_unit(x, unit):
    height, width = x.shape[2:]
    kept = width // 2 + 1
    down, across = waves(height, -1), waves(width, -1)[:, :kept]
    spectrum = torch.einsum("um,bcmn,nv->bcuv", down, x.to(torch.complex128), across)
    parts = written_mix(torch.cat([spectrum.real, spectrum.imag], 1), unit.mix)
    count = parts.shape[1] // 2
    seen = torch.complex(parts[:, :count], parts[:, count:])
    columns = torch.einsum("mu,bcuv->bcmv", waves(height, 1), seen)
    twice = torch.full((kept,), 2.0, dtype=torch.float64)  # v and width - v are conjugate
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    back = waves(width, 1)[:kept] * twice[:, None]
    return torch.einsum("bcmv,vn->bcmn", columns, back).real


def written(x, layer):
    count = layer.parts[0]
    near, far = x[:, :count], x[:, count:]
    conv = lambda given, weight: F.conv2d(given, weight, padding=1)
    local = conv(near, layer.to_local.weight[:, :count]) + conv(
        far, layer.to_local.weight[:, count:]
    )
    h = written_mix(far, layer.spectral.narrow)
    spread = torch.einsum(
        "oi,bihw->bohw",
        layer.spectral.out.weight[:, :, 0, 0],
        h + written_unit(h, layer.spectral.unit),
    )
    return torch.cat([local, conv(near, layer.to_global.weight) + spread], 1)


@pytest.mark.parametrize("sides", [(4, 6), (5, 7), (6, 5)])
def test_a_fourier_convolution_is_its_formula(sides):
    torch.manual_seed(1)
    layer = any_norms(FourierConv2d(8).double())
    assert layer.parts == (2, 6)
    x = random(3, 8, *sides).requires_grad_()
    made, gold = layer(x), written(x, layer)
    torch.testing.assert_close(made, gold, rtol=1e-9, atol=1e-9)
    weights, inputs = random(*made.shape, seed=2), [x, *layer.parameters()]
    mine, theirs = (torch.autograd.grad((y * weights).sum(), inputs) for y in (made, gold))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_a_fourier_block_adds_two_of_them_to_its_input():
    torch.manual_seed(1)
    block, x = any_norms(FourierBlock(8).double()), random(3, 8, 4, 6)
    first, norm, _, second, last, _ = block.layers
    h = written_norm(written(x, first), norm)
    torch.testing.assert_close(
        block(x), x + written_norm(written(h, second), last), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_transforms_are_in_fp32_under_autocast(half, monkeypatch):
    torch.manual_seed(0)
    unit, x = any_norms(FourierUnit(6)), random(4, 6, 6, 5).float()  # no powers of two
    seen = []
    for name in ("rfft2", "irfft2"):
        real = getattr(torch.fft, name)
        spy = lambda given, real=real, **how: seen.append(given.dtype) or real(given, **how)
        monkeypatch.setattr(torch.fft, name, spy)

    def run(dtype):
        given = x.detach().to(dtype or torch.float32, copy=True).requires_grad_()
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            made = unit(given)
        return made, *torch.autograd.grad(
            (made.float() * x).sum(), [given, unit.mix[0].weight, unit.mix[1].bias]
        )

    for mine, gold in zip(run(half), run(None), strict=True):
        mine, gold = mine.detach().double(), gold.detach().double()
        # each number is rounded a few times on its way: four last places, of all errors' length
        assert (mine - gold).norm() < 4 * torch.finfo(half).eps * gold.norm()
    assert set(seen) == {torch.float32, torch.complex64}
    whole = FourierUnit(6).to(half)(x.to(half))
    assert whole.dtype == half
    assert torch.isfinite(whole).all()


def test_one_block_sees_the_whole_map():
    x = random(1, 8, 16, 16).float().requires_grad_()
    block = FourierBlock(8).eval()
    (gradient,) = torch.autograd.grad(block(x)[0, :, 0, 0].sum(), x)
    assert (gradient[0, :, 8:, 8:].abs().sum(0) > 0).all()


def test_a_branch_needs_channels():
    for channels, ratio in ((1, 0.75), (8, 0.0), (8, 1.0)):
        with pytest.raises(fastgan.FastganError, match="without a local or a global part"):
            FourierConv2d(channels, ratio)


def test_sides_are_halved_twice_and_larger_ones_three_times():
    seen = []
    for size, smallest in ((32, 8), (100, 25), (128, 16)):
        G = FourierResNet(size, 2, 1, 1, blocks=2)
        for block in G.layers:
            if isinstance(block, FourierBlock):
                block.register_forward_hook(lambda m, given, made: seen.append(made.shape[2:]))
        assert G.eval()(torch.zeros(1, 2, size, size)).shape == (1, 1, size, size)
        assert [seen.pop(), seen.pop()] == [(smallest, smallest)] * 2
    assert not seen
    for size, fitting in ((30, 28), (132, 128)):
        with pytest.raises(
            fastgan.FastganError, match=f"unlike {size} pixels: use --size {fitting}"
        ):
            FourierResNet(size)


def test_it_is_accelerated_and_what_the_table_lacks_is_kept():
    torch.manual_seed(0)
    G, x = FourierResNet(16, 2, 1, 4, blocks=1).eval(), random(2, 2, 16, 16).float()
    before = G(x)
    assert torch.equal(fastgan.accelerate(G)(x), before)
    rows = {row.path: row.status for row in fastgan.report(G).rows}
    ffc = "layers.9.layers.0"
    assert rows[f"{ffc}.spectral.unit.mix.0..2"] == "fused"
    for path in ("to_local", "to_global", "spectral.out"):
        assert rows[f"{ffc}.{path}"] == "kept"
    assert set(rows.values()) == {"fused", "kept"}
