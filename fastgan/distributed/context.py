"""The processes of a distributed run, as torchrun starts them; a single process is a run of one."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fastgan.distributed import meeting
from fastgan.distributed.fail_fast import FailFast
from fastgan.errors import FastganError

PATIENCE = timedelta(days=7)
"""How long the others wait for rank 0's decoding. A process that fails is noticed by other means
(fail_fast.py)."""


@dataclass(frozen=True)
class DistributedContext:
    """rank: of this process. world: how many there are. control: the group for messages between
        hosts. patient: the same, for
    what may take hours. alarm: tells the others of failures.
    """

    rank: int = 0
    world: int = 1
    control: Any = None
    patient: Any = None
    alarm: FailFast | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def together(self) -> AbstractContextManager[None]:
        """A context in which a failure of one process ends all of them."""
        return self.alarm.guarding() if self.alarm is not None else nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all ranks."""
        return value if self.world == 1 else self.total(value).div_(self.world)

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all ranks."""
        if self.world == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total

    def largest(self, value: int) -> int:
        """The largest of a small number over all ranks; talks through the host, so that no GPU is
        waited for."""
        if self.world == 1:
            return value
        held = torch.tensor(value)
        dist.all_reduce(held, dist.ReduceOp.MAX, group=self.control)
        return int(held)

    def same(self, tensors: Iterable[Tensor]) -> None:
        """Make tensors equal to those of rank 0, in place."""
        if self.world > 1:
            for value in tensors:
                dist.broadcast(value.data, 0)

    def wait(self) -> None:
        """Wait until all ranks are here, without a limit: one of them may be decoding the
        images."""
        if self.world > 1:
            dist.barrier(group=self.patient)


_joined: DistributedContext | None = None


def join(device: torch.device) -> DistributedContext:
    """Join the processes that torchrun started, or be alone: nccl on GPUs, gloo on the CPU. Once a
    process; it leaves at its end.
    """
    global _joined
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return DistributedContext()
    if _joined is None:
        if not dist.is_initialized():
            place: dict[str, Any] = {}
            if meeting.shared():
                place = {"rank": int(os.environ["RANK"]), "world_size": world}
                place["store"] = meeting.store_of_this_start(*place.values())
            if device.type == "cuda":
                here = torch.device(
                    "cuda",
                    device.index if device.index is not None else torch.cuda.current_device(),
                )
                dist.init_process_group("nccl", device_id=here, **place)
            else:
                dist.init_process_group("gloo", **place)
            atexit.register(leave)
        rank = dist.get_rank()
        alarm = FailFast(own_store(), rank)
        atexit.register(alarm.stop)  # in somebody else's process group, too
        control, patient = (
            dist.new_group(backend="gloo"),
            dist.new_group(backend="gloo", timeout=PATIENCE),
        )
        _joined = DistributedContext(rank, dist.get_world_size(), control, patient, alarm)
    return _joined


def own_store() -> Any:
    """A connection of this process's own to the store that all processes share: a thread waits on
    it."""
    private = getattr(dist.distributed_c10d, "_get_default_store", None)
    if private is not None:
        return private().clone()
    return dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def leave() -> None:
    """End this process's part: the last thing it does."""
    global _joined
    failed = False
    if _joined is not None and _joined.alarm is not None:
        _joined.alarm.stop()
        failed = _joined.alarm.failed
        _joined = None
    if dist.is_initialized():
        abort = getattr(dist.distributed_c10d, "_abort_process_group", None)
        if failed and abort is not None and dist.get_backend() == "nccl":
            abort()  # the orderly way waits for the process that failed
        else:
            dist.destroy_process_group()


def local_device(name: str) -> str:
    """Under torchrun "auto" and "cuda" are the GPU of this process's own number. Raises
    FastganError where there are too few."""
    local = os.environ.get("LOCAL_RANK")
    if name not in ("auto", "cuda") or local is None or not torch.cuda.is_available():
        return name
    if int(local) >= torch.cuda.device_count():
        raise FastganError(
            f"process {local} has no GPU, there are {torch.cuda.device_count()}: lower "
            "--nproc-per-node"
        )
    return f"cuda:{local}"
