"""Batches on the device as a function of the position alone: resident on the device, or streamed,
bit for bit the same."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastgan.data.dataset import Dataset
from fastgan.data.permutation import Order
from fastgan.errors import FastganError

AHEAD_BYTES = 2**25
"""Rows that a stream keeps ready, about: enough to outlast a slow read of small images; of large
ones all that a step reads, at least two."""

AHEAD = 16
"""Most batches kept ready, unless a step reads more."""


class Stream:
    """Endless batches of one data set.

    name: "image" gives the fields under their own names; any other name s gives s for the image
    field and s_<field> for the rest. It also keys order and flips, so that two streams over one
    data set differ. seed: int. batch_size: samples of all ranks together, divisible by world.
    dtype: of the images. flip: mirror each image left-right with probability 1/2, a function of
    (seed, name, position), the same for all image fields of a sample. resident_bytes: a data set of
    at most this size lives on the device as uint8. rounds: batches that a step reads, all of which
    are kept ready. Raises FastganError when the data set is smaller than a batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        name: str,
        seed: int,
        batch_size: int,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        flip: bool = False,
        resident_bytes: int = 2**31,
        rank: int = 0,
        world: int = 1,
        rounds: int = 1,
    ) -> None:
        if batch_size < 1 or batch_size % world:
            raise FastganError(
                f"batch size {batch_size} does not divide by {world} processes: use a multiple of "
                f"{world}"
            )
        if len(dataset) < batch_size:
            raise FastganError(
                f"{dataset.name} has {len(dataset):,} readable samples, fewer than one batch of "
                f"{batch_size}: "
                f"lower --batch-size to {len(dataset)} or less, or add images"
            )
        if flip and all(spec.kind != "image" for spec in dataset.fields.values()):
            raise FastganError(f"{dataset.name} holds no images to mirror: leave --flip out")
        self.dataset, self.name, self.seed = dataset, name, int(seed)
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.local_size = batch_size // world
        self.device, self.dtype, self.flip = torch.device(device), dtype, flip
        self.resident = dataset.nbytes <= resident_bytes
        self.keys = {field: self._key(field) for field in dataset.fields}
        self._order = Order(self.seed, name, len(dataset))
        self._held: dict[str, Tensor] = {}
        if self.resident:
            self._held = {
                field: _tensor(dataset.array(field)).to(self.device) for field in dataset.fields
            }
        row = max(dataset.nbytes // len(dataset), 1)
        self.depth = max(rounds, 2, min(AHEAD_BYTES // (row * self.local_size), AHEAD))
        self._worker: ThreadPoolExecutor | None = None
        self._ahead: dict[int, Future[Any]] = {}
        self._staging = None if self.resident else _Staging(self)

    def _key(self, field: str) -> str:
        if self.name == "image":
            return field
        return self.name if field == "image" else f"{self.name}_{field}"

    def index(self, position: int) -> np.ndarray:
        """Which samples this rank sees in the batch that starts at global position, int64
        (batch_size / world,)."""
        return self._order(position + self.rank * self.local_size, self.local_size)

    def prefetch(self, position: int) -> None:
        """Hint: batch(position) comes soon. A worker thread prepares it; at most `depth` hints are
        kept."""
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="fastgan-data")
        if position not in self._ahead:
            while len(self._ahead) >= self.depth:  # a hint that nobody followed
                self._ahead.pop(next(iter(self._ahead))).add_done_callback(self._drop)
            self._ahead[position] = self._worker.submit(self._prepare, position)

    def batch(self, position: int) -> dict[str, Tensor]:
        """The samples at global positions [position + rank * b, ...), b = batch_size / world, on
        the device.

        Image fields: `dtype` (b, C, H, W) channels_last in [-1, 1]. Labels: int64 (b,). Other
            fields: as they are, (b, *shape).
        """
        slots = self.slots()
        self.fill(slots, position)
        return self.assemble(slots)

    def slots(self) -> dict[str, Tensor]:
        """Device tensors that hold what `assemble` needs for one batch; filled anew for each batch,
        at the same addresses."""
        made = {"$position": torch.zeros((), dtype=torch.int64, device=self.device)}
        if self._staging is None:
            made["$index"] = torch.zeros(self.local_size, dtype=torch.int64, device=self.device)
        else:
            for field, spec in self.dataset.fields.items():
                made[field] = torch.empty(
                    (self.local_size, *spec.shape),
                    dtype=_torch_dtype(spec.dtype),
                    device=self.device,
                )
        return made

    def fill(self, slots: dict[str, Tensor], position: int) -> None:
        """Bring the batch at global position `position` into `slots`: its indices, or its rows
        where the data are streamed."""
        ahead = self._ahead.pop(position, None)
        prepared = ahead.result() if ahead is not None else self._prepare(position)
        slots["$position"].fill_(position + self.rank * self.local_size)
        if self._staging is None:
            slots["$index"].copy_(torch.from_numpy(prepared), non_blocking=True)
        else:
            for field, rows in self._staging.upload(prepared).items():
                slots[field].copy_(rows, non_blocking=True)

    def assemble(self, slots: dict[str, Tensor]) -> dict[str, Tensor]:
        """What `batch` returns, from filled slots, by device operations alone: this part can be
        captured in a CUDA graph."""
        if self._staging is None:
            return self._assemble(self._held, slots["$index"], slots["$position"])
        return self._assemble(
            slots, torch.arange(self.local_size, device=self.device), slots["$position"]
        )

    def close(self) -> None:
        """Stop the worker thread."""
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)
            self._worker, self._ahead = None, {}

    def _prepare(self, position: int) -> Any:
        index = self.index(position)
        return index if self._staging is None else self._staging.read(index)

    def _drop(self, unused: Future[Any]) -> None:
        if self._staging is not None and not unused.cancelled() and unused.exception() is None:
            self._staging.release(unused.result()[0])

    def _assemble(self, rows: dict[str, Tensor], index: Tensor, where: Tensor) -> dict[str, Tensor]:
        from fastgan.ops.images import gather
        from fastgan.ops.random import stream_id, uniform

        flip = None
        if self.flip:
            drawn = uniform(
                self.seed, where, self.local_size, (1,), stream=stream_id("flip:" + self.name)
            )
            flip = drawn.reshape(-1) < 0.5
        out = {}
        for field, spec in self.dataset.fields.items():
            if spec.kind == "image":
                out[self.keys[field]] = gather(rows[field], index, flip=flip, dtype=self.dtype)
            else:
                out[self.keys[field]] = rows[field].index_select(0, index)
        return out


class _Slot:
    """Pinned buffers for one batch, and the copy that last read them."""

    def __init__(self, rows: dict[str, Tensor]) -> None:
        self.rows = rows
        self.copied: torch.cuda.Event | None = None


class _Staging:
    """Rows from the memory map to the device; through pinned slots, one a batch that is kept ready,
    and a copy stream on CUDA."""

    def __init__(self, stream: Stream) -> None:
        self.dataset, self.device = stream.dataset, stream.device
        self._free: deque[_Slot] = deque()
        if self.device.type == "cuda":
            self._copies = torch.cuda.Stream(self.device)
            for _ in range(stream.depth):
                self._free.append(
                    _Slot(
                        {
                            key: torch.empty(
                                (stream.local_size, *f.shape),
                                dtype=_torch_dtype(f.dtype),
                                pin_memory=True,
                            )
                            for key, f in self.dataset.fields.items()
                        }
                    )
                )

    def read(self, index: np.ndarray) -> tuple[_Slot | None, dict[str, Tensor]]:
        """The rows at index in host memory, in a pinned slot if one is free. From any thread."""
        try:
            slot = self._free.popleft()
        except IndexError:
            return None, {
                key: torch.from_numpy(rows) for key, rows in self.dataset.read(index).items()
            }
        if slot.copied is not None:
            # the slot's last copy must have left before it is overwritten
            slot.copied.synchronize()
        for key, rows in slot.rows.items():
            np.take(self.dataset.array(key), index, axis=0, out=rows.numpy())
        return slot, slot.rows

    def release(self, slot: _Slot | None) -> None:
        """Give a slot back."""
        if slot is not None:
            self._free.append(slot)

    def upload(self, prepared: tuple[_Slot | None, dict[str, Tensor]]) -> dict[str, Tensor]:
        """The same rows on the device, ordered before what the current stream does next."""
        slot, rows = prepared
        if self.device.type != "cuda":
            return {key: value.to(self.device) for key, value in rows.items()}
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._copies):
            moved = {key: value.to(self.device, non_blocking=True) for key, value in rows.items()}
            copied = torch.cuda.Event()
            copied.record(self._copies)
        if slot is not None:
            slot.copied = copied
            self.release(slot)
        current.wait_event(copied)
        for value in moved.values():
            value.record_stream(current)
        return moved


def _torch_dtype(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype=dtype)).dtype


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor over the array's memory: nothing is copied of what has one."""
    array = np.asarray(array)
    if array.flags.writeable:
        return torch.from_numpy(array)
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
