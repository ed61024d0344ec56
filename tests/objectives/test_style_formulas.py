"""Style-based networks and their regulariser against formulas written out in float64."""

import pytest
import torch
from torch.nn import functional as F

from fastgan.models.layers.modulated import ModulatedConv2d
from fastgan.models.stylegan2 import Blur, Discriminator, Generator
from fastgan.objectives.base import Step
from fastgan.objectives.style import RunningMean, Style, path_lengths


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("demodulate", [True, False])
def test_a_modulated_convolution_is_one_with_weights_for_each_sample(demodulate):
    layer = ModulatedConv2d(3, 4, 3, 5, demodulate).double()
    torch.nn.init.normal_(layer.bias)
    x, w = random(2, 3, 6, 6, seed=1).requires_grad_(), random(2, 5, seed=2).requires_grad_()
    s = w @ layer.style.weight.T / 5**0.5 + layer.style.bias
    weights = s[:, None, :, None, None] * layer.weight / 27**0.5
    if demodulate:
        weights = weights / (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    gold = F.conv2d(x.flatten(0, 1)[None], weights.flatten(0, 1), padding=1, groups=2)
    gold = gold.view(2, 4, 6, 6) + layer.bias.view(4, 1, 1)
    found, leaves = layer(x, w), [x, w, *layer.parameters()]
    torch.testing.assert_close(found, gold, rtol=1e-6, atol=1e-6)
    mine, theirs = (torch.autograd.grad(y.cos().sum(), leaves) for y in (found, gold))
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_path_is_the_length_of_the_jacobian_along_a_direction():
    """The root mean over layers, of a map whose Jacobian is written out; and its gradient."""
    A, styles, noise = random(12, 6), random(3, 2, 3, seed=1), random(3, 3, 2, 2, seed=2)
    A.requires_grad_()
    styles.requires_grad_()
    images = (styles.flatten(1).sin() @ A.T).view(3, 3, 2, 2)
    found = path_lengths(images, styles, noise)
    J = torch.stack([A * row.cos() for row in styles.flatten(1)])
    along = torch.einsum("bo,boi->bi", noise.flatten(1) / 2, J).view(3, 2, 3)
    gold = along.square().sum(2).mean(1).sqrt()
    torch.testing.assert_close(found.double(), gold, rtol=1e-5, atol=1e-6)
    mine, theirs = (
        torch.autograd.grad(y.sum(), [A, styles], retain_graph=True) for y in (found, gold)
    )
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def step_of(objective, G, position=3):
    nets = {"G": G, "D": lambda x: x.mean((1, 2, 3)), **objective.own_nets()}
    step = Step(
        objective,
        nets,
        5,
        batch={"image": torch.zeros(4, 1, 8, 8)},
        noise={"z": torch.randn(4, 8, generator=torch.Generator().manual_seed(1))},
        due={"path": 4},
        position=torch.tensor(position),
    )
    step.phase, step.live = "G", True
    return step


def test_the_penalty_follows_a_running_mean_and_reaches_the_generator():
    G = Generator(8, 1, 8, 2, 4)
    step = step_of(objective := Style(latent_shape=(8,), mixing=0.0, path=3.0), G)
    terms = objective.g_loss(step)
    images, styles = G(step.noise.z, styles=True)
    lengths = path_lengths(images, styles, step.rand("path", (1, 8, 8), "normal"))
    mean = 0.01 * lengths.mean().detach()
    torch.testing.assert_close(step.nets.path.mean, mean)
    torch.testing.assert_close(terms["path"], 3.0 * 4 * (lengths - mean).square().mean())
    terms["path"].backward()
    assert G.map[1].weight.grad.abs().sum() > 0
    assert G.convolutions[0].weight.grad.abs().sum() > 0
    together = RunningMean(0.5)
    assert [float(together.towards(torch.tensor(v))) for v in (1.0, 1.0)] == [0.5, 0.75]


def test_layers_before_the_cut_have_the_first_style_and_the_others_the_second():
    G = Generator(8, 1, 8, 2, 4)
    z, other = random(3, 8).float(), random(3, 8, seed=1).float()
    first, second = G.map(z), G.map(other)
    _, w = G(z, other, torch.tensor([1.0, 0.0, 0.5]), styles=True)
    assert G.layers == 4
    assert torch.equal(w[0], first[0].expand(4, -1))
    assert torch.equal(w[1], second[1].expand(4, -1))
    assert torch.equal(w[2], torch.stack([first[2], first[2], second[2], second[2]]))
    objective = Style(latent_shape=(8,), mixing=1.0)
    step = step_of(objective, G)
    assert not torch.equal(objective.generate(step), objective.sample(step))
    unmixed = Style(latent_shape=(8,), mixing=0.0)
    assert torch.equal(unmixed.generate(step), unmixed.sample(step))


def test_images_are_a_sum_of_enlarged_ones():
    """With every convolution's image bias alone, the sum of biases; enlarged by [1, 3, 3, 1]."""
    G = Generator(16, 1, 8, 2, 4)
    for i, layer in enumerate(G.to_image):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, 10.0**i)
    assert torch.allclose(G(torch.randn(2, 8)), torch.tensor(111.0))
    spike = torch.zeros(1, 1, 4, 4)
    spike[0, 0, 2, 2] = 16.0
    row = torch.tensor([0.0, 0, 0, 1, 3, 3, 1, 0])
    enlarged = Blur()(torch.nn.Upsample(scale_factor=2.0)(spike))
    torch.testing.assert_close(enlarged[0, 0], row[:, None] * row)
    assert Discriminator(16, 1, 2, 4)(torch.randn(4, 1, 16, 16)).shape == (4, 1)


def test_the_mean_of_path_lengths_is_that_of_all_processes():
    G = Generator(8, 1, 8, 2, 4)
    objective = Style(latent_shape=(8,), mixing=0.0)
    step = step_of(objective, G)
    step.total = lambda value: value + torch.tensor([8.0, 2.0])  # another process: 2 of length 4
    objective.g_loss(step)
    images, styles = G(step.noise.z, styles=True)
    lengths = path_lengths(images, styles, step.rand("path", (1, 8, 8), "normal")).detach()
    torch.testing.assert_close(step.nets.path.mean, 0.01 * (lengths.sum() + 8) / 6)
