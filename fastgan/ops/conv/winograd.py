"""Minimal filtering: 3x3 convolutions of stride 1 with a quarter of the multiplications (S.
Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, arXiv:1509.09308).

Four neighbouring outputs of a filter of three taps need 12 products. F(4, 3) forms them of 6:

    y = A [(G g) * (B d)]       d: the 6 inputs that they see; g: the filter; *: one by one

In two dimensions the products of a tile of 4x4 outputs become 36 matrix products over tiles and
channels: 36 multiplications instead of 144. With V = B big B' and U = G w G', `down` is A (V U) A';
`up` is down of the turned filter; the weight's gradient is their transpose, G' ((A' small A)' V) G.

The matrices evaluate polynomials at 0, 1, -1, 2, -2 and at infinity. In fp32 that costs two bits:
results are 2e-6 off by norm, where PyTorch's are 6e-7. bf16 has none to spare.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels.conv.spec import Pair

Matrix = tuple[tuple[float, ...], ...]

KERNEL, STRIDE = (3, 3), (1, 1)
TILE, SEEN = 4, 6
"""Outputs of a tile along an axis, and the inputs that they see."""

ROWS = 256
"""Tiles of one matrix product: more leave the cache between the passes over them, fewer are slow
products."""

_B: Matrix = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G: Matrix = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_A: Matrix = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def down(big: Tensor, w: Tensor, padding: Pair) -> Tensor:
    """small (N, Cs, h, w) of big (N, Cb, H, W) and w (Cs, Cb, 3, 3), channels innermost."""
    small = _small(big, padding)
    u = _filters(w).transpose(1, 2)
    found = [
        _outputs(torch.bmm(_inputs(x, small, padding), u), len(x), small)
        for (x,) in _parts(small, big)
    ]
    return torch.cat(found).permute(0, 3, 1, 2)


def up(small: Tensor, w: Tensor, padding: Pair) -> Tensor:
    """big of small (N, Cs, h, w) and w (Cs, Cb, 3, 3)."""
    return down(small, w.flip(2, 3).transpose(0, 1), (2 - padding[0], 2 - padding[1]))


def weight(big: Tensor, small: Tensor, padding: Pair) -> Tensor:
    """The weight's gradient (Cs, Cb, 3, 3) of big and small."""
    size = (small.shape[2], small.shape[3])
    total = big.new_zeros(SEEN * SEEN, small.shape[1], big.shape[1])
    for x, y in _parts(size, big, small):
        total.baddbmm_(_outputs_back(y).transpose(1, 2), _inputs(x, size, padding))
    back = tuple(zip(*_G))
    u = total.view(SEEN, SEEN, *total.shape[1:])
    return _along(back, _along(back, u, 0), 1).permute(2, 3, 0, 1)


def _small(big: Tensor, padding: Pair) -> Pair:
    return big.shape[2] + 2 * padding[0] - 2, big.shape[3] + 2 * padding[1] - 2


def _tiles(small: Pair) -> Pair:
    return -(-small[0] // TILE), -(-small[1] // TILE)


def _parts(small: Pair, *given: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """A few images at a time, of ROWS tiles where there are as many."""
    few = -(-ROWS // prod(_tiles(small)))
    return zip(*(x.split(few) for x in given))


def _along(matrix: Matrix, x: Tensor, dim: int) -> Tensor:
    """The matrix (rows x columns) times x along `dim`, whose length is columns."""
    shape = list(x.shape)
    x = x.reshape(prod(shape[:dim]), shape[dim], -1)
    shape[dim] = len(matrix)
    factor = torch.tensor(matrix, dtype=x.dtype).expand(len(x), -1, -1)
    return torch.bmm(factor, x).view(shape)


def _inputs(big: Tensor, small: Pair, padding: Pair) -> Tensor:
    """(36, N * tiles, Cb): B big B' of what each tile sees."""
    (th, tw), (top, left) = _tiles(small), padding
    x = big.permute(0, 2, 3, 1)
    below, right = TILE * th + 2 - top - x.shape[1], TILE * tw + 2 - left - x.shape[2]
    x = F.pad(x, (0, 0, left, right, top, below))
    image, row, column, channel = x.stride()
    seen = x.as_strided(
        (len(x), th, tw, SEEN, SEEN, x.shape[3]),
        (image, TILE * row, TILE * column, row, column, channel),
    ).reshape(-1, SEEN, SEEN, x.shape[3])
    v = _along(_B, _along(_B, seen, 1), 2)
    return v.view(len(v), SEEN * SEEN, -1).transpose(0, 1)


def _outputs(products: Tensor, n: int, small: Pair) -> Tensor:
    """small (N, h, w, Cs) of the products (36, N * tiles, Cs): A M A'."""
    th, tw = _tiles(small)
    m = products.view(SEEN, SEEN, n, th, tw, -1)
    y = _along(_A, _along(_A, m, 0), 1).permute(2, 3, 0, 4, 1, 5)
    return y.reshape(n, TILE * th, TILE * tw, -1)[:, : small[0], : small[1]]


def _outputs_back(small: Tensor) -> Tensor:
    """(36, N * tiles, Cs): A' small A, the transpose of `_outputs`."""
    (th, tw), back = _tiles((small.shape[2], small.shape[3])), tuple(zip(*_A))
    y = small.permute(0, 2, 3, 1)
    y = F.pad(y, (0, 0, 0, TILE * tw - y.shape[2], 0, TILE * th - y.shape[1]))
    y = y.reshape(len(y), th, TILE, tw, TILE, -1).permute(2, 4, 0, 1, 3, 5)
    return _along(back, _along(back, y, 0), 1).view(SEEN * SEEN, -1, small.shape[1])


def _filters(w: Tensor) -> Tensor:
    """(36, Cs, Cb): G w G'."""
    u = _along(_G, _along(_G, w.permute(2, 3, 0, 1), 0), 1)
    return u.view(SEEN * SEEN, w.shape[0], w.shape[1])
