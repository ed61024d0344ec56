"""Gradients averaged over all processes while backward still computes the rest of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from fastgan.distributed.context import DistributedContext
from fastgan.ops.adam.flat_parameters import FlatParameters

BYTES = 4 << 20
"""Of a bucket, at least. Networks of GANs are small: in buckets of the usual 25 MB most would be
one, which waits for the whole backward (docs/many-gpus.md has the arithmetic)."""


class Bucket:
    """Parameters whose gradients are reduced together, and where: `buffer` (numel,), of which
    `views` have their shapes and layouts. missing: how many gradients backward still owes."""

    def __init__(self, parameters: Sequence[nn.Parameter], buffer: Tensor, views: Sequence[Tensor]):
        self.parameters, self.buffer, self.views = list(parameters), buffer, list(views)
        self.missing = 0
        self.work: Any = None

    @torch.no_grad()
    def reduce(self) -> None:
        """Begin to add up what all processes have; a missing gradient counts as zero."""
        pairs = []
        for p, view in zip(self.parameters, self.views, strict=True):
            if p.grad is None:
                view.zero_()
            else:
                pairs.append((view, p.grad))
        if pairs:
            torch._foreach_copy_([v for v, _ in pairs], [g for _, g in pairs])
        self.work = dist.all_reduce(self.buffer, async_op=True)

    def take(self, world: int) -> None:
        """Wait for the sums, and make their means the gradients."""
        self.work.wait()
        self.work = None
        self.buffer.div_(world)
        for p, view in zip(self.parameters, self.views, strict=True):
            p.grad = view


class GradientBuckets:
    """The gradients of one network, reduced in buckets of at least `size` bytes, the last
    parameters first: backward comes to them in about this order.

    All processes begin their buckets in the same order, whatever their backwards do: a bucket waits
    for those before it, and what is left when backward is over follows then. flat: where the
    network's gradients have one buffer, of which buckets are parts.

    Li et al. 2020 (PyTorch Distributed, arXiv 2006.15704, section 3.2.3).
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        ranks: DistributedContext,
        flat: FlatParameters | None = None,
        size: int = BYTES,
    ) -> None:
        self.ranks, self.begun = ranks, 0
        self.buckets = list(_of_flat(flat, size) if flat is not None else _of(parameters, size))

    @contextmanager
    def during_backward(self) -> Iterator[None]:
        """Buckets are reduced as the backward inside completes them."""
        self.begun = 0
        # On the nodes, not the parameters: of these LowWeights leaves any that have hooks alone.
        # Made anew for each backward, since a node belongs to the stream that it was made on.
        hooks = []  # with their nodes, which nothing else need hold
        for bucket in self.buckets:
            trained = [p for p in bucket.parameters if p.requires_grad]
            bucket.missing = len(trained)
            for p in trained:
                node: Any = get_gradient_edge(p).node
                hooks.append((node, node.register_hook(partial(self._arrived, bucket))))
        try:
            yield
        finally:
            for _, hook in hooks:
                hook.remove()

    def _arrived(self, bucket: Bucket, *gradients: Any) -> None:
        bucket.missing -= 1
        while self.begun < len(self.buckets) and not self.buckets[self.begun].missing:
            self.buckets[self.begun].reduce()
            self.begun += 1

    def finish(self) -> None:
        """Make every gradient its mean over all processes."""
        for bucket in self.buckets[self.begun :]:
            bucket.reduce()
        self.begun = 0
        for bucket in self.buckets:
            bucket.take(self.ranks.world)


def _of(parameters: Sequence[nn.Parameter], size: int) -> Iterator[Bucket]:
    held: list[nn.Parameter] = []
    for p in reversed(parameters):
        if held and (p.dtype, p.device) != (held[0].dtype, held[0].device):
            yield _bucket(held)
            held = []
        held.append(p)
        if sum(p.nbytes for p in held) >= size:
            yield _bucket(held)
            held = []
    if held:
        yield _bucket(held)


def _bucket(parameters: Sequence[nn.Parameter]) -> Bucket:
    buffer = parameters[0].new_zeros(sum(p.numel() for p in parameters))
    parts = buffer.split([p.numel() for p in parameters])
    return Bucket(
        parameters, buffer, [_like(p, part) for p, part in zip(parameters, parts, strict=True)]
    )


def _like(p: nn.Parameter, part: Tensor) -> Tensor:
    """`part` (numel,) as a tensor of p's shape, laid out as p where p fills its memory."""
    strides = torch.empty_like(p, device="meta").stride()
    return part.as_strided(p.shape, strides)


def _of_flat(flat: FlatParameters, size: int) -> Iterator[Bucket]:
    end, last = flat.grad.numel(), len(flat.parameters)
    for first in reversed(range(len(flat.parameters))):
        begin = flat.offsets[first]
        if 4 * (end - begin) >= size or first == 0:
            yield Bucket(
                flat.parameters[first:last], flat.grad[begin:end], flat.grad_views[first:last]
            )
            end, last = begin, first
