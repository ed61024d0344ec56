"""A namespace of the store for one start of the processes.

torchrun keeps one store for all starts of a job, in which a later start would find the addresses
that an earlier one left (PyTorch issue 135712); how often it has started is not the same number for
every agent.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from fastgan.errors import FastganError

PLACE = "fastgan/meeting"
LOOK_EVERY = 0.05
PATIENCE = 1800.0
"""Seconds in which all processes must come: torch's own for groups on a CPU."""


def shared() -> bool:
    """Whether the store may hold what an earlier start left."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def store_of_this_start(rank: int, world: int) -> Any:
    """The store of the processes that are there now, under a name that they agree on."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(
        address, port, world, is_master=False, timeout=timedelta(seconds=PATIENCE)
    )
    return dist.PrefixStore(f"fastgan/{meet(store, rank, world)}", store)


def meet(store: Any, rank: int, world: int) -> str:
    """A name that all processes of this start know, and none of an earlier one.

    Each leaves a word that nobody has used before. Process 0 publishes a name with the words that
    it finds, again and again; whoever sees its own word among them takes the name and confirms it.
    Raises FastganError where not all come in time.
    """
    word, until = uuid.uuid4().hex, time.monotonic() + PATIENCE
    store.set(f"{PLACE}/word/{rank}", word)
    while time.monotonic() < until:
        if rank == 0:
            words = [_read(store, f"{PLACE}/word/{r}") for r in range(world)]
            store.set(f"{PLACE}/name", json.dumps({"name": word, "words": words}))
            confirmed = [_read(store, f"{PLACE}/confirmed/{r}") for r in range(1, world)]
            if all(name == word for name in confirmed):
                return word
        else:
            found = json.loads(_read(store, f"{PLACE}/name") or '{"words": []}')
            if word in found["words"]:
                store.set(f"{PLACE}/confirmed/{rank}", found["name"])
                return str(found["name"])
        time.sleep(LOOK_EVERY)
    raise FastganError(f"process {rank}: the {world} processes of this run did not come together")


def _read(store: Any, key: str) -> str | None:
    return store.get(key).decode() if store.check([key]) else None
