"""What a convolution is, apart from its tensors: the one frozen description that forward, dgrad and
wgrad share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import lru_cache

Pair = tuple[int, int]


def pair(value: int | Sequence[int]) -> Pair:
    """One integer for both axes, or one for each, as torch.nn.functional takes them."""
    if isinstance(value, int):
        return value, value
    values = tuple(int(v) for v in value)
    if len(values) == 1:
        return values[0], values[0]
    if len(values) != 2:
        raise ValueError(f"expected one or two integers, got {values}")
    return values[0], values[1]


@dataclass(frozen=True)
class ConvSpec:
    """Geometry of a 2-D convolution (dense: dilation 1, groups 1). All pairs are (height, width),
    in pixels.

    A convolution reads input pixel `o*stride + k - padding` for output pixel o and tap k; a
    transposed one writes output pixel `i*stride + k - padding` for input pixel i, so each is the
    data gradient of the other with the same weight.
    """

    transposed: bool
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    output_padding: Pair = (0, 0)

    def __post_init__(self) -> None:
        if (
            min(self.kernel) < 1
            or min(self.stride) < 1
            or min(self.padding) < 0
            or min(self.output_padding) < 0
        ):
            raise ValueError(f"not a convolution: {self}")
        if any(self.output_padding) and not self.transposed:
            raise ValueError("output_padding belongs to transposed convolutions")

    def output_size(self, height: int, width: int) -> Pair:
        """Output (height, width) for an input of that size; torch.nn.functional's formula."""
        k, s, p, extra = self.kernel, self.stride, self.padding, self.output_padding
        if self.transposed:
            return (
                (height - 1) * s[0] - 2 * p[0] + k[0] + extra[0],
                (width - 1) * s[1] - 2 * p[1] + k[1] + extra[1],
            )
        return (height + 2 * p[0] - k[0]) // s[0] + 1, (width + 2 * p[1] - k[1]) // s[1] + 1

    def weight_channels(self, weight_shape: Sequence[int]) -> Pair:
        """(input channels, output channels) of a weight in PyTorch's layout: [CO,CI,KH,KW],
        transposed [CI,CO,KH,KW]."""
        return (
            (weight_shape[0], weight_shape[1])
            if self.transposed
            else (weight_shape[1], weight_shape[0])
        )

    def is_gemm(self, height: int, width: int) -> bool:
        """True where every output sees every input once: 1x1 -> KxK transposed, KxK -> 1x1, or a
        1x1 kernel at stride 1."""
        if any(self.padding) or any(self.output_padding):
            return False
        return (height, width) == ((1, 1) if self.transposed else self.kernel) and (
            self.transposed or self.kernel != (1, 1)
        )

    def flops(
        self, batch: int, height: int, width: int, channels_in: int, channels_out: int
    ) -> int:
        """Floating-point operations (2 per multiply-add) as PyTorch's FlopCounterMode counts
        them."""
        pixels = (
            height * width
            if self.transposed
            else self.output_size(height, width)[0] * self.output_size(height, width)[1]
        )
        return 2 * batch * pixels * self.kernel[0] * self.kernel[1] * channels_in * channels_out

    def pack(self) -> list[int]:
        """Nine integers, the form in which a registered operator can carry it."""
        return [
            int(self.transposed),
            *self.kernel,
            *self.stride,
            *self.padding,
            *self.output_padding,
        ]

    @staticmethod
    def unpack(values: Sequence[int]) -> ConvSpec:
        t, kh, kw, sh, sw, ph, pw, oh, ow = values
        return ConvSpec(bool(t), (kh, kw), (sh, sw), (ph, pw), (oh, ow))


@dataclass(frozen=True)
class Fusion:
    """What is fused around a convolution, apart from tensors. Activations are names of
    kernels.activations.ACTIVATIONS.

    act_in: applied to x*s + t (or to x). act_out: applied to the result before it is stored, one
    whose derivative its output tells (not silu). slope: leaky_relu's, positive. groups: runs of
    N/groups images with moments, s and t of their own.
    precision: of fp32 products, "ieee" or "tf32".
    """

    act_in: str = "identity"
    slope_in: float = 0.0
    act_out: str = "identity"
    slope_out: float = 0.0
    groups: int = 1
    precision: str = "ieee"

    def pack(self) -> str:
        """One string, the form in which a registered operator can carry it."""
        return _pack_fusion(self)

    @staticmethod
    def unpack(text: str) -> Fusion:
        return _unpack_fusion(text)


@lru_cache(maxsize=1024)
def _pack_fusion(fusion: Fusion) -> str:
    return ",".join(map(str, astuple(fusion)))


@lru_cache(maxsize=1024)
def _unpack_fusion(text: str) -> Fusion:
    act_in, slope_in, act_out, slope_out, groups, precision = text.split(",")
    return Fusion(act_in, float(slope_in), act_out, float(slope_out), int(groups), precision)


PLAIN = Fusion()
