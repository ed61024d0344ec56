"""Images that are drawn here, with an exact truth: galaxies, things before backgrounds with their
masks, faces of known identity and age, moving sprites, forms whose factors are known,
painted landscapes, clothes of which three are an image.

Everything is a function of (name, seed, number, side): the numbers come from fastgan's own
generator, so that they are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastgan.data.dataset import Dataset
from fastgan.data.rendered.landscapes import landscapes
from fastgan.data.rendered.numbers import in_bytes, uniform
from fastgan.data.rendered.shapes import FORMS, inside
from fastgan.data.rendered.stacked import stacked
from fastgan.errors import FastganError

CHUNK = 256
"""Images that are drawn at once."""

AGES = ("child", "young", "middle", "older", "old")
CLIP = 16
"""Frames of a rendered clip."""

FACTORS, LEVELS = ("across", "down", "scale", "shade"), 10
"""What differs between forms, besides the form."""

CLASSES = {"faces": AGES, "forms": FORMS}
"""Names of the labels."""


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """(y, x) of pixel centres in [-1, 1], (1, side, side) each."""
    at = (np.arange(side) + 0.5) / side * 2 - 1
    return at[None, :, None] + 0 * at[None, None, :], at[None, None, :] + 0 * at[None, :, None]


def _means(images: np.ndarray, times: int) -> np.ndarray:
    """uint8 (n, H, W, C) -> (n, H / times, W / times, C)."""
    n, height, width, channels = images.shape
    shape = (n, height // times, times, width // times, times, channels)
    return np.rint(images.reshape(shape).mean((2, 4))).astype(np.uint8)


def galaxies(count: int, side: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Sersic profiles, some with spiral arms, and a few stars, by the asinh stretch of
    `objectives.degradations`: "image" (n, side, side, 1)."""
    made = np.empty((count, side, side, 1), np.uint8)
    u = uniform("galaxies", seed, count, 24)
    y, x = _grid(side)
    for first in range(0, count, CHUNK):
        p = u[first : first + CHUNK].T[..., None, None]
        angle, axis = p[0] * np.pi, 0.35 + 0.65 * p[1]
        dy, dx = y - (p[2] - 0.5) * 0.3, x - (p[3] - 0.5) * 0.3
        along = dx * np.cos(angle) + dy * np.sin(angle)
        across = (dy * np.cos(angle) - dx * np.sin(angle)) / axis
        radius = np.hypot(along, across) + 1e-3
        scale, n = 0.12 + 0.22 * p[4], 0.8 + 2.2 * p[5]
        disc = np.exp(-(2 * n - 0.33) * ((radius / scale) ** (1 / n) - 1))
        turn = np.arctan2(across, along) - (3 + 3 * p[6]) * np.log(radius / scale + 0.2)
        arms = 1 + np.where(p[7] < 0.6, 0.8, 0.0) * np.cos(2 * turn + 6.28 * p[8]) * np.minimum(
            radius / scale, 1
        )
        flux = (0.1 + 0.4 * p[9]) * disc * arms
        for star in range(3):
            sy, sx, light, there = p[10 + 4 * star : 14 + 4 * star]
            spot = np.exp(
                -((y - 2 * sy + 1) ** 2 + (x - 2 * sx + 1) ** 2) / (2 * (1.6 / side) ** 2)
            )
            flux = flux + np.where(there < 0.5, 0.3 + light, 0.0) * spot
        low, high = np.arcsinh(-1.0), np.arcsinh(40.0)
        stretched = (np.arcsinh(10 * np.clip(flux, -0.1, 4.0)) - low) / (high - low)
        made[first : first + CHUNK, ..., 0] = in_bytes(stretched)
    return {"image": made}


def items() -> np.ndarray:
    """The bundled Fashion-MNIST images, uint8 (10000, 28, 28)."""
    from fastgan.data.arrays import open_idx

    path = Path(__file__).parents[1] / "assets/fashion-mnist/t10k-images-idx3-ubyte.gz"
    return open_idx(path).load()


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    """A grey uint8 image as float (side, side) in [0, 1]."""
    from PIL import Image

    small = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float64) / 255


