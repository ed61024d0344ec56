"""Convolutions that are one matrix product: a kernel as large as its input (k x k -> 1 x 1, a DCGAN
discriminator's last layer) and the transpose of one (1 x 1 -> k x k, its generator's first).

    conv             y[n, o] = sum over c, i, j of x[n, c, i, j] w[o, c, i, j]
    conv_transpose   y[n, o, i, j] = sum over c of x[n, c, 0, 0] w[c, o, i, j]

Tensors and weights that lie channels innermost (channels_last) are taken as they are, without a
copy, and so are gradients.
Differentiable to any order: it is made of PyTorch's own operators.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fastgan.kernels.conv.spec import ConvSpec


def is_product(x: Tensor, spec: ConvSpec) -> bool:
    """Whether this convolution of x (N, C, H, W) is one matrix product."""
    size = (x.shape[2], x.shape[3])
    if spec.transposed:
        return size == (1, 1) and spec.padding == (0, 0) and spec.output_padding == (0, 0)
    return size == spec.kernel and spec.padding == (0, 0)


def convolution(x: Tensor, w: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    """(N, Co, 1, 1) of x (N, Ci, k, k) and w (Co, Ci, k, k); transposed: (N, Co, k, k) of x (N, Ci,
    1, 1) and w (Ci, Co, k, k).

    bias: (Co,) or None. The result lies channels innermost; its type is x's, or autocast's.
    """
    flat = w.permute(0, 2, 3, 1).reshape(w.shape[0], -1)
    if not transposed:
        y = F.linear(x.permute(0, 2, 3, 1).reshape(x.shape[0], -1), flat, bias)
        return y.view(x.shape[0], w.shape[0], 1, 1)
    height, width, channels = w.shape[2], w.shape[3], w.shape[1]
    each = None if bias is None else bias.repeat(height * width)
    y = F.linear(x.flatten(1), flat.t(), each)
    return y.view(x.shape[0], height, width, channels).permute(0, 3, 1, 2)
