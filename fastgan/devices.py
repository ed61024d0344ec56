"""Which device a run uses, and how running out of its memory shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from fastgan.errors import FastganError


def _unknown(name: object) -> FastganError:
    return FastganError(f"unknown device {name!r}: use auto, cpu or cuda")


def pick_device(name: str) -> torch.device:
    """auto: the GPU when there is one. A GPU given by number becomes torch's current one: kernels
        and graphs are launched there.

    Raises FastganError for a device that is not there.
    """
    if not isinstance(name, str):
        raise _unknown(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _unknown(name) from error
    if device.type not in ("cpu", "cuda"):
        raise _unknown(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise FastganError(
            f"device {name!r} asked for, but torch sees no GPU: use --device cpu, or see `fastgan "
            "info`"
        )
    if device.type == "cuda" and device.index is not None:
        if device.index >= (count := torch.cuda.device_count()):
            raise FastganError(
                f"device {name!r} asked for, but torch sees {count} GPU{'s' * (count > 1)}, "
                "numbered from 0"
            )
        torch.cuda.set_device(device)
    return device


def search_algorithms(device: torch.device) -> None:
    """Let cuDNN search for its fastest algorithms, unless torch was asked to be deterministic: a
    step's shapes never change."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory; on the CPU it says so in words only."""
    said = ("out of memory", "defaultcpuallocator", "not enough memory", "alloc_failed")
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error).lower() for words in said
    )


@contextmanager
def out_of_memory(line: str) -> Iterator[None]:
    """Where memory runs out inside, FastganError says this line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        raise FastganError(line) from error


def memory_explained(batch_size: int) -> AbstractContextManager[None]:
    """Where memory runs out inside, FastganError says what of a training run to lower."""
    lower = f"lower --batch-size (try {max(batch_size // 2, 1)}), --size or the networks' width"
    return out_of_memory(f"out of memory at batch size {batch_size}: {lower}")


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of this device; torch.manual_seed would queue a call
    for every GPU at every step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        torch.cuda.default_generators[index].manual_seed(seed)
