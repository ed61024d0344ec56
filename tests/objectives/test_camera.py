"""The second-order degradation: each part against a plain reference of its own, the whole against
images that have their sizes instead of lying on a canvas."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import fastgan
from fastgan.data import rendered
from fastgan.objectives.base import draw
from fastgan.objectives.translation.camera import blurring, resizing, second_order
from fastgan.objectives.translation.camera.blurring import blurred, kernels, sinc
from fastgan.objectives.translation.camera.jpeg import jpeg
from fastgan.objectives.translation.camera.resizing import AREA, BICUBIC, BILINEAR, resized, weights
from fastgan.objectives.translation.camera.second_order import FIRST, LAST, NUMBERS, SECOND, Camera
from fastgan.objectives.translation.degradations import Downscale

AT_ONCE = torch.tensor(0)


def t(*values):
    return torch.tensor(values, dtype=torch.float32)


def landscapes(count, side):
    """(count, 3, side, side) in [-1, 1]."""
    pixels = torch.from_numpy(rendered.landscapes(count, side)["image"])
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def j1(x):
    """Bessel's J1 by its integral, in float64: the trapezoid rule of a periodic function."""
    turn = np.arange(400) * 2 * np.pi / 400
    return np.cos(turn - np.multiply.outer(x, np.sin(turn))).mean(-1)


def kernel_of(value, most, reach):
    """A kernel from its value at each (x, y), one by one."""
    made = np.zeros((2 * most + 1, 2 * most + 1))
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            made[y + most, x + most] = value(x, y)
    return made / made.sum()


KINDS = {
    "gaussian": (0.1, False, lambda q, b: math.exp(-q / 2)),
    "turned": (0.5, True, lambda q, b: math.exp(-q / 2)),
    "generalised": (0.75, False, lambda q, b: math.exp(-(q ** (0.5 + 3.5 * b)) / 2)),
    "generalised, turned": (0.83, True, lambda q, b: math.exp(-(q ** (0.5 + 3.5 * b)) / 2)),
    "plateau": (0.9, False, lambda q, b: 1 / (1 + q ** (1 + b))),
    "plateau, turned": (0.98, True, lambda q, b: 1 / (1 + q ** (1 + b))),
}


def test_kernels_are_their_formulas():
    b, angle = 0.3, (2 * 0.7 - 1) * math.pi
    u = {name: torch.full((len(KINDS) + 1,), 0.5) for name in blurring.KINDS}
    u |= {
        "sigma_x": u["kind"] * 0 + 0.9,
        "sigma_y": u["kind"] * 0 + 0.2,
        "shape": u["kind"] * 0 + b,
    }
    u["kind"] = t(*(kind for kind, _, _ in KINDS.values()), 0.1)
    u["angle"] = u["kind"] * 0 + 0.7
    u["sinc"] = t(*[0.5] * len(KINDS), 0.05)
    made = kernels(u, (0.2, 3.0), (3, 10), share=1.0)
    x_deviation, y_deviation = 0.2 + 2.8 * 0.9, 0.2 + 2.8 * 0.2
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    for (name, (_, two, value)), kernel in zip(KINDS.items(), made):
        squares = np.diag([x_deviation**2, (y_deviation if two else x_deviation) ** 2])
        inverse = np.linalg.inv(turn @ squares @ turn.T)
        q = lambda x, y, inverse=inverse: float(np.array([x, y]) @ inverse @ np.array([x, y]))
        wanted = kernel_of(lambda x, y, q=q, value=value: value(q(x, y), b), 10, 7)
        np.testing.assert_allclose(kernel.numpy(), wanted, atol=1e-6, err_msg=name)
    w = math.pi * (0.2 + 0.8 * 0.5)
    low_pass = lambda x, y: low_pass_value(w, x, y)
    np.testing.assert_allclose(made[-1].numpy(), kernel_of(low_pass, 10, 7), atol=1e-6)


def low_pass_value(w, x, y):
    r = math.hypot(x, y)
    return w * float(j1(w * r)) / (2 * math.pi * r) if r else w * w / (4 * math.pi)


