"""Which number formats a run computes in. Master weights, losses, statistics and optimiser state
are fp32 in all of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from fastgan.errors import FastganError

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")


@dataclass(frozen=True)
class Precision:
    """name: what was resolved; compute: the autocast type, or None for fp32."""

    name: str
    device_type: str
    compute: torch.dtype | None = None

    def scaler(self) -> torch.amp.GradScaler | None:
        """For fp16 a dynamic loss scale on the device, for the others None.

        Source: Micikevicius et al. 2018, section 3.2.
        """
        return torch.amp.GradScaler(self.device_type) if self.compute is torch.float16 else None

    @property
    def copied(self) -> torch.dtype | None:
        """The type in which optimisers keep a copy of the weights: bf16's, whose gradients need no
        scale."""
        return self.compute if self.compute is torch.bfloat16 else None

    def autocast(self) -> AbstractContextManager:
        if self.compute is None:
            return nullcontext()
        return torch.autocast(self.device_type, self.compute)


def resolve(name: str, device: torch.device) -> Precision:
    """auto: bf16 on NVIDIA Ampere and newer, fp32 elsewhere.

    fp32 turns TF32 off for the process, tf32 turns it on. Raises FastganError.
    """
    if name not in PRECISIONS:
        raise FastganError(f"unknown precision {name!r}: choose one of {', '.join(PRECISIONS)}")
    cuda = device.type == "cuda"
    if name == "auto":
        name = "bf16" if cuda and torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if name == "tf32" and not cuda:
        raise FastganError("precision tf32 needs an NVIDIA GPU: use fp32 here")
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        torch.backends.cudnn.allow_tf32 = name == "tf32"
    return Precision(name, device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name))
