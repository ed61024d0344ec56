"""How a source of images shall be opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OpenOptions:
    """How a source shall be opened."""

    size: tuple[int, int] | None
    channels: int | None
    strict: bool
    directory: Path
    workers: int | None
    progress: bool | None
    labels: Any
    frames: bool = False
    primary: bool = True
    field: str = "image"
    exclude: frozenset[str] = frozenset()

    @property
    def use_labels(self) -> bool:
        return self.labels is not False

    @property
    def given_labels(self) -> Any:
        return None if self.labels is None or isinstance(self.labels, bool) else self.labels
