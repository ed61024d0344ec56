"""Moving pictures: GIF and WebP by Pillow, mp4 where ffmpeg is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fastgan import files
from fastgan.data.pixels import GRID, SOFTWARE
from fastgan.errors import FastganError
from fastgan.monitor.pictures.formats import ending, make_parent

MOVING = (".gif", ".webp", ".mp4")


def check_moving(path: Path) -> str:
    """The ending of an animation's name. Raises FastganError for another one, and for .mp4 without
    ffmpeg."""
    found = ending(path, MOVING)
    if found == ".mp4" and shutil.which("ffmpeg") is None:
        raise FastganError(
            f"can't write {path}: there is no ffmpeg here; install it, or name a .gif or .webp file"
        )
    return found


def save_moving(
    frames: Sequence[Image.Image], path: Path, *, fps: float = 30.0, hold: float = 0.0
) -> None:
    """Write frames of one size as an animation that repeats; the last frame stays `hold` seconds
    longer. Raises FastganError."""
    kind = check_moving(path)
    make_parent(path)
    if kind == ".mp4":
        _mp4([*frames, *[frames[-1]] * round(hold * fps)], path, fps)
        return
    times = [round(1000 / fps)] * len(frames)
    times[-1] += round(1000 * hold)
    first, *rest = frames
    options: dict[str, Any] = {"optimize": False}
    if kind == ".webp":
        options = {"quality": 90, "exif": first.getexif()}
    elif first.getexif().get(SOFTWARE) == GRID:
        options["comment"] = GRID.encode()  # the mark of `made_here`: a GIF has no EXIF
    files.save_with(
        path,
        lambda f: first.save(
            f,
            kind[1:].upper(),
            save_all=True,
            append_images=rest,
            duration=times,
            loop=0,
            **options,
        ),
    )


def _mp4(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    """Even sides and yuv420p, which every player takes."""
    wide, high = frames[0].size
    size = (wide + wide % 2, high + high % 2)
    with tempfile.TemporaryDirectory() as folder:
        made = os.path.join(folder, "walk.mp4")
        source = f"-f rawvideo -pix_fmt rgb24 -s {size[0]}x{size[1]} -r {fps:g} -i -".split()
        target = ["-an", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
        command = ["ffmpeg", "-loglevel", "error", "-y", *source, *target, made]
        data = b"".join(_padded(frame, size).tobytes() for frame in frames)
        try:
            done = subprocess.run(command, input=data, capture_output=True)
        except OSError as error:
            raise FastganError(f"can't write {path}: ffmpeg: {error.strerror}") from error
        if done.returncode or not os.path.isfile(made):
            why = " ".join(done.stderr.decode(errors="replace").split())[-300:]
            raise FastganError(f"can't write {path}: ffmpeg failed: {why or done.returncode}")
        files.replace(path, Path(made).read_bytes())


def _padded(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    if frame.size == size and frame.mode == "RGB":
        return frame
    made = Image.new("RGB", size)
    made.paste(frame.convert("RGB"), (0, 0))
    return made
