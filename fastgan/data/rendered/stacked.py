"""Three pictures of clothes, one in each colour: a thousand modes that can be counted, as in
Stacked MNIST (Metz et al. 2017, arXiv 1611.02163, appendix)."""

from __future__ import annotations

import numpy as np

from fastgan.data.rendered.numbers import uniform

KINDS = 10
"""Kinds of clothes; three of them make a mode."""


def stacked(count: int, side: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Three bundled Fashion-MNIST images each, all independent: "image" (n, side, side, 3) and
    "mode", the kinds of red, green and blue as a number of three digits."""
    from fastgan import data

    clothes = data.open("fashion-mnist", size=side)
    chosen = (uniform("stacked", seed, count, 3) * len(clothes)).astype(np.int64)
    image = np.ascontiguousarray(np.moveaxis(clothes.array("image")[chosen, ..., 0], 1, -1))
    mode = clothes.array("label")[chosen] @ (KINDS ** np.arange(3)[::-1])
    return {"image": image, "mode": mode.astype(np.int64)}