@pytest.mark.parametrize("share", [0.35, 1.0])
def test_kernels_have_sum_one_and_low_passes_keep_what_they_say(share):
    u = dict(zip(blurring.KINDS, torch.rand(8, 200, generator=torch.Generator().manual_seed(0))))
    made = kernels(u, (0.2, 3.0), (1, 6), share)
    torch.testing.assert_close(made.sum((1, 2)), torch.ones(200))
    # beyond its reach, of 1 to 6 pixels, a kernel is 0: the corner has a value in a sixth of them
    assert 0.08 < (made[:, 0, 0] != 0).float().mean() < 0.27
    cutoff = blurring.cutoff_of(t(0.0, 0.5, 1.0), 1 / 3, share) / math.pi
    assert cutoff.tolist() == pytest.approx([3**-share, (1 + 3**-share) / 2, 1])
    # waves of half the cutoff pass, those twice as short as it do not; a kernel cut off at 10
    # pixels rings by a tenth
    kernel = sinc(t(math.pi / 3), t(10), 10)[0]
    at = torch.arange(-10, 11)
    for frequency, kept in ((math.pi / 6, 1.0), (2 * math.pi / 3, 0.0)):
        assert (kernel.sum(0) * (at * frequency).cos()).sum().item() == pytest.approx(kept, abs=0.1)


def test_each_sample_is_blurred_by_its_own_kernel_or_not():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 2, 9, 7, generator=generator)
    kernel = torch.rand(3, 5, 5, generator=generator)
    made = blurred(images, kernel, torch.tensor([True, False, True]))
    assert torch.equal(made[1], images[1])
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    for sample in (0, 2):
        for channel in range(2):
            for y, x in ((0, 0), (4, 3), (8, 6)):
                seen = padded[sample, channel, y : y + 5, x : x + 5]
                wanted = (seen.double() * kernel[sample].double()).sum().item()
                assert made[sample, channel, y, x].item() == pytest.approx(wanted, rel=1e-5)


def of_size(image, wanted, way):
    """(1, C, h, w) resized as PyTorch or plain repeats and means do it."""
    if way == AREA:
        for dim, size in zip((2, 3), wanted):
            many = image.repeat_interleave(size, dim)
            image = many.unflatten(dim, (size, -1)).mean(dim + 1)
        return image
    mode = {BILINEAR: "bilinear", BICUBIC: "bicubic"}[way]
    return F.interpolate(image, size=wanted, mode=mode, align_corners=False)


@pytest.mark.parametrize("way", [AREA, BILINEAR, BICUBIC])
def test_images_of_any_size_on_a_canvas_are_resized_as_alone(way):
    generator = torch.Generator().manual_seed(way)
    pairs = [
        ((9, 7), (4, 7)),
        ((9, 7), (12, 2)),
        ((5, 6), (5, 6)),
        ((1, 3), (8, 8)),
        ((8, 5), (3, 3)),
    ]
    images = torch.rand(len(pairs), 2, 9, 7, generator=generator)
    given, wanted = (
        tuple(t(*(pair[k][axis] for pair in pairs)) for axis in range(2)) for k in range(2)
    )
    made = resized(images, given, wanted, (12, 9), torch.full((len(pairs),), float(way)))
    for i, ((h, w), size) in enumerate(pairs):
        alone = of_size(images[i : i + 1, :, :h, :w].double(), size, way).float()
        behind = (0, 9 - size[1], 0, 12 - size[0])
        whole = F.pad(alone, behind, mode="replicate")
        torch.testing.assert_close(made[i : i + 1], whole, rtol=0, atol=1e-5)


def test_weights_sum_to_one_and_change_nothing_at_the_same_size():
    size = torch.arange(1, 13).float()
    for way in (AREA, BILINEAR, BICUBIC):
        ways = torch.full((12,), float(way))
        for wanted in (size.flip(0), size * 0 + 5):
            made = weights(size, wanted, 12, 14, ways)
            torch.testing.assert_close(made.sum(2), torch.ones(12, 14), rtol=0, atol=2e-6)
        same = weights(size * 0 + 12, size * 0 + 12, 12, 12, ways)
        assert torch.equal(same, torch.eye(12).expand(12, 12, 12))


def stored(pixels, quality):
    """What Pillow's libjpeg leaves of (H, W, C) uint8."""
    kept = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(kept, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(kept)).reshape(pixels.shape).astype(float)


@pytest.mark.parametrize("quality", [30, 49, 75, 95])
@pytest.mark.parametrize(("drawn", "most"), [(rendered.faces, 0.25), (rendered.landscapes, 0.8)])
def test_jpeg_is_libjpegs(drawn, most, quality):
    # libjpeg transforms in integers, so that a coefficient near half a step may be rounded the
    # other way, which changes 64 pixels by some levels; and colours are rounded thrice, by half a
    # level each. Both are less than half of what is lost.
    pixels = drawn(6, 52)["image"][:, :, :37]  # not of whole blocks
    if most < 0.5:
        pixels = pixels[..., :1]
    theirs = np.stack([stored(image, quality) for image in pixels])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    made = jpeg(images, torch.full((6,), float(quality))).permute(0, 2, 3, 1).numpy() * 255
    gaps = np.abs(made - theirs)
    assert gaps.mean() < min(most, np.abs(theirs - pixels).mean() / 2)
    assert np.median(gaps) <= (most > 0.5)
    assert np.abs(made - np.rint(made)).max() < 1e-4


