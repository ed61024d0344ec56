"""The folders of a user that fastgan keeps things in between runs: caches, and tuning tables.

By hand and not by platformdirs: the kernels look their tables up, and they import with torch, triton and numpy alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fastgan.errors import FastganError


def cache_dir() -> Path:
    """$FASTGAN_CACHE, or fastgan in the user's caches: decoded images, and in folders of their own metrics/ and aot/.

    Raises FastganError where neither is known.
    """
    return _folder("FASTGAN_CACHE", "XDG_CACHE_HOME", ".cache", "Library/Caches", "Caches")


def config_dir() -> Path:
    """$FASTGAN_CONFIG_DIR, or fastgan/tuning in the user's configuration: the user's own tuning tables.

    Raises FastganError where neither is known.
    """
    return _folder("FASTGAN_CONFIG_DIR", "XDG_CONFIG_HOME", ".config", "Library/Application Support", "Config", "tuning")


def _folder(variable: str, xdg: str, linux: str, mac: str, windows: str, *below: str) -> Path:
    try:
        if given := os.environ.get(variable):
            return Path(given).expanduser()
        if sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            return Path(local or Path.home() / "AppData" / "Local", "fastgan", windows, *below)
        if sys.platform == "darwin":
            return Path(Path.home(), mac, "fastgan", *below)
        return Path(os.environ.get(xdg) or Path.home() / linux, "fastgan", *below)
    except RuntimeError:
        raise FastganError(f"no home directory here: set {variable} to a writable one") from None
