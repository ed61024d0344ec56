"""Objectives on images from images against their formulas written out in float64, values and
gradients; degradations and the pool."""

import pytest
import torch
from torch import nn

from fastgan.models.pool import ImagePool
from fastgan.models.unet import PatchDiscriminator
from fastgan.objectives.base import Step, draw
from fastgan.objectives.translation import degradations
from fastgan.objectives.translation.cycle import Cycle
from fastgan.objectives.translation.frames import NextFrame
from fastgan.objectives.translation.inpainting import Inpainting
from fastgan.objectives.translation.paired import Translation, cut
from fastgan.objectives.translation.segmentation import Segmentation
from fastgan.objectives.translation.to_class import ToClass

SIDE = 16
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


class ToClassNet(nn.Module):
    """G(x, label) with a bias for each class."""

    def __init__(self):
        super().__init__()
        self.conv, self.shift = nn.Conv2d(2, 2, 3, 1, 1), nn.Embedding(3, 2)

    def forward(self, x, label):
        return torch.tanh(self.conv(x) + self.shift(label)[:, :, None, None])


def conv(given, made, end=True):
    layers = [nn.Conv2d(given, 4, 3, 1, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, made, 3, 1, 1)]
    return nn.Sequential(*layers, *([nn.Tanh()] if end else []))


def images(channels, seed=0, count=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, SIDE, SIDE, generator=generator, dtype=torch.float64) * 2 - 1


def step_of(objective, nets, batch, live):
    """A step in float64 whose fakes carry their graph where the phase is the generator's."""
    position = torch.zeros((), dtype=torch.int64)
    noise = draw(objective.noise, 0, position, len(next(iter(batch.values()))))
    step = Step(objective, nets, 0, batch=batch, noise=noise, position=position)
    step.phase, step.live = "phase", live
    return step


def check(terms, expected, parameters):
    """Sum of the terms and its gradients against the written-out loss."""
    total = sum(value.double() for value in terms.values())
    torch.testing.assert_close(total, expected, **CLOSE)
    mine = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
    reference = torch.autograd.grad(expected, parameters, allow_unused=True, retain_graph=True)
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(
            torch.zeros(()) if a is None else a.double(),
            torch.zeros(()) if b is None else b,
            rtol=1e-4,
            atol=1e-6,
            check_dtype=False,
        )


def softplus(x):
    return torch.log1p(torch.exp(-x.abs())) + x.clamp_min(0)


def test_pix2pix_is_half_the_logistic_loss_of_the_pair_and_100_l1():
    torch.manual_seed(0)
    G, D = conv(1, 2).double(), conv(3, 1, end=False).double()
    nets = {"G": G, "D": _Pair(D)}
    batch = {"image": images(2), "source": images(1, 1)}
    y, s = batch["image"], batch["source"]
    objective = Translation(pixel=100.0, adversarial=1.0)
    real, fake = D(torch.cat([y, s], 1)), D(torch.cat([G(s), s], 1))
    d = 0.5 * (softplus(-real).mean() + softplus(fake).mean())
    terms = objective.d_loss(step_of(objective, nets, batch, live=False))
    check(terms, d, list(D.parameters()))
    g = softplus(-fake).mean() + 100 * (G(s) - y).abs().mean()
    check(objective.g_loss(step_of(objective, nets, batch, live=True)), g, list(G.parameters()))


class _Pair(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, *given):
        return self.net(torch.cat([x, *given], 1))


def test_feature_matching_and_relativistic_losses_of_super_resolution():
    torch.manual_seed(0)
    G = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1), nn.PixelShuffle(4)).double()
    D = PatchDiscriminator(1, 0, 2, norm=False).double()
    batch = {"image": images(1)}
    objective = Translation(
        degradations.Downscale(4),
        "relativistic",
        adversarial=0.5,
        pixel=2.0,
        features=3.0,
        conditional=False,
    )
    step = step_of(objective, {"G": G, "D": D}, batch, live=True)
    small = objective.source(step).double()
    step.batch["source"] = small
    assert small.shape == (3, 1, 4, 4)
    made, wanted = D.features(G(small)), D.features(batch["image"])
    matched = torch.stack([(a - b).abs().mean() for a, b in zip(made[:-1], wanted[:-1])]).mean()
    expected = (
        2 * (G(small) - batch["image"]).abs().mean()
        + 3 * matched
        + 0.5 * softplus(wanted[-1] - made[-1]).mean()
    )
    check(objective.g_loss(step), expected, list(G.parameters()))


def test_inpainting_counts_and_changes_the_hole_alone():
    torch.manual_seed(0)
    G = conv(3, 2).double()
    batch = {"image": images(2)}
    objective = Inpainting(degradations.Holes(), adversarial=0.0, pixel=10.0)
    step = step_of(objective, {"G": G}, batch, live=True)
    source = objective.source(step)
    hole = (source[:, -1:] > 0).expand(-1, 2, -1, -1)
    assert 0.02 < hole.double().mean() < 0.8
    assert (source[:, :2][hole] == 0).all()
    made = G(source)
    check(
        objective.g_loss(step),
        10 * (made - batch["image"]).abs()[hole].mean(),
        list(G.parameters()),
    )
    assert torch.equal(step.fake[~hole], batch["image"][~hole])


