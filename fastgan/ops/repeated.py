"""Enlarging without a grid: repeated pixels and a 3x3 convolution, as one transposed convolution.

The pixels that a free 4x4 kernel of stride 2 makes of one input pixel have weights of their own,
which an adversarial loss drives apart: a grid (Odena et al. 2016, "Deconvolution and checkerboard
artifacts"). Repeating pixels first ties them. Both steps are linear, and together they are the
transposed convolution by the sum of four shifted 3x3 kernels: 4 products for each output pixel and
pair of channels instead of 9.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from fastgan.errors import FastganError


class Repeated(nn.Module):
    """A parametrization: weights (inputs, outputs, 3, 3) -> (inputs, outputs, 4, 4)."""

    def forward(self, weight: Tensor) -> Tensor:
        w = F.pad(weight, (1, 1, 1, 1))
        return w[..., 1:, 1:] + w[..., 1:, :-1] + w[..., :-1, 1:] + w[..., :-1, :-1]

    def right_inverse(self, weight: Tensor) -> Tensor:
        """3x3 of the 4x4 weights that were drawn, as independent numbers."""
        return weight[..., 1:, 1:].clone()


def repeated(layer: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """The same layer, with the weights of `Repeated` from now on.

    Raises:
        FastganError: It is not a 4x4 transposed convolution of stride 2 and padding 1.
    """
    if (layer.kernel_size, layer.stride, layer.padding) != ((4, 4), (2, 2), (1, 1)):
        raise FastganError(f"only 4x4 kernels of stride 2 and padding 1 can repeat: {layer}")
    parametrize.register_parametrization(layer, "weight", Repeated())
    return layer
