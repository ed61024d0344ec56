"""Attention over the pixels of a map, by PyTorch's scaled_dot_product_attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastgan.errors import FastganError


class SelfAttention(nn.Module):
    """x + gamma * attention(x), (B, C, H, W) -> the same; gamma is learned from 0 (Zhang et al.
    2019, arXiv 1805.08318, eq. 3).

    Queries and keys have C/8 channels, values C/2, keys and values half the side (Brock et al.
    2019's code). Not scaled by the root of the channels, as there.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.narrow, self.wide = max(channels // 8, 1), max(channels // 2, 1)
        self.query = nn.Conv2d(channels, self.narrow, 1, bias=False)
        self.key = nn.Conv2d(channels, self.narrow, 1, bias=False)
        self.value = nn.Conv2d(channels, self.wide, 1, bias=False)
        self.out = nn.Conv2d(self.wide, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2).mT
        key = F.max_pool2d(self.key(x), 2).flatten(2).mT
        value = F.max_pool2d(self.value(x), 2).flatten(2).mT
        found = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + self.gamma * self.out(found.mT.unflatten(2, x.shape[2:]))


class CosineAttention(nn.Module):
    """Attention in heads whose queries and keys have length 1, times a learned scale (Liu et al.
    2022, arXiv 2111.09883, section 3.3): (B, C, H, W) -> the branch alone, 0 at the start.

    Differentiable twice, which the fused backends of PyTorch are not: R1 needs it.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise FastganError(f"{channels} channels can't be shared by {heads} heads of attention")
        self.channels, self.heads = channels, heads
        self.inputs = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), 10.0).log())
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.inputs(x).flatten(2).unflatten(1, (3, self.heads, -1)).mT
        query, key, value = parts.unbind(1)
        query = F.normalize(query, dim=-1) * self.log_scale.clamp(max=4.6).exp()
        with sdpa_kernel(SDPBackend.MATH):
            found = F.scaled_dot_product_attention(
                query, F.normalize(key, dim=-1), value, scale=1.0
            )
        return self.out(found.mT.flatten(1, 2).unflatten(2, x.shape[2:]))