def composites(count: int, side: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Clothes in a colour of their own before a textured background: "source" (n, side, side, 3)
    and its exact mask "image" (n, side, side, 1), 255 in the thing."""
    clothes = items()
    image = np.empty((count, side, side, 1), np.uint8)
    source = np.empty((count, side, side, 3), np.uint8)
    y, x = _grid(side)
    for i, p in enumerate(uniform("composites", seed, count, 40)):
        scene = np.zeros((side, side, 3))
        for k in range(3):
            fy, fx, phase = 12 * (p[4 * k] - 0.5), 12 * (p[4 * k + 1] - 0.5), 6.28 * p[4 * k + 2]
            wave = np.sin(fy * y[0] + fx * x[0] + phase)
            scene += wave[..., None] * (p[12 + 3 * k : 15 + 3 * k] - 0.5) * 0.7
        scene += p[21:24] * 0.6 + 0.2
        part = max(4, round(side * (0.55 + 0.35 * p[24])))
        top, left = (int(p[25 + k] * (side - part + 1)) for k in (0, 1))
        thing = _resized(clothes[int(p[27] * len(clothes))], part)
        mask = np.zeros((side, side))
        mask[top : top + part, left : left + part] = thing > 0.15
        shade = np.zeros((side, side))
        shade[top : top + part, left : left + part] = thing
        colour = (0.35 + 0.65 * shade[..., None]) * (0.2 + 0.8 * p[28:31])
        source[i] = in_bytes(np.where(mask[..., None] > 0, colour, scene))
        image[i, ..., 0] = in_bytes(mask)
    return {"image": image, "source": source}


def faces(
    count: int, side: int, seed: int = 0, age: int | None = None, index: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Drawn faces: "image" (n, side, side, 3), "label", the group of `AGES`, and "identity", the
    number of the person: all `count`, or those at index, at a random age where none is given.

    What belongs to the identity: skin, hair, background, eye colour, width of face, distance of
    eyes, mouth. What belongs to the age: size of the face, grey hair and a higher hairline, lines.
    """
    who = np.arange(count) if index is None else index
    identity = uniform("faces", seed, count, 20)[who]
    label = (uniform("ages", seed, count, 1)[who, 0] * len(AGES)).astype(np.int64)
    if age is not None:
        label[:] = age
    made = np.empty((len(who), side, side, 3), np.uint8)
    for first in range(0, len(who), CHUNK):
        part = slice(first, first + CHUNK)
        big = _face(identity[part].T[..., None, None, None], label[part], 2 * side)
        small = big.reshape(len(big), side, 2, side, 2, 3).mean((2, 4))
        made[part] = in_bytes(small)
    return {"image": made, "label": label, "identity": who.astype(np.int64)}


def are_faces(data: Dataset) -> bool:
    """Whether these are `faces`, of which every person can be drawn at every age."""
    return data.name == "faces" and "identity" in data.fields


def _face(p: np.ndarray, label: np.ndarray, side: int) -> np.ndarray:
    y, x = (g[..., None] for g in _grid(side))
    age = (label / (len(AGES) - 1))[:, None, None, None]
    colour = np.moveaxis
    back = 0.3 + 0.6 * colour(p[0:3], 0, -1)[..., 0, :]
    skin = np.array([0.95, 0.78, 0.65]) * (0.4 + 0.6 * p[3])
    dark = np.array([0.75, 0.5, 0.25]) * p[4] + np.array([0.05, 0.05, 0.1])
    grey = np.clip(2 * age - 0.9, 0, 1)
    hair = dark * (1 - grey) + 0.85 * grey
    wide, high = 0.42 + 0.16 * p[5] + 0.04 * age, 0.55 + 0.2 * np.minimum(2 * age, 1)
    cy = 0.1 + 0 * p[5]
    inside = (x / wide) ** 2 + ((y - cy) / high) ** 2
    line = cy - high * (0.35 + 0.3 * age)
    picture = back + 0 * x
    crown = ((x / (wide + 0.12)) ** 2 + ((y - cy + 0.08) / (high + 0.08)) ** 2 < 1) & (y < cy + 0.1)
    picture = np.where(crown, hair, picture)
    picture = np.where((inside < 1) & (y > line), skin, picture)
    picture = np.where((inside < 1) & (y <= line), hair, picture)
    gap, eye = 0.16 + 0.1 * p[6], 0.075 + 0.02 * p[7] + 0.02 * (1 - age)
    iris = np.moveaxis(p[8:11], 0, -1)[..., 0, :] * 0.6
    for at in (-1, 1):
        near = np.hypot(x - at * gap, (y - cy + 0.05) * 1.4)
        picture = np.where(near < eye * 1.5, 0.95, picture)
        picture = np.where(near < eye, iris, picture)
        under = np.abs(np.hypot(x - at * gap, y - cy + 0.02) - 0.16) < 0.022
        picture = np.where(under & (y > cy + 0.05), skin * (1 - 0.45 * age), picture)
    mouth = (np.abs(y - cy - 0.55 * high) < 0.04) & (np.abs(x) < 0.1 + 0.12 * p[11])
    picture = np.where(mouth & (inside < 1), np.array([0.7, 0.25, 0.25]), picture)
    for k in range(3):
        fold = np.abs(y - line - 0.08 - 0.07 * k) < 0.018
        folds = fold & (np.abs(x) < 0.55 * wide) & (inside < 0.9) & (y < cy - 0.15)
        picture = np.where(folds, skin * (1 - 0.5 * np.clip(1.6 * age - 0.4, 0, 1)), picture)
    return picture


def sprites(count: int, side: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Clips of two clothes that move evenly and bounce off the edges: "image", the frames of all
    clips one after the other (n * CLIP, side, side, 1), and "label", the number of the clip."""
    clothes = items()
    part = max(4, round(side * 0.45))
    made = np.zeros((count, CLIP, side, side), np.uint8)
    room = side - part
    for i, p in enumerate(uniform("sprites", seed, count, 12).reshape(count, 2, 6)):
        for sprite in p:
            thing = in_bytes(_resized(clothes[int(sprite[0] * len(clothes))], part))
            for t in range(CLIP):
                top, left = (
                    room
                    - abs((sprite[1 + k] * 2 + (sprite[3 + k] - 0.5) * 0.3 * t) % 2 * room - room)
                    for k in (0, 1)
                )
                at = made[i, t, round(top) : round(top) + part, round(left) : round(left) + part]
                np.maximum(at, thing, out=at)
    label = np.repeat(np.arange(count), CLIP)
    return {"image": made.reshape(-1, side, side, 1), "label": label}


def forms(count: int, side: int, seed: int = 0) -> dict[str, np.ndarray]:
    """One grey form each on black: "image" (n, side, side, 1), "label", the number of the form in
    `FORMS`, and four factors of `LEVELS` even levels, "across", "down", "scale" and "shade", all
    independent of each other."""
    made = np.empty((count, side, side, 1), np.uint8)
    u = uniform("forms", seed, count, 5)
    label = (u[:, 0] * len(FORMS)).astype(np.int64)
    factors = (u[:, 1:] * LEVELS).astype(np.int64)
    y, x = (g[0] for g in _grid(3 * side))
    for i, (across, down, scale, shade) in enumerate(factors / (LEVELS - 1)):
        radius = 0.3 + 0.25 * scale
        at = ((g - 0.8 * (where - 0.5)) / radius for g, where in ((x, across), (y, down)))
        covered = inside(FORMS[label[i]], *at).reshape(side, 3, side, 3).mean((1, 3))
        made[i, ..., 0] = in_bytes(covered * (0.3 + 0.7 * shade))
    return {"image": made, "label": label, **dict(zip(FACTORS, factors.T, strict=True))}


RENDERED: dict[str, tuple[Callable[..., dict[str, np.ndarray]], int]] = {
    "galaxies": (galaxies, 3000),
    "composites": (composites, 3000),
    "faces": (faces, 3000),
    "sprites": (sprites, 400),
    "forms": (forms, 4000),
    "landscapes": (landscapes, 1500),
    "stacked": (stacked, 20_000),
}
"""What `fastgan.data.open` draws by these names, and how many."""


SMALLEST = 8
"""Sides that are drawn as they are; smaller ones are means of larger pixels."""


def rendered(name: str, size: tuple[int, int] | None, channels: int | None) -> Dataset:
    """One of `RENDERED`, 32 pixels wide where nothing is asked. Raises FastganError."""
    draw, count = RENDERED[name]
    height, width = size or (32, 32)
    if height != width:
        raise FastganError(f"{name} are drawn as squares, not {height}x{width}")
    times = -(-SMALLEST // height)
    arrays = draw(count, height * times)
    kinds = {key: "image" if key in ("image", "source") else "label" for key in arrays}
    if times > 1:
        arrays |= {key: _means(arrays[key], times) for key in kinds if kinds[key] == "image"}
    made = arrays["image"].shape[3]
    if channels not in (None, made):
        raise FastganError(f"{name} have {made} channels, not {channels}: leave --channels out")
    return Dataset(name, arrays, kinds, classes=CLASSES.get(name))
