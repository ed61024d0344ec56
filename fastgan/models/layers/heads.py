"""Last layers that keep fp32 where autocast runs the rest in half precision ("bf16 body, fp32
head"): what is compared or differentiated at the end has no rounding of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Head(nn.Linear):
    """`nn.Linear` in fp32 whatever autocast says, its input widened first."""

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
            return super().forward(x)
        with torch.autocast(kind, enabled=False):
            return super().forward(x.float())
