"""Layers against their formulas written out, and what each promises at the start."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from fastgan.models import progressive, r3gan, sagan
from fastgan.models.layers.attention import CosineAttention, SelfAttention
from fastgan.models.layers.conditional import ClassAffine, ConditionedBatchNorm2d
from fastgan.models.layers.equalized import (
    EqualizedConv2d,
    EqualizedLinear,
    MinibatchDeviation,
    PixelNorm,
)
from fastgan.models.layers.grouped import GroupedBlock, MagnitudeConv2d
from fastgan.models.layers.heads import Head
from fastgan.models.srresnet import Translator


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_self_attention_is_softmax_over_pixels():
    layer = SelfAttention(8).double()
    x = random(2, 8, 4, 4)
    assert torch.equal(layer(x), x)  # gamma begins at 0
    torch.nn.init.constant_(layer.gamma, 0.5)
    flat = lambda t: t.flatten(2)
    pooled = lambda t: torch.nn.functional.max_pool2d(t, 2)
    query, key = flat(layer.query(x)), flat(pooled(layer.key(x)))
    weights = torch.einsum("bcq,bck->bqk", query, key).softmax(2)
    found = torch.einsum("bqk,bck->bcq", weights, flat(pooled(layer.value(x)))).view(2, 4, 4, 4)
    torch.testing.assert_close(layer(x), x + 0.5 * layer.out(found))


def test_cosine_attention_is_softmax_of_scaled_cosines_and_differentiable_twice():
    layer = CosineAttention(6, 2).double()
    torch.nn.init.normal_(layer.out.weight)
    x = random(2, 6, 3, 3).requires_grad_()
    query, key, value = layer.inputs(x).flatten(2).chunk(3, 1)
    found = []
    for head in (slice(0, 3), slice(3, 6)):
        q, k = (t[:, head] / t[:, head].norm(dim=1, keepdim=True) for t in (query, key))
        weights = (10 * torch.einsum("bcq,bck->bqk", q, k)).softmax(2)
        found.append(torch.einsum("bqk,bck->bcq", weights, value[:, head]))
    gold = layer.out(torch.cat(found, 1).view(2, 6, 3, 3))
    torch.testing.assert_close(layer(x), gold)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_grouped_blocks_do_nothing_at_the_start():
    x = random(2, 8, 5, 5).float()
    for options in ({}, {"magnitude": True}, {"heads": 2}):
        block = GroupedBlock(8, group=4, **options)
        assert torch.equal(block(x), x)
        assert block.mix.groups == 4


def test_magnitude_preserving_weights_have_length_one_whatever_their_values():
    conv = MagnitudeConv2d(8, 8, 3, groups=2)
    x = random(64, 8, 8, 8).float()
    before = conv(x)
    with torch.no_grad():
        conv.weight *= 7
    torch.testing.assert_close(conv(x), before)
    assert 0.8 < before[:, :, 1:-1, 1:-1].std().item() < 1.2


def test_r3gans_networks_fit_sizes_of_dcgan():
    for size in (16, 28):
        G = r3gan.Generator(size, 3, 8, 4, heads=2, magnitude=True, group=4)
        D = r3gan.Discriminator(size, 3, 4, heads=2, magnitude=True, group=4)
        images = G(torch.randn(2, 8))
        assert images.shape == (2, 3, size, size)
        assert D(images).shape == (2, 1)


def test_conditioned_batch_norm_is_batch_norm_with_a_gain_and_bias_a_sample():
    layer, x, told = ConditionedBatchNorm2d(3, 2), random(4, 3, 5, 5).float(), random(4, 2).float()
    gain = (1 + layer.gain(told))[:, :, None, None]
    plain = torch.nn.functional.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(layer(x, told), gain * plain + layer.shift(told)[:, :, None, None])
    assert int(layer.num_batches_tracked) == 1
    torch.testing.assert_close(layer.running_mean, 0.1 * x.mean((0, 2, 3)))


def test_projection_adds_the_inner_product_with_the_class():
    D = sagan.Discriminator(8, 1, 3, 4, attention=4).eval()
    image = random(1, 1, 8, 8).float().expand(3, -1, -1, -1)
    logits = D(image, torch.arange(3))
    h = torch.nn.functional.relu(D.blocks(image)).sum((2, 3))
    torch.testing.assert_close(logits[:, 0], D.dense(h)[:, 0] + (D.embedding.weight * h).sum(1))
    assert len(set(logits.flatten().tolist())) == 3


def test_sagans_generator_listens_to_every_part_of_its_input():
    for split in (False, True):
        G = sagan.Generator(16, 1, 3, 9, 4, attention=8, split=split)
        z = random(2, 9).float().requires_grad_()
        images = G(z, torch.tensor([0, 2]))
        assert images.shape == (2, 1, 16, 16)
        assert images.square().sum().backward() is None
        assert (z.grad != 0).all()
        assert list(G.attend) == ["0"]
        assert hasattr(G.dense, "parametrizations")


def test_equalised_layers_scale_their_weights_at_each_call():
    conv, x = EqualizedConv2d(3, 5, 3), random(2, 3, 4, 4).float()
    scaled = conv.weight * (2 / 27) ** 0.5
    torch.testing.assert_close(conv(x), torch.nn.functional.conv2d(x, scaled, padding=1))
    linear, y = EqualizedLinear(200, 300, gain=1.0, lr=0.01), random(50, 200).float()
    assert 0.9 < linear(y).std().item() < 1.1
    before = linear(y)
    with torch.no_grad():
        linear.weight += 1.0  # what an update does is 100 times smaller
    torch.testing.assert_close(
        linear(y) - before, (0.01 / 200**0.5) * y.sum(1, True).expand(50, 300)
    )


def test_pixel_norm_and_deviation_over_groups():
    x = random(6, 3, 2, 2)
    torch.testing.assert_close(PixelNorm()(x).square().mean(1), torch.ones(6, 2, 2).double())
    out = MinibatchDeviation(3)(x)
    assert torch.equal(out[:, :3], x)
    for group in (0, 1):
        mine = x[group::2]
        gold = ((mine - mine.mean(0)) ** 2).mean(0).sqrt().mean()
        torch.testing.assert_close(out[group::2, 3], gold.expand(3, 2, 2))
    assert MinibatchDeviation(4)(x)[:, 3].unique().numel() == 1


def test_growing_changes_nothing_at_alpha_0():
    """Images and logits of the next level are those of the level before, bit for bit."""
    alpha, double = torch.zeros(()), torch.nn.Upsample(scale_factor=2.0)
    shape = {"channels": 1, "width": 2, "most": 8}
    nets = [
        {
            "G": progressive.Generator(level, latent=4, **shape),
            "D": progressive.Discriminator(level, **shape),
        }
        for level in range(3)
    ]
    z, one = random(4, 4).float(), torch.ones(())
    for before, after in itertools.pairwise(nets):
        progressive.carry(before, after)
        small = before["G"](z, one)
        large = after["G"](z, alpha)
        assert torch.equal(large, double(small))
        assert torch.equal(after["D"](large, alpha), before["D"](small, one))
        assert not torch.equal(after["G"](z, one), large)


def test_a_translator_is_told_the_class_everywhere_not_at_the_borders_alone():
    """Constant planes beside the image would be gone after the first instance norm."""
    torch.manual_seed(0)
    G = Translator(3, 3, 8, 1, classes=2)
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    a, b = (G(x, torch.tensor([label]))[..., 24:40, 24:40] for label in (0, 1))
    assert (a - b).abs().mean() > 0.05


def test_a_class_affine_is_its_formula():
    torch.manual_seed(0)
    layer = ClassAffine(2, 3).double()
    x, label = torch.randn(2, 2, 4, 4, dtype=torch.float64), torch.tensor([2, 0])
    made = layer(x, label)
    for i, k in enumerate(label.tolist()):
        for c in range(2):
            gold = x[i, c] * (1 + layer.gain.weight[k, c]) + layer.shift.weight[k, c]
            torch.testing.assert_close(made[i, c], gold)


def test_a_head_is_in_fp32_where_autocast_is_not():
    torch.manual_seed(0)
    body, head = nn.Linear(8, 64), Head(64, 1)
    x = torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        h = body(x)
        found = head(h)
    assert (h.dtype, found.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(found, F.linear(h.float(), head.weight, head.bias))
    plain = nn.Linear(64, 1).double()
    same = Head(64, 1).double()
    same.load_state_dict(plain.state_dict())
    assert torch.equal(same(h.double()), plain(h.double()))
