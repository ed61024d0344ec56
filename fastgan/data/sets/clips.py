"""Films as frames of one clip after the other, and windows of frames in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastgan.data.dataset import Dataset
from fastgan.data.opening import open_dataset
from fastgan.data.sets.runs_of_frames import runs_of_frames
from fastgan.errors import FastganError

BLANK = 255
"""The value of frames that are not known."""


def open_clips(source: Any, least: int, **options: Any) -> Dataset:
    """Frames as "image", clip after clip, and "label", the number of the clip: of files an
    animation is one, and so are the images of a folder, in the order of their names.

    Clips of fewer than `least` frames, and still images beside animations, are left out and named.
    options: of `fastgan.data.open`. Raises FastganError where no clip is left.
    """
    opened = open_dataset(source, frames=True, **options)
    found, skipped, kept = clips(opened), list(opened.skipped), []
    names = opened.names or ()
    named = [_named(opened, first) for first, _ in found]
    moving = {clip.rpartition("/")[0] or "." for clip, animated in named if animated}
    for (first, last), (clip, animated) in zip(found, named):
        if not animated and clip in moving:
            skipped += [(name, "a still image beside animated ones") for name in names[first:last]]
        elif last - first < least:
            shown = names[first] if names and last - first == 1 else clip
            shown = opened.name if shown == "." else shown
            skipped.append((shown, f"{_frames(last - first)}, and a clip needs {least}"))
        else:
            kept.append(np.arange(first, last))
    if not kept:
        raise _no_clip(opened, least)
    part = opened if len(kept) == len(found) else opened.take(np.concatenate(kept))
    label = np.repeat(np.arange(len(kept)), [len(clip) for clip in kept])
    return Dataset(
        opened.name,
        {"image": part.array("image"), "label": label},
        {"image": "image", "label": "label"},
        skipped=skipped,
        names=part.names,
        notes=[*opened.guessed, *_out_of_order([names[clip[0] : clip[-1] + 1] for clip in kept])],
    )


def _out_of_order(clips_names: Sequence[Sequence[str]]) -> list[str]:
    """A note on the first frames whose numbers are not in the order of their names."""
    for names in clips_names:
        numbers = [[int(part) for part in re.findall(r"[0-9]+", name)] for name in names]
        for one, other, low, high in zip(names, names[1:], numbers, numbers[1:]):
            if low > high and re.sub(r"[0-9]+", "#", one) == re.sub(r"[0-9]+", "#", other):
                return [
                    f"{one} comes before {other}: frames are taken in the order of their names, so "
                    "write numbers with as many digits each, such as 0002 and 0010"
                ]
    return []


def _named(frames: Dataset, first: int) -> tuple[str, bool]:
    """The clip whose first frame that is, and whether it is an animation."""
    label = int(frames.array("label")[first]) if "label" in frames.fields else 0
    clip = frames.classes[label] if frames.classes else f"clip {label}"
    names = frames.names
    return clip, names is not None and names[first].startswith(f"{clip}#")


def _frames(count: int) -> str:
    return f"{count:,} frame{'s' * (count != 1)}"


def _no_clip(frames: Dataset, least: int) -> FastganError:
    longest = max(last - first for first, last in clips(frames))
    return FastganError(
        f"{frames.name}: no clip of {least} frames, the longest has {longest}: give animated "
        "images (GIF, WebP, APNG), or for each clip a sub-folder of frames in order of their names"
    )


def windows(frames: Dataset, past: int, ahead: int = 1) -> Dataset:
    """All runs of past + ahead frames within one clip: "source" (H, W, past * C), the oldest frame
    first, and "image" (H, W, ahead * C), what follows.

    frames: "image", and "label", the number of the clip, where there are several; frames of a clip
    follow each other. No frame is copied before a window is read. Raises FastganError where no
    clip is long enough.
    """
    starts = [
        start for first, last in clips(frames) for start in range(first, last - past - ahead + 1)
    ]
    if not starts:
        raise _no_clip(frames, past + ahead)
    first, pixels, names = np.array(starts), frames.array("image"), frames.names
    arrays = {
        "image": runs_of_frames(pixels, first + past, ahead),
        "source": runs_of_frames(pixels, first, past),
    }
    return Dataset(
        frames.name,
        arrays,
        {"image": "image", "source": "image"},
        skipped=frames.skipped,
        names=[names[start + past - 1] for start in starts] if names is not None else None,
        notes=[_counted(frames), *frames.guessed],
    )


def continuations(frames: Dataset, past: int, ahead: int, *, at_end: bool = False) -> Dataset:
    """Where clips are to go on: "source" as of `windows`, "image" (H, W, ahead * C) what follows
    as far as it is known, and BLANK after that.

    First the beginning of each clip, then what comes past + ahead frames later; at_end: the end of
    each clip alone, after which nothing is known. Raises FastganError where no clip is long enough.
    """
    found = clips(frames)
    if at_end:
        places = [(0, last - past, last) for _, last in found]
    else:
        places = sorted(
            (start - first, start, last)
            for first, last in found
            for start in range(first, last - past, past + ahead)
        )
    if not places:
        raise _no_clip(frames, past + 1)
    starts, ends = (np.array(part)[:, None] for part in list(zip(*places))[1:])
    index = starts + np.arange(past + ahead)
    pixels = frames.array("image")[np.minimum(index, len(frames) - 1)]
    pixels[index >= ends] = BLANK
    return Dataset(frames.name, _split(pixels, past), {"image": "image", "source": "image"})


def _split(pixels: np.ndarray, past: int) -> dict[str, np.ndarray]:
    """Frames (n, t, H, W, C) as channels: the first ones "source", the others "image"."""
    flat = np.moveaxis(pixels, 1, 3).reshape(len(pixels), *pixels.shape[2:4], -1)
    at = past * pixels.shape[4]
    return {"image": flat[..., at:], "source": flat[..., :at]}


def clips(frames: Dataset) -> list[tuple[int, int]]:
    """(first, last + 1) of the frames of each clip."""
    if "label" not in frames.fields:
        return [(0, len(frames))]
    label = frames.array("label")
    ends = [*(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]
    return list(zip([0, *ends[:-1]], ends))


def split_clips(frames: Dataset, share: float, least: int = 1) -> tuple[Dataset, Dataset]:
    """(training, held out): every k-th clip is held out, k = 1 / share; of a single clip its last
    part, `least` frames or more where as many are left for training."""
    found = clips(frames)
    if share <= 0:
        return frames, frames
    if len(found) < 2:
        cut = round(len(frames) * (1 - share))
        if len(frames) >= 2 * least:
            cut = min(cut, len(frames) - least)
        held = np.arange(len(frames)) >= cut
    else:
        every = max(2, round(1 / share))
        held = np.zeros(len(frames), bool)
        for first, last in found[min(every, len(found)) - 1 :: every]:
            held[first:last] = True
    train, kept = frames.take(np.flatnonzero(~held)), frames.take(np.flatnonzero(held))
    train.guessed = [
        *frames.guessed,
        f"kept from training, for sample and evaluate: {_counted(kept)}",
    ]
    kept.name += ", held out"
    return train, kept


def _counted(frames: Dataset) -> str:
    """ "16 clips of 12 to 31 frames, 310 in all"."""
    lengths = [last - first for first, last in clips(frames)]
    if len(lengths) == 1:
        return f"1 clip of {_frames(*lengths)}"
    low, high = min(lengths), max(lengths)
    of = _frames(high) if low == high else f"{low:,} to {_frames(high)}"
    return f"{len(lengths):,} clips of {of}, {len(frames):,} in all"


def file_name(name: str) -> str:
    """A frame's name as that of a picture, which sorts as frames do: walk.gif-0012.png for
    walk.gif#12."""
    return re.sub(r"#(\d+)$", lambda found: f"-{int(found[1]):04}.png", name)