def test_each_sample_has_its_own_quality():
    images = (landscapes(3, 20) + 1) / 2
    qualities = t(30, 60, 95)
    made = jpeg(images, qualities)
    lost = (made - images).abs().mean((1, 2, 3))
    assert lost[0] > lost[1] > lost[2] > 0
    for i in range(3):
        assert torch.equal(made[i : i + 1], jpeg(images[i : i + 1], qualities[i : i + 1]))


def settings(count, **values):
    """Settings of a pass, alike for all samples."""
    return {name: torch.full((count,), values.get(name, 0.5)) for name in NUMBERS}


def test_noise_has_the_deviation_that_it_says():
    camera, side = Camera((3, 256, 256)), 64
    z = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    count = 3 * side**2  # of independent numbers: a deviation is found to 1 / sqrt(2 n), 0.6 %
    for level in (0.25, 1.0):
        flat = torch.full((1, 3, side, side), 0.5)
        for light in (0.3, 0.6):
            x = flat * 0 + light
            coarse = {"level": level / 8, "grey": 0.9}
            noise = camera.noisy(x, FIRST, settings(1, flat=0.1, **coarse), z) - x
            wanted = (1 + 29 * level / 8) / 255
            assert noise.std().item() == pytest.approx(wanted, rel=5 / math.sqrt(2 * count))
            noise = camera.noisy(x, FIRST, settings(1, flat=0.9, **coarse), z) - x
            wanted = (0.05 + 2.95 * level / 8) * math.sqrt(light / 256)
            assert noise.std().item() == pytest.approx(wanted, rel=5 / math.sqrt(2 * count))
    x = torch.tensor([0.2, 0.5, 0.6]).view(1, 3, 1, 1).expand(1, 3, side, side)
    grey = camera.noisy(x, SECOND, settings(1, flat=0.9, level=0.2, grey=0.1), z) - x
    torch.testing.assert_close(grey[:, 0], grey[:, 1], rtol=0, atol=1e-6)
    luma = 0.299 * 0.2 + 0.587 * 0.5 + 0.114 * 0.6
    wanted = (0.05 + 2.45 * 0.2) * math.sqrt(luma / 256)
    assert grey[:, 0].std().item() == pytest.approx(wanted, rel=5 / math.sqrt(2 * side**2))


def test_sizes_are_of_the_papers_range_and_smaller_images_change_less():
    numbers = torch.rand(2, 4000, generator=torch.Generator().manual_seed(0))
    u = dict(zip(("direction", "amount"), numbers))
    for side, low, high in ((256, 0.15, 1.5), (1024, 0.15, 1.5), (64, 0.15**0.5, 1.5**0.5)):
        camera = Camera((3, side, side))
        height, width = camera.sizes(FIRST, u)
        assert torch.equal(height, width)
        assert low * side - 1 < height.min() < (low + 0.02) * side + 1
        assert (
            (high - 0.02) * side - 1 < height.max() <= int(high * side) == camera.canvas(FIRST)[0]
        )
        # of 4,000: a share is found to 0.8 %; 1 % of sizes that change are rounded to the same
        assert (height == side).float().mean().item() == pytest.approx(0.1, abs=0.05)
        assert (height > side).float().mean().item() == pytest.approx(0.2, abs=0.04)
    height, _ = Camera((3, 256, 256)).sizes(SECOND, u)
    assert 0.3 * 64 - 1 < height.min() < 22
    assert height.max() == int(1.2 * 64) - 1 or height.max() == int(1.2 * 64)
    reaches = [Camera((3, side, side)).reach for side in (16, 32, 64, 128, 256, 512)]
    assert reaches == [(1, 2), (1, 4), (2, 5), (2, 7), (3, 10), (3, 10)]


