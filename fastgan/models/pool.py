"""A history of generated images, kept as buffers so that checkpoints hold it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """The last `capacity` images or so: a discriminator is shown half of its fakes from here
    (Shrivastava et al. 2017, arXiv 1612.07828, section 2.3).

    Called with (images (B, channels, height, width), uniform numbers (B,) in [0, 1)); returns as
    many images. Until it is full it keeps what it is given and returns it. Then a number below 1/2
    swaps the image with the one of its slot; slots follow each other round a start that the first
    number gives, so none is taken twice. Nothing here reads the device. Without parameters: it is a
    network only so that it is saved, and `capacity` is a multiple of the batch size or is rounded
    down to one in effect.
    """

    images: Tensor
    filled: Tensor

    def __init__(
        self, capacity: int = 48, channels: int = 3, height: int = 32, width: int = 32
    ) -> None:
        super().__init__()
        self.capacity, self.channels, self.height, self.width = capacity, channels, height, width
        self.register_buffer("images", torch.zeros(capacity, channels, height, width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        if len(images) > self.capacity:
            return images
        images = images.detach().float()
        order = torch.arange(len(images), device=images.device)
        room = self.filled + len(images) <= self.capacity
        start = (numbers[0] * self.capacity).long()
        slots = torch.where(room, self.filled + order, (start + order) % self.capacity)
        # The first number chose the start: as itself it would tie the swap to the slot.
        chance = torch.frac(numbers * 4096)
        swap = torch.where(room, False, chance < 0.5)[:, None, None, None]
        kept = self.images.index_select(0, slots)
        stored = torch.where(swap | room, images, kept)
        self.images.index_copy_(0, slots, stored)
        self.filled.add_(torch.where(room, len(images), 0))
        return torch.where(swap, kept, images)
