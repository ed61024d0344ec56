"""Forms of a convolution's three operations on a CPU: the same sums, computed in other ways.

Both a convolution and a transposed one have a large side (`big`, N x Cb x H x W) and a small one
(`small`, N x Cs x h x w) with one weight (Cs x Cb x kh x kw) between them:

    down(big, w)       small[s, y, x] = sum over b, i, j of
                                            big[b, y*sy + i - py, x*sx + j - px] w[s, b, i, j]
    up(small, w)       its transpose: the data gradient of down, and a transposed convolution
    weight(big, small) the weight gradient of both

`nn.Conv2d` is down forward, up and weight backward; `nn.ConvTranspose2d` is up forward, down and
weight backward. Each operation has forms of its own:

    onednn    PyTorch's convolution on tensors as they lie (what runs without a measurement)
    nchw      PyTorch's convolution on contiguous copies
    product   one matrix product, where the kernel is as large as the large side
    patches   patches (im2col), then a matrix product: down and weight
    fold      a matrix product, then patches added up (col2im): up
    winograd  3x3 of stride 1 in fp32 with a quarter of the multiplications (winograd.py)

Gold is ops.conv.reference's TORCH. Results are in the inputs' type, channels innermost.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastgan.errors import FastganError
from fastgan.kernels.conv.plan import channels_last
from fastgan.kernels.conv.spec import Pair
from fastgan.ops.conv import winograd

FORMS = {
    "down": ("onednn", "nchw", "product", "patches", "winograd"),
    "up": ("onednn", "nchw", "product", "fold", "winograd"),
    "weight": ("onednn", "nchw", "product", "patches", "winograd"),
}
"""What each operation can be computed by; the first is PyTorch's own way."""


@dataclass(frozen=True)
class Geometry:
    """kernel, stride, padding of a dense convolution, each (height, width) in pixels, as
    `nn.Conv2d` takes them: of a transposed one, those of the convolution whose transpose it is."""

    kernel: Pair
    stride: Pair
    padding: Pair

    def small(self, height: int, width: int) -> Pair:
        """(height, width) of the small side."""
        (kh, kw), (sh, sw), (ph, pw) = self.kernel, self.stride, self.padding
        return (height + 2 * ph - kh) // sh + 1, (width + 2 * pw - kw) // sw + 1

    def is_product(self, big: Pair) -> bool:
        """Whether every small pixel sees the whole large side: k x k <-> 1 x 1."""
        return big == self.kernel and self.padding == (0, 0)

    def runs(self, form: str, operation: str, big: Pair, dtype: torch.dtype) -> bool:
        """Whether `form` computes `operation` for a large side of that size and type."""
        if form == "product":
            return self.is_product(big)
        if form == "winograd":
            exact = dtype in (torch.float32, torch.float64)
            return exact and (self.kernel, self.stride) == (winograd.KERNEL, winograd.STRIDE)
        return form in FORMS[operation]


def down(big: Tensor, w: Tensor, geometry: Geometry, form: str) -> Tensor:
    """small of big and w, both of one type."""
    if form == "onednn":
        return F.conv2d(big, w, None, geometry.stride, geometry.padding)
    if form == "nchw":
        y = F.conv2d(big.contiguous(), w.contiguous(), None, geometry.stride, geometry.padding)
        return channels_last(y)
    n, count = big.shape[0], w.shape[0]
    if form == "product":
        return (_rows(big).view(n, -1) @ _flat(w).t()).view(n, 1, 1, count).permute(0, 3, 1, 2)
    if form == "patches":
        h, width = geometry.small(big.shape[2], big.shape[3])
        y = _patches(big, geometry) @ _flat(w).t()
        return y.view(n, h, width, count).permute(0, 3, 1, 2)
    if form == "winograd":
        return winograd.down(big, w, geometry.padding)
    raise unknown(form, "down")


def up(small: Tensor, w: Tensor, size: Pair, geometry: Geometry, form: str) -> Tensor:
    """big, of `size` (height, width), of small and w, both of one type."""
    if form in ("onednn", "nchw"):
        least = [
            (n - 1) * s - 2 * p + k
            for n, s, p, k in zip(
                small.shape[2:], geometry.stride, geometry.padding, geometry.kernel
            )
        ]
        extra = [size[0] - least[0], size[1] - least[1]]
        if form == "onednn":
            return F.conv_transpose2d(small, w, None, geometry.stride, geometry.padding, extra)
        y = F.conv_transpose2d(
            small.contiguous(), w.contiguous(), None, geometry.stride, geometry.padding, extra
        )
        return channels_last(y)
    n, channels = small.shape[0], w.shape[1]
    if form == "product":
        y = _rows(small).view(n, -1) @ _flat(w)
        return y.view(n, *size, channels).permute(0, 3, 1, 2)
    if form == "fold":
        h, width = small.shape[2:]
        # in fp32 at least: F.fold adds in the type that it is given
        wide = torch.promote_types(small.dtype, torch.float32)
        columns = _rows(small).to(wide) @ w.reshape(w.shape[0], -1).to(wide)
        columns = columns.view(n, h * width, -1).transpose(1, 2)  # (channel, i, j), as F.fold asks
        y = F.fold(columns, size, geometry.kernel, 1, geometry.padding, geometry.stride)
        return channels_last(y, small.dtype)
    if form == "winograd":
        return winograd.up(small, w, geometry.padding)
    raise unknown(form, "up")


def weight(big: Tensor, small: Tensor, geometry: Geometry, form: str) -> Tensor:
    """The weight's gradient (Cs, Cb, kh, kw) of big and small, both of one type."""
    cs, cb = small.shape[1], big.shape[1]
    if form in ("onednn", "nchw"):
        if form == "nchw":
            big, small = big.contiguous(), small.contiguous()
        like = small.new_empty(1).expand(cs, cb, *geometry.kernel)  # only its shape is read
        back = torch.ops.aten.convolution_backward
        g = geometry
        mask = (False, True, False)
        return channels_last(
            back(small, big, like, None, g.stride, g.padding, (1, 1), False, (0, 0), 1, mask)[1]
        )
    if form == "product":
        w = _rows(small).view(small.shape[0], cs).t() @ _rows(big).view(big.shape[0], -1)
    elif form == "patches":
        w = _rows(small).t() @ _patches(big, geometry)
    elif form == "winograd":
        return channels_last(winograd.weight(big, small, geometry.padding))
    else:
        raise unknown(form, "weight")
    return w.view(cs, *geometry.kernel, cb).permute(0, 3, 1, 2)


def unknown(form: str, operation: str) -> FastganError:
    return FastganError(
        f"no form {form!r} of {operation}: choose from {', '.join(FORMS[operation])}"
    )


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N*H*W, C); a view where channels lie innermost."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _flat(w: Tensor) -> Tensor:
    """(Cs, Cb, kh, kw) -> (Cs, kh*kw*Cb)."""
    return w.permute(0, 2, 3, 1).reshape(w.shape[0], -1)


def _patches(big: Tensor, geometry: Geometry) -> Tensor:
    """(N*h*w, kh*kw*Cb): what each small pixel sees."""
    (kh, kw), (sh, sw), (ph, pw) = geometry.kernel, geometry.stride, geometry.padding
    h, width = geometry.small(big.shape[2], big.shape[3])
    x = F.pad(big.permute(0, 2, 3, 1), (0, 0, pw, pw, ph, ph))
    n, row, column, c = x.stride()
    view = x.as_strided(
        (x.shape[0], h, width, kh, kw, x.shape[3]), (n, sh * row, sw * column, row, column, c)
    )
    return view.reshape(-1, kh * kw * x.shape[3])