def alone(camera, image, numbers, first, second):
    """One sample's degradation step by step, each image of its own size."""
    u, v = (dict(zip(NUMBERS, numbers[at:])) for at in (0, len(NUMBERS)))
    last = dict(zip(LAST, numbers[2 * len(NUMBERS) :]))
    batched = lambda numbers: {name: value.view(1) for name, value in numbers.items()}
    quality = lambda numbers: 30 + (numbers["quality"] * 66).floor().view(1)
    x = (image[None] + 1) / 2
    for one, own, z in ((FIRST, u, first), (SECOND, v, second)):
        if own["blur"] < one.blur:
            sigma = (0.2, one.sigma * camera.share)
            kernel = kernels(batched(own), sigma, camera.reach, camera.share)
            x = blurred(x, kernel, torch.tensor([True]))
        height, width = (int(size) for size in camera.sizes(one, batched(own)))
        x = of_size(x, (height, width), int(own["way"] * 3)).clamp(0, 1)
        x = camera.noisy(x, one, batched(own), z[None, :, :height, :width])
        if one is FIRST or last["late"] >= 0.5:
            x = jpeg(x, quality(own))
    x = of_size(x, camera.small, int(last["way"] * 3))
    if last["ringing"] < 0.8:
        low, high = camera.reach
        reach = low + int(last["reach"] * (high - low + 1))
        least = 3.0**-camera.share
        cutoff = math.pi * (least + (1 - least) * last["cutoff"])
        x = blurred(x, sinc(cutoff.view(1), t(reach), high), torch.tensor([True]))
    x = x.clamp(0, 1)
    return (jpeg(x, quality(v)) if last["late"] < 0.5 else x).mul(255).round() / 127.5 - 1


@pytest.mark.parametrize(("channels", "side", "factor"), [(3, 48, 4), (1, 20, 2)])
def test_a_batch_on_canvases_is_each_image_at_its_own_sizes(channels, side, factor):
    camera = Camera((channels, side, side), factor)
    images = landscapes(32, side)[:, :channels]
    noise = draw(camera.noise, 3, AT_ONCE, 32)
    made = camera({"image": images}, noise)
    assert made.shape == (32, channels, side // factor, side // factor)
    gaps = []
    for i in range(32):
        parts = (noise[name][i] for name in ("settings", "first", "second"))
        gaps.append(((alone(camera, images[i], *parts)[0] - made[i]) * 127.5).abs())
    # sums in another order move a value across half a level now and then, and JPEG a coefficient
    gaps = torch.stack(gaps)
    assert (gaps.amax((1, 2, 3)) < 0.5).sum() >= 20
    assert gaps.mean() < 0.2


def test_a_sample_is_a_function_of_seed_and_place_alone():
    camera, images = Camera((3, 32, 32)), landscapes(8, 32)
    whole = camera({"image": images}, draw(camera.noise, 7, torch.tensor(10), 8))
    for at, count in ((0, 1), (3, 2), (5, 3)):
        part = draw(camera.noise, 7, torch.tensor(10 + at), count)
        assert torch.equal(camera({"image": images[at : at + count]}, part), whole[at : at + count])
    other = camera({"image": images}, draw(camera.noise, 8, torch.tensor(10), 8))
    assert all((a != b).any() for a, b in zip(whole, other))
    levels = (whole + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert whole.abs().max() <= 1


def test_autocast_changes_nothing():
    camera, images = Camera((3, 32, 32)), landscapes(4, 32)
    noise = draw(camera.noise, 0, AT_ONCE, 4)
    plain = camera({"image": images}, noise)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(camera({"image": images}, noise), plain)


def test_it_is_worse_than_bicubic_reduction_and_not_lost():
    camera, images = Camera((3, 64, 64)), landscapes(64, 64)
    small = Downscale(4)({"image": images}, {})
    made = camera({"image": images}, draw(camera.noise, 0, AT_ONCE, 64))
    gap, contrast = (x.flatten(1).std(1) for x in (made - small, small))
    assert gap.min() > 4 / 255, "two levels: visible"
    assert (gap < 0.6 * contrast).float().mean() > 0.9, "the scene is more than what was done to it"


@pytest.mark.parametrize("channels", [2, 4])
def test_opacity_is_refused(channels):
    with pytest.raises(fastgan.FastganError, match="--channels 3"):
        Camera((channels, 32, 32))


def test_passes_are_the_papers():
    assert dataclasses.astuple(FIRST) == (1.0, 3.0, 0.2, 0.7, (0.15, 1.5), 30.0, 3.0)
    assert dataclasses.astuple(SECOND) == (0.8, 1.5, 0.3, 0.4, (0.3, 1.2), 25.0, 2.5)
    assert second_order.QUALITY == (30, 95)
    assert resizing.AREA == 0
