"""What Triton needs of this machine besides its GPU: the one answer for `fastgan info` and for
``impl="auto"``."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from fastgan.kernels.common import INTERPRET, has_triton, triton


def version(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """What `lacks` asks for: Triton's version under whatever name it was installed, and numpy's."""
    known = str(triton.__version__) if has_triton else version("triton")
    return {"triton": known, "numpy": version("numpy")}


def compiler() -> dict[str, Any]:
    """The C compiler and Python header that Triton builds its launchers with, each a path or None.

    Found as Triton finds them (triton/runtime/build.py): CC, else gcc, else clang.
    """
    named = os.environ.get("CC")
    names = [named] if named else ["gcc", "clang"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return {"cc": found, "cc_named": named, "python_h": str(header) if header.is_file() else None}


def import_error() -> str | None:
    """Why an installed Triton does not import, or None."""
    try:
        import triton.language  # noqa: F401
    except Exception as error:
        return (
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        )
    return None


def interpreter_breaks(versions: Mapping[str, str | None]) -> str | None:
    """Why these versions of Triton and numpy can't interpret kernels, or None.

    Triton before 3.7 makes Python scalars of 1-element arrays, which numpy refuses from 2.4 on.
    """
    minors = [_minor(versions.get(name)) for name in ("triton", "numpy")]
    if minors[0] is None or minors[1] is None or minors[0] >= (3, 7) or minors[1] < (2, 4):
        return None
    return (
        f"the interpreter of Triton {versions['triton']} does not work with numpy "
        f"{versions['numpy']}: "
        "pip install 'numpy<2.4', or Triton 3.7"
    )


def _minor(version: str | None) -> tuple[int, int] | None:
    parts = (version or "").split(".")
    return (
        (int(parts[0]), int(parts[1]))
        if len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit()
        else None
    )


def lacks(
    versions: Mapping[str, str | None], build: Mapping[str, Any], interpreted: bool
) -> list[str]:
    """Why no Triton kernel can run with these versions and this `compiler`, whatever the GPU; empty
    where one can."""
    reasons = []
    if versions.get("triton") is None:
        reasons.append(
            "Triton is not installed"
            if sys.platform == "linux"
            else f"there is no Triton for {platform.system()}"
        )
    elif broken := import_error():
        reasons.append(f"Triton does not import: {broken}")
    if interpreted:
        return [*reasons, *filter(None, [interpreter_breaks(versions)])]
    if build.get("cc") is None:
        named = build.get("cc_named")
        reasons.append(
            f"CC={named} is not there" if named else "no C compiler (install gcc, or set CC)"
        )
    if build.get("python_h") is None:
        reasons.append("no Python.h (install python3-dev, or python3.11-dev for that version)")
    return reasons


def too_old(major: int, minor: int) -> str | None:
    """Why a GPU of this compute capability can't run the kernels, or None."""
    return (
        None
        if major >= 8
        else f"the kernels need an Ampere or newer GPU (8.0), this one is {major}.{minor}"
    )


@functools.cache
def lacking() -> str | None:
    """Why no Triton kernel can run in this process, whatever the GPU, or None. Looked up once."""
    return next(iter(lacks(versions(), compiler(), INTERPRET)), None)
