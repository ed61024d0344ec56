"""Data sets as named fields with random access, and endless batches of them as a function of the
position.

`open` turns whatever people have into a `Dataset`; `Stream` puts batches of it on the device;
`order` says which sample comes when. Importing this needs numpy alone: torch and Pillow are
imported by what uses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastgan.data.aligned import Aligned
from fastgan.data.dataset import Dataset, Field
from fastgan.data.opening import open_dataset as open
from fastgan.data.permutation import order

if TYPE_CHECKING:
    from fastgan.data.streaming import Stream

__all__ = ["Aligned", "Dataset", "Field", "Stream", "open", "order"]


def __getattr__(name: str) -> Any:
    if name == "Stream":  # needs torch, which `fastgan --help` must not wait for
        from fastgan.data.streaming import Stream

        return Stream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
