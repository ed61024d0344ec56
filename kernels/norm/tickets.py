"""Who is last: the merge of what many programs found, within the launch that found it.

A program stores its part and takes a ticket of its group of 16; the last of a group merges the
group's parts and takes a ticket of the whole, whose last merges the groups. Orders are fixed, so
that results repeat bit for bit whoever is last.

Tickets are int32 zeros, and zeros again afterwards. They lie in a ring on the device, of which each
launch takes the next ones: launches that run at the same time on several streams have others, those
of graphs included, as long as fewer than SLOTS are in flight.
"""

from __future__ import annotations

import functools
import threading

import torch
from torch import Tensor

from fastgan.kernels.common import cdiv, tl, triton

SLOTS = 1 << 18
"""1 MiB a device."""


@triton.jit
def is_last(ticket_ptr, count):
    """Whether this program is the last of `count` that come here. What the others have stored
    before is there for it to load, past the first cache (cache_modifier=".cg")."""
    tl.debug_barrier()  # all warps of this program have stored before it takes its ticket
    last = tl.atomic_add(ticket_ptr, 1, sem="acq_rel", scope="gpu") == count - 1
    if last:
        tl.store(ticket_ptr, 0)
    return last


GROUP = 16
"""Parts that one program merges at a time: no one reads more than a few times 16 of them."""


def tickets_of(segments: int, parts: int) -> int:
    """Tickets for a block of channels: one a group of parts, one a segment, one for all."""
    return segments * (cdiv(parts, GROUP) + 1) + 1


class Ring:
    """The tickets of a device; kept for good, so that a captured launch finds them: warm up before
    capture."""

    def __init__(self, device: torch.device) -> None:
        self.zeros = torch.zeros(SLOTS, dtype=torch.int32, device=device)
        self._next, self._lock = 0, threading.Lock()

    def take(self, count: int) -> tuple[Tensor, int]:
        """(tickets, where the next `count` of them begin); of so many that a ring has no room for
        several launches, a buffer of the launch's own."""
        if count > SLOTS // 16:
            return torch.zeros(count, dtype=torch.int32, device=self.zeros.device), 0
        with self._lock:
            first = self._next if self._next + count <= SLOTS else 0
            self._next = first + count
        return self.zeros, first


@functools.cache
def ring(device: torch.device) -> Ring:
    return Ring(device)
