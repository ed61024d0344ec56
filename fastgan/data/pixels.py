"""One encoded image in, one uint8 array out: the only place that calls an image decoder."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from fastgan.data.formats.naming import HEAD, named

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
ANIMATED = ("GIF", "WEBP", "PNG")
"""Those of `FORMATS` whose further images are frames in time; of others they are pages."""
MAX_PIXELS = 89_478_485  # Pillow's own warning level: 2^30 bytes / 4 / 3, about 9459 x 9459
MAX_FRAMES_PIXELS = 4 * MAX_PIXELS
"""Of all frames of an animation, counted at their own size or the one asked for, whichever is
larger: they are in memory together."""
MAX_FILE_BYTES = 512 << 20
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GREY = ("1", "L", "LA", "La", "I", "F")
_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")


SOFTWARE, GRID = 0x0131, "fastgan: a grid of samples"
"""Tag and text by which a grid that fastgan wrote is known, and never read as an image."""


class Unreadable(Exception):
    """An image that is left out; the message is the reason shown to people."""


def looks_like_image(head: bytes) -> bool:
    """Whether the first 12 bytes of a file belong to one of `FORMATS` (so that a film is never read
    whole to find out)."""
    if head.startswith(b"RIFF"):
        return head[8:12] in (b"WEBP", b"")
    return head.startswith(_MAGIC) or (
        head[:1] == b"P" and head[1:2].isdigit() and head[2:3].isspace()
    )


def decode(
    data: bytes, size: tuple[int, int] | None = None, channels: int | None = None
) -> np.ndarray:
    """Decode one image file held in memory.

    size: (height, width) to fit, by scaling until it covers and cropping the centre; None keeps the
        image's own.
    channels: 1, 3 or 4; None gives 1 for grey images and 3 for all others.
    Returns uint8 (H, W, C). EXIF rotation is applied, the first frame of an animation taken, 16-bit
    samples scaled to 8, transparent pixels composited on white (unless channels is 4). Raises
    Unreadable with the reason.
    """
    with _opened(data) as image:
        return _shown(image, size, channels)


def decode_frames(
    data: bytes, size: tuple[int, int] | None = None, channels: int | None = None
) -> list[np.ndarray]:
    """All frames of an animation (GIF, WebP, APNG) as a viewer shows them, one after the other,
    each as `decode` gives an image; of any other image file the one that `decode` gives.

    channels: None gives 1 where every frame of an animation is grey in each pixel. Raises
    Unreadable, also above MAX_FRAMES_PIXELS.
    """
    with _opened(data) as image:
        count = getattr(image, "n_frames", 1) if image.format in ANIMATED else 1
        if count == 1:
            return [_shown(image, size, channels)]
        first = int(getattr(image, "default_image", False))  # of APNG: no part of the animation
        room, made = MAX_FRAMES_PIXELS, []
        for number in range(first, count):
            image.seek(number)
            _check_area(image)
            each = max(image.width * image.height, size[0] * size[1] if size else 0)
            if each * (count - number) > room:  # the canvas of a GIF may grow on its way
                raise Unreadable(
                    f"{count - first:,} frames of {image.width}x{image.height} pixels, more than "
                    f"{MAX_FRAMES_PIXELS // 10**6} million in all: cut it into shorter ones"
                )
            room -= each
            made.append(_shown(image, size, channels or 3))
    if channels is None and all((frame == frame[..., :1]).all() for frame in made):
        return [frame[..., :1] for frame in made]
    return made


@contextmanager
def _opened(data: bytes) -> Iterator[PILImage]:
    """The file open, not decoded. What goes wrong with it inside is Unreadable, with the reason."""
    from PIL import Image

    if not data:
        raise Unreadable("empty file")
    if not looks_like_image(data[:HEAD]):
        raise Unreadable(named(data[:HEAD]) or "not an image")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_area(image)
            yield image
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable("a decompression bomb") from None
    except Image.UnidentifiedImageError:
        raise Unreadable("damaged, or not an image") from None
    except Exception as error:
        # decoders raise anything on damaged bytes (struct.error, SyntaxError, KeyError, ...)
        raise Unreadable(
            f"damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None


def _check_area(image: PILImage) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Unreadable(f"{image.width}x{image.height} pixels: a decompression bomb")


def _shown(image: PILImage, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """The image that an open file stands at, as `decode` gives it."""
    from PIL import ImageOps

    if size is not None and image.format in ("JPEG", "MPO"):
        side = 2 * max(size)  # decode at a fraction, but never below twice what is kept
        image.draft(image.mode, (side, side))
    image.load()
    mark = image.info.get("comment")  # of a GIF, which has no EXIF
    if mark == GRID.encode() or image.getexif().get(SOFTWARE) == GRID:
        raise Unreadable("a grid of samples that fastgan made")
    return fit(ImageOps.exif_transpose(image) or image, size, channels)


def fit(image: PILImage, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """A decoded Pillow image as uint8 (H, W, C), fitted to size (height, width) and channels as in
    `decode`."""
    from PIL import Image

    if channels is None:
        channels = 1 if image.mode in _GREY or image.mode.startswith("I;16") else 3
    image = _eight_bit(image)
    if size is not None:
        image = _cover(image, size)
    if channels == 4:
        image = image.convert("RGBA")
    elif image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image).convert("L" if channels == 1 else "RGB")
    else:
        image = image.convert("L" if channels == 1 else "RGB")
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def _eight_bit(image: PILImage) -> PILImage:
    """To one of the modes L, RGB, RGBA."""
    from PIL import Image

    mode = image.mode
    if mode in _ALPHA or image.has_transparency_data:
        return image.convert("RGBA")
    if mode in ("L", "RGB"):
        return image
    if mode.startswith("I;16") or mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise Unreadable("32-bit integer pixels without a known range")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if mode == "F":
        floats = np.asarray(image)
        if not (np.isfinite(floats).all() and floats.min() >= 0 and floats.max() <= 1):
            raise Unreadable("floating-point pixels outside [0, 1]")
        return Image.fromarray(np.rint(floats * 255).astype(np.uint8))
    if mode == "LAB":
        from PIL import ImageCms

        rgb = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert rgb is not None
        return rgb
    return image.convert("L" if mode == "1" else "RGB")


def _cover(image: PILImage, size: tuple[int, int]) -> PILImage:
    """Scale (height, width alike) until the image covers size, and cut the centre out, in one
    resampling."""
    from PIL import Image

    height, width = size
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    if scale == 1:  # a pure crop stays on whole pixels: half a pixel of offset would blur
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    wide, high = width * scale, height * scale
    x, y = (image.width - wide) / 2, (image.height - high) / 2
    # Both filters are antialiased in Pillow; Lanczos is the sharper one down, and rings more than
    # bicubic up.
    filter_ = Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BICUBIC
    box = (max(x, 0.0), max(y, 0.0), min(x + wide, image.width), min(y + high, image.height))
    return image.resize((width, height), filter_, box=box)