def test_the_next_frame_has_squares_and_gradient_differences():
    torch.manual_seed(0)
    G = conv(4, 1).double()
    batch = {"source": images(4), "image": images(1, 1)}
    objective = NextFrame(adversarial=0.0, pixel=2.0, gradients=3.0)
    made, y = G(batch["source"]), batch["image"]
    gaps = torch.zeros((), dtype=torch.float64)
    for dim in (2, 3):
        gaps = gaps + (y.diff(dim=dim).abs() - made.diff(dim=dim).abs()).abs().mean()
    expected = 2 * ((made - y).square().mean() + 3 * gaps)
    step = step_of(objective, {"G": G}, batch, live=True)
    check(objective.g_loss(step), expected, list(G.parameters()))


def test_segans_critic_maximises_what_the_segmenter_minimises():
    torch.manual_seed(0)
    G, D = conv(2, 1).double(), PatchDiscriminator(2, 0, 2, norm=False).double()
    batch = {"source": images(2), "image": images(1, 1).sign()}
    objective = Segmentation(adversarial=0.7, pixel=2.0)
    s, y, p = batch["source"], (batch["image"] + 1) / 2, (G(batch["source"]) + 1) / 2
    layers = zip([s * p, *D.features(s * p)], [s * y, *D.features(s * y)])
    scales = torch.stack([(a - b).abs().mean() for a, b in layers]).mean()
    entropy = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    nets = {"G": G, "D": D}
    g = 2 * entropy + 0.7 * scales
    check(objective.g_loss(step_of(objective, nets, batch, live=True)), g, list(G.parameters()))
    d = objective.d_loss(step_of(objective, nets, batch, live=False))
    check(d, -scales, list(D.parameters()))


def test_cyclegan_comes_back_and_leaves_targets_alone():
    torch.manual_seed(0)
    G, F = conv(2, 2).double(), conv(2, 2).double()
    D, E = conv(2, 1, end=False).double(), conv(2, 1, end=False).double()
    pools = [ImagePool(4, 2, SIDE, SIDE).double() for _ in "ab"]
    nets = {"G": G, "F": F, "D": D, "E": E, "pool": pools[0], "pool_a": pools[1]}
    batch = {"source": images(2), "image": images(2, 1)}
    a, b = batch["source"], batch["image"]
    objective = Cycle(cycle=10.0, identity=0.5, adversarial=2.0)
    adversarial = (D(G(a)) - 1).square().mean() + (E(F(b)) - 1).square().mean()
    cycle = (F(G(a)) - a).abs().mean() + (G(F(b)) - b).abs().mean()
    same = (G(b) - b).abs().mean() + (F(a) - a).abs().mean()
    check(
        objective.g_loss(step_of(objective, nets, batch, live=True)),
        adversarial + 10 * cycle + 5 * same,
        [*G.parameters(), *F.parameters()],
    )
    d = 0.5 * (
        (D(b) - 1).square().mean()
        + D(G(a)).square().mean()
        + (E(a) - 1).square().mean()
        + E(F(b)).square().mean()
    )
    terms = objective.d_loss(step_of(objective, nets, batch, live=False))
    check(terms, d, [*D.parameters(), *E.parameters()])


def test_to_class_judges_the_class_and_comes_back():
    torch.manual_seed(0)
    G, D = ToClassNet().double(), ToClassNet().double()
    A = conv(2, 4, end=False).double()
    nets = {"G": G, "D": D, "A": A}
    batch = {"image": images(2), "label": torch.tensor([0, 1, 2])}
    objective = ToClass(classes=3, identity=4.0, adversarial=2.0, class_weight=3.0)
    step = step_of(objective, nets, batch, live=True)
    x, own, t = batch["image"], batch["label"], step.noise.target

    def entropy(images, label):
        scores = A(images).mean((2, 3))
        return -(scores - scores.logsumexp(1, keepdim=True))[torch.arange(3), label].mean()

    identity = (G(G(x, t), own) - x).abs().mean() + (G(x, own) - x).abs().mean()
    expected = (D(G(x, t), t) - 1).square().mean() + 3 * entropy(G(x, t), t) + 4 * identity
    check(objective.g_loss(step), expected, list(G.parameters()))
    step = step_of(objective, nets, batch, live=False)
    real, fake = (D(x, own) - 1).square().mean(), D(G(x, t), t).square().mean()
    made = torch.full((3,), 3)
    expected = 0.25 * (real + fake) + entropy(x, own) + entropy(G(x, t).detach(), made)
    check(objective.d_loss(step), expected, [*D.parameters(), *A.parameters()])


