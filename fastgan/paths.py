"""The folders of a user that fastgan keeps things in between runs: caches, and tuning tables.

By hand and not by platformdirs: the kernels look their tables up, and they import with torch,
triton and numpy alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fastgan.errors import FastganError


def cache_dir() -> Path:
    """$FASTGAN_CACHE, or fastgan in the user's caches: decoded images, metrics/ and aot/.

    Raises FastganError where neither is known.
    """
    return _folder("CACHE", ".cache", "Library/Caches", "FASTGAN_CACHE")


def config_dir() -> Path:
    """$FASTGAN_CONFIG_DIR, or fastgan/tuning in the user's configuration: their own tuning tables.

    Raises FastganError where neither is known.
    """
    mac = "Library/Application Support"
    return _folder("CONFIG", ".config", mac, "FASTGAN_CONFIG_DIR", "tuning")


def _folder(kind: str, linux: str, mac: str, variable: str, *below: str) -> Path:
    try:
        if given := os.environ.get(variable):
            return Path(given).expanduser()
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
            return Path(local, "fastgan", kind.lower(), *below)
        if sys.platform == "darwin":
            return Path(Path.home(), mac, "fastgan", *below)
        return Path(os.environ.get(f"XDG_{kind}_HOME") or Path.home() / linux, "fastgan", *below)
    except RuntimeError:
        raise FastganError(f"no home directory here: set {variable} to a writable one") from None
