"""Enlarging without a grid: transposed convolutions whose kernels are those of repeated pixels and
a 3x3 convolution (`fold`).

The four pixels that a free 4x4 kernel of stride 2 makes of one have weights of their own, which an
adversarial loss drives apart: a grid (Odena et al. 2016, "Deconvolution and checkerboard
artifacts"). Repeating pixels first ties them.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize

from fastgan.errors import FastganError
from fastgan.ops.conv.fold import fold_upsample


class Repeated(nn.Module):
    """A parametrization of nn.ConvTranspose2d's weight: that of a 3x3 convolution (outputs, inputs,
    3, 3) -> (inputs, outputs, 4, 4), of the same dtype."""

    def forward(self, weight: Tensor) -> Tensor:
        return fold_upsample(weight).to(weight.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """3x3 of the 4x4 weights as the convolution's: no inverse, but a draw of independent
        numbers."""
        return weight[..., 1:, 1:].flip(2, 3).transpose(0, 1).contiguous()


def repeated(layer: nn.ConvTranspose2d) -> nn.ConvTranspose2d:
    """The same layer, with the weights of `Repeated` from now on.

    Raises:
        FastganError: It is not an ungrouped 4x4 transposed convolution of stride 2, padding 1.
    """
    geometry = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.groups)
    if geometry != ((4, 4), (2, 2), (1, 1), (0, 0), 1) or layer.dilation != (1, 1):
        raise FastganError(f"only 4x4 kernels of stride 2 and padding 1 can repeat: {layer}")
    parametrize.register_parametrization(layer, "weight", Repeated())
    return layer
