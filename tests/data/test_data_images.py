"""Image files of every kind become what was asked for, or are refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from fastgan.data.pixels import Unreadable, decode

quick = settings(max_examples=60, deadline=None)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


MODES = {
    "1": "PNG",
    "L": "PNG",
    "LA": "PNG",
    "P": "PNG",
    "PA": "PNG",
    "RGB": "PNG",
    "RGBA": "PNG",
    "I;16": "PNG",
    "CMYK": "JPEG",
    "YCbCr": "JPEG",
    "LAB": "TIFF",
}


def of_mode(mode: str, height: int, width: int, seed: int) -> bytes:
    rgba = Image.fromarray(noise(height, width, 4, seed))
    if mode == "I;16":
        return encoded(Image.fromarray(noise(height, width, 2, seed).view("<u2")[:, :, 0]))
    if mode == "PA":  # a palette with transparency, as PNG writes it
        return encoded(rgba.convert("RGB").quantize(16), transparency=3)
    if mode == "LAB":
        lab = ImageCms.profileToProfile(
            rgba.convert("RGB"),
            ImageCms.createProfile("sRGB"),
            ImageCms.createProfile("LAB"),
            outputMode="LAB",
        )
        return encoded(lab, "TIFF")
    return encoded(rgba.convert("RGB").convert(mode) if mode != "RGBA" else rgba, MODES[mode])


@quick
@given(
    mode=st.sampled_from(sorted(MODES)),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.none() | st.tuples(st.integers(1, 24), st.integers(1, 24)),
    channels=st.sampled_from([None, 1, 3, 4]),
    seed=st.integers(0, 99),
)
def test_every_mode_gives_the_asked_shape(mode, height, width, size, channels, seed):
    image = decode(of_mode(mode, height, width, seed), size, channels)
    grey = mode in ("1", "L", "LA", "I;16")
    assert image.dtype == np.uint8
    assert image.shape == (*(size or (height, width)), channels or (1 if grey else 3))


def test_pixels_come_back_unchanged_where_nothing_is_asked():
    pixels = noise(13, 7, 3)
    assert np.array_equal(decode(encoded(Image.fromarray(pixels))), pixels)
    assert np.array_equal(decode(encoded(Image.fromarray(pixels[:, :, 0]))), pixels[:, :, :1])


def test_transparent_pixels_are_composited_on_white():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (255, 0, 0, 255)
    pixels[2:] = (0, 0, 255, 0)
    data = encoded(Image.fromarray(pixels))
    image = decode(data, None, 3)
    assert (image[:2] == (255, 0, 0)).all()
    assert (image[2:] == 255).all()
    assert np.array_equal(decode(data, None, 4)[..., 3], pixels[..., 3])
    half = decode(encoded(Image.new("LA", (2, 2), (0, 128))), None, 1)
    assert np.abs(half.astype(int) - 127).max() <= 1


def test_colour_under_transparency_does_not_bleed_when_resized():
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, :, 0] = 255  # red, but visible on the left half only
    pixels[:, 16:] = (0, 255, 0, 0)
    image = decode(encoded(Image.fromarray(pixels)), (5, 5), 3).astype(int)
    assert (image[..., 1] <= image[..., 2] + 1).all()  # red over white never gets greener than blue


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64 * 64).astype("<u2").reshape(64, 64)
    image = decode(encoded(Image.fromarray(ramp)))
    assert np.abs(image[:, :, 0] - ramp / 257).max() <= 0.5


@pytest.mark.parametrize(("mode", "tolerance"), [("CMYK", 6), ("LAB", 3), ("YCbCr", 4)])
def test_colour_spaces_keep_the_colour(mode, tolerance):
    colour = (200, 100, 50)
    source = Image.new("RGB", (16, 16), colour)
    if mode == "LAB":
        source = ImageCms.profileToProfile(
            source, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        data = encoded(source, "TIFF")
    else:
        data = encoded(source.convert(mode), "JPEG", quality=95)
    assert np.abs(decode(data).astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation):
    pixels = noise(6, 4, 3)
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(encoded(Image.fromarray(pixels), exif=exif)), turn(pixels))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encoded(first, kind, save_all=True, append_images=[second], **options), None, 3)
    assert (image == (255, 0, 0)).all()


def test_resize_is_antialiased_centred_and_keeps_the_aspect():
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    small = decode(encoded(Image.fromarray(checker.astype(np.uint8))), (8, 8))
    assert np.abs(small.astype(int) - 127).max() <= 3  # picking pixels would give 0 or 255
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20], wide[:, 20:40], wide[:, 40:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    assert (decode(encoded(Image.fromarray(wide)), (20, 20)) == (0, 255, 0)).all()
    middle = decode(encoded(Image.fromarray(wide)), (10, 10))
    assert (
        np.abs(middle.astype(int)[:, 1:-1] - (0, 255, 0)).max() <= 40
    )  # Lanczos rings at the cut, and no further
    pixels = noise(9, 12, 3)
    assert np.array_equal(
        decode(encoded(Image.fromarray(pixels)), (9, 9)), pixels[:, 1:10]
    )  # a crop alone moves whole pixels


@quick
@given(
    value=st.integers(0, 255),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(1, 50),
)
def test_a_flat_image_stays_flat(value, height, width, size):
    data = encoded(Image.new("L", (width, height), value))
    assert np.abs(decode(data, (size, size)).astype(int) - value).max() <= 1


def test_large_jpegs_are_decoded_small_and_look_the_same():
    smooth = Image.fromarray(noise(9, 12, 3)).resize((1200, 900), Image.Resampling.BICUBIC)
    data = encoded(smooth, "JPEG", quality=95)
    whole = decode(encoded(smooth), (64, 64))
    assert np.abs(decode(data, (64, 64)).astype(int) - whole).mean() < 2


def bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes((side + 7) // 8 + 1) * 64)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "side", [9_600, 50_000]
)  # Pillow warns of the first and refuses the second
def test_decompression_bombs_are_refused(side):
    with pytest.raises(Unreadable, match="bomb"):
        decode(bomb(side), (64, 64), 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"8BPS\0\1",
        b"\0\0\1\0",
        b"\x89PNG\r\n\x1a\n",
        b"P6 1 1 255\n",
        b"RIFF",
    ],
)
def test_what_is_no_image_is_refused(data):
    with pytest.raises(Unreadable):
        decode(data)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"]),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
)
def test_damaged_files_are_refused_or_decoded_never_worse(kind, cut, changes):
    data = bytearray(encoded(Image.fromarray(noise(12, 10, 3)), kind))
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        image = decode(bytes(data[: int(cut * len(data))]), (8, 8), 3)
    except Unreadable:
        return
    assert image.shape == (8, 8, 3)
