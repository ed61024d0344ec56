"""Code that a command or a trusted run names: where it is looked for, and where never."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastgan import files
from fastgan.errors import FastganError


def find(name: str, folders: Mapping[str, str] | None = None) -> Any:
    """The object named "module:qualified.name", imported where it is not yet.

    folders: where top-level modules lay when a run was trained; looked at before the Python path.
    What lies in a run folder is never imported. Raises FastganError for that, and whatever the
    import raises.
    """
    module, _, path = name.partition(":")
    if module not in sys.modules:
        top = module.partition(".")[0]
        look_in((folders or {}).get(top))
        spec = importlib.util.find_spec(top) if top not in sys.modules else None
        places = (
            [spec.origin if spec.has_location else None, *(spec.submodule_search_locations or ())]
            if spec
            else []
        )
        for place in places:
            if place is not None and lies_in_a_run(Path(place)):
                raise FastganError(
                    f"{name} is not imported: {place} lies in a run folder; move it out if the "
                    "code is yours"
                )
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def look_in(folder: str | None) -> None:
    """Put a folder on the Python path, unless it lies in a run."""
    if (
        folder
        and Path(folder).is_absolute()
        and folder not in sys.path
        and not lies_in_a_run(Path(folder))
    ):
        sys.path.insert(0, folder)


def lies_in_a_run(path: Path) -> bool:
    """Whether a path is a run folder or anything in one."""
    places = [*(p for p in (path, path.resolve()) if p.is_absolute())]
    return any(
        _there(p / "run.json") and _there(p / "checkpoints")
        for q in places
        for p in (q, *q.parents)
    )


def _there(path: Path) -> bool:
    try:
        return files.kind(path) is not None
    except (
        FastganError
    ):  # a folder above that nobody may look into can't be a run that is read here
        return False


def folder_of(module: str) -> str | None:
    """The folder that holds an imported module of the user's own, or None: no file, or an installed
    one."""
    top = sys.modules.get(module.partition(".")[0])
    file = getattr(top, "__file__", None)
    if file is None or getattr(top, "__name__", "__main__") == "__main__":
        return None
    folder = Path(file).absolute().parent
    folder = folder.parent if hasattr(top, "__path__") else folder
    return None if {"site-packages", "dist-packages"} & set(folder.parts) else str(folder)
