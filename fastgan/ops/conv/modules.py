"""Conv2d and ConvTranspose2d on fastgan's operators: torch.nn's parameters, buffers and keys,
another forward."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastgan.ops.conv.functional import conv2d, conv_transpose2d


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d; forward takes 1/sigma and an activation along. `impl` names the engine
    ("auto" by default)."""

    impl = "auto"

    def forward(
        self,
        input: Tensor,
        scale: Tensor | None = None,
        activation: str = "identity",
        slope: float = 0.01,
    ) -> Tensor:
        """input [N,CI,H,W] or [CI,H,W] -> act(conv(input)*scale + bias)."""
        x, padding = input, self.padding  # type: tuple[Tensor, Any]
        if self.padding_mode != "zeros":
            x, padding = (
                nn.functional.pad(
                    input, self._reversed_padding_repeated_twice, mode=self.padding_mode
                ),
                0,
            )
        return conv2d(
            x,
            self.weight,
            self.bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,  # type: ignore[arg-type]
            scale=scale,
            activation=activation,
            slope=slope,
            impl=self.impl,
        )


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d; forward takes 1/sigma and an activation along. `impl` names the
    engine ("auto" by default)."""

    impl = "auto"

    def forward(
        self,
        input: Tensor,
        output_size: list[int] | None = None,
        scale: Tensor | None = None,
        activation: str = "identity",
        slope: float = 0.01,
    ) -> Tensor:
        """input [N,CI,H,W] or [CI,H,W] -> act(conv_transpose(input)*scale + bias); output_size as
        in torch.nn."""
        extra: Any = self.output_padding
        padding: Any = self.padding  # a string is refused for transposed convolutions
        if output_size is not None:
            k = list(self.kernel_size)
            extra = tuple(
                self._output_padding(
                    input, output_size, list(self.stride), list(padding), k, 2, list(self.dilation)
                )
            )  # type: ignore[arg-type]
        return conv_transpose2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            padding,
            extra,
            self.groups,
            self.dilation,  # type: ignore[arg-type]
            scale=scale,
            activation=activation,
            slope=slope,
            impl=self.impl,
        )