def test_degradations_are_functions_of_seed_and_sample():
    batch = {"image": images(1, count=6).float()}
    for degradation in (degradations.Holes(), degradations.Telescope((1, SIDE, SIDE))):
        whole = degradation(batch, draw(degradation.noise, 7, torch.tensor(10), 6))
        part = {"image": batch["image"][2:4]}
        alone = degradation(part, draw(degradation.noise, 7, torch.tensor(12), 2))
        assert torch.equal(whole[2:4], alone)
        other = degradation(batch, draw(degradation.noise, 8, torch.tensor(10), 6))
        assert not torch.equal(whole, other)


def test_a_given_mask_takes_the_place_of_holes():
    batch = {"image": images(1).float(), "mask": -torch.ones(3, 1, SIDE, SIDE)}
    batch["mask"][:, :, 2:5, 3:4] = 1
    source = degradations.Holes()(batch, {})
    assert (source[:, -1] > 0).sum() == 9
    assert torch.equal(source[:, -1:] > 0, batch["mask"] > 0)


def test_edges_lie_where_the_image_changes():
    image = -torch.ones(1, 3, 8, 8)
    image[..., 4:] = 1
    edges = degradations.Edges()({"image": image}, {})
    assert edges.shape == (1, 1, 8, 8)
    assert (edges[..., 3:5] == -1).all()
    assert (edges[..., :3] == 1).all()


def test_flux_is_the_inverse_of_the_stretch_and_blur_keeps_light():
    light = torch.rand(2, 1, 24, 24, dtype=torch.float64) * 3
    torch.testing.assert_close(
        degradations.flux(degradations.stretch(light)), light, rtol=1e-9, atol=1e-9
    )
    dot = torch.zeros(1, 1, 25, 25, dtype=torch.float64)
    dot[..., 12, 12] = 1
    seen = degradations.blur(dot, 1.5)
    assert seen.sum().item() == pytest.approx(1)
    y = torch.arange(25, dtype=torch.float64) - 12
    assert (seen.sum(3)[0, 0] * y**2).sum().sqrt().item() == pytest.approx(1.5, rel=0.03)


def test_the_pool_gives_back_what_it_was_given_and_is_saved():
    pool = ImagePool(8, 1, 1, 1)
    given = []
    numbers = torch.Generator().manual_seed(0)
    returned = []
    for first in range(0, 400, 4):
        batch = torch.arange(first, first + 4).float().view(4, 1, 1, 1)
        given += batch.flatten().tolist()
        out = pool(batch, torch.rand(4, generator=numbers))
        if first < 8:
            assert torch.equal(out, batch)
        returned += out.flatten().tolist()
    assert set(returned) <= set(given)
    old = sum(a != b for a, b in zip(given[8:], returned[8:])) / 392
    assert 0.4 < old < 0.6
    assert len(set(pool.images.flatten().tolist())) == 8
    assert len(set(returned[8:])) == 392
    assert set(pool.state_dict()) == {"images", "filled"}


def test_a_crop_is_the_same_square_of_image_and_source_and_lies_anywhere_inside():
    place = torch.tensor([[0.0, 0.0], [1 - 2**-24, 1 - 2**-24], [0.5, 0.25]])
    whole, source = images(2), images(1, 1)
    part, given = cut(12, place, whole, source)
    for sample, (top, left) in enumerate([(0, 0), (4, 4), (2, 1)]):
        square = slice(top, top + 12), slice(left, left + 12)
        assert torch.equal(part[sample], whole[sample][:, *square])
        assert torch.equal(given[sample], source[sample][:, *square])


def test_a_crop_of_a_smaller_source_is_of_whole_pixels_of_it():
    large = torch.arange(16.0).expand(1, 1, 16, 16).contiguous()
    place = torch.tensor([[0.0, 0.7]])
    part, given = cut(8, place, large, large[..., ::4, ::4].contiguous())
    assert part[0, 0, 0].tolist() == [8, 9, 10, 11, 12, 13, 14, 15]
    assert given[0, 0, 0].tolist() == [8, 12]


@pytest.mark.parametrize("adversarial", [0.0, 1.0])
def test_losses_of_a_crop_are_those_of_the_square_and_both_phases_see_it(adversarial):
    torch.manual_seed(0)
    nets = {"G": conv(1, 2).double(), "D": _Pair(conv(3, 1, end=False).double())}
    batch = {"image": images(2), "source": images(1, 1)}
    objective = Translation(adversarial=adversarial, crop=12)
    step = step_of(objective, nets, batch, live=True)
    found = [phase.loss(step) for phase in objective.phases()]
    parts = dict(zip(batch, cut(12, step.noise.place, *batch.values())))
    plain = Translation(adversarial=adversarial)
    wanted = step_of(plain, nets, parts, live=True)
    assert found == [phase.loss(wanted) for phase in plain.phases()]
