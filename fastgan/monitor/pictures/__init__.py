"""Pictures of a run: sample grids and training curves, drawn with NumPy and Pillow alone."""

from fastgan.monitor.pictures.charts import curves, draw_curves
from fastgan.monitor.pictures.grids import (
    DRAWN,
    FORMATS,
    Target,
    ending_of,
    grid,
    pixels,
    resized,
    save,
    save_grid,
    still,
)

__all__ = [
    "DRAWN",
    "FORMATS",
    "Target",
    "curves",
    "draw_curves",
    "ending_of",
    "grid",
    "pixels",
    "resized",
    "save",
    "save_grid",
    "still",
]
