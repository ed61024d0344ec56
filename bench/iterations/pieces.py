"""What the plain rows are made of: their options, data, losses and an Adam that a compiler can see
through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastgan.bench.iterations.suites import Suite
from fastgan.errors import FastganError

Inputs = list[dict[str, Tensor]]
"""For each round of an iteration: "index" int64 (B,), and "z" and "epsilon" where the suite draws
them."""

Gradients = dict[str, list[Tensor]]


@dataclass(frozen=True)
class Options:
    """What a plain row does. The defaults are row c; precision is fp32 (strict), tf32 (PyTorch's
    default), bf16 or fp64.

    host_data: a DataLoader on the host. reads: the tutorial's five `.item()`. freeze: D's weights
        get no gradient in G's update.
    everywhere: bf16 on a CPU too. modules, whole: torch.compile modes, per network or for the
        iteration. graph: the iteration in one CUDA graph.
    """

    precision: str = "bf16"
    host_data: bool = False
    reads: bool = False
    freeze: bool = True
    channels_last: bool = True
    fused: bool = True
    autotune: bool = True
    modules: str | None = None
    whole: str | None = None
    graph: bool = False
    everywhere: bool = False

    def here(self, device: torch.device) -> Options:
        """On a CPU bf16 and tf32 rows compute in fp32, but for those that say `everywhere`."""
        if device.type == "cuda" or self.precision == "fp64" or self.everywhere:
            return self
        return Options(**{**self.__dict__, "precision": "fp32"})


@contextlib.contextmanager
def flags(precision: str, autotune: bool) -> Iterator[None]:
    """The process-wide switches of a row, put back afterwards: TF32, cuDNN's search, and room for a
    dozen compiled variants."""
    import torch._dynamo

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.enabled)
    cudnn.allow_tf32 = precision in ("tf32", "bf16")  # PyTorch's defaults, but for the strict row
    matmul.allow_tf32 = precision == "bf16"
    cudnn.benchmark = autotune
    cudnn.enabled = precision != "fp64"  # gold: native convolutions
    patches: dict[str, Any] = {"recompile_limit": 64}
    if hasattr(torch._dynamo.config, "trace_autograd_ops"):
        patches["trace_autograd_ops"] = True
    try:
        with torch._dynamo.config.patch(**patches):
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.enabled = before


class Decoded(torch.utils.data.Dataset):
    """What torchvision's ToTensor and Normalize give, from uint8 images in memory."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays["image"])

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(rows[i])
            .permute(2, 0, 1)
            .contiguous()
            .float()
            .div(255)
            .sub(0.5)
            .div(0.5)
            for name, rows in self.arrays.items()
        }


def d_loss(kind: str, logits: Tensor, real: bool) -> Tensor:
    """The discriminator's loss on the logits of reals or of fakes, a 0-dim fp32 tensor (or fp64 of
    fp64)."""
    towards = logits if logits.dtype == torch.float64 else logits.float()
    towards = towards if real else -towards
    if kind == "non-saturating":
        return F.softplus(-towards).mean()
    if kind == "hinge":
        return F.relu(1 - towards).mean()
    if kind == "wasserstein":
        return -towards.mean()
    raise FastganError(f"no plain loss {kind!r}: choose non-saturating, hinge or wasserstein")


def g_loss(kind: str, on_fake: Tensor) -> Tensor:
    """The generator's loss on logits."""
    fake = on_fake if on_fake.dtype == torch.float64 else on_fake.float()
    if kind == "non-saturating":
        return F.softplus(-fake).mean()
    if kind in ("hinge", "wasserstein"):
        return -fake.mean()
    raise FastganError(f"no plain loss {kind!r}: choose non-saturating, hinge or wasserstein")


class FunctionalAdam:
    """Adam (Kingma & Ba 2015) as tensor operations on fixed buffers, which a compiler can put into
    the iteration's graph."""

    def __init__(
        self, net: nn.Module, lr: float, betas: tuple[float, float], eps: float = 1e-8
    ) -> None:
        self.parameters: list[Tensor] = list(net.parameters())
        self.first, self.second = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))
        device = self.parameters[0].device
        self.count, self.lr = torch.zeros((), device=device), torch.tensor(lr, device=device)
        self.betas, self.eps = betas, eps

    def tensors(self) -> list[Tensor]:
        """Everything a step reads and changes but the parameters."""
        return [*self.first, *self.second, self.count, self.lr]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        b1, b2 = self.betas
        grads = list(gradients)
        self.count.add_(1)
        torch._foreach_lerp_(self.first, grads, 1 - b1)
        torch._foreach_mul_(self.second, b2)
        torch._foreach_addcmul_(self.second, grads, grads, value=1 - b2)
        spread = list(
            torch._foreach_div(torch._foreach_sqrt(self.second), (1 - b2**self.count).sqrt())
        )
        torch._foreach_add_(spread, self.eps)
        change = list(torch._foreach_div(self.first, spread))
        torch._foreach_mul_(change, self.lr / (1 - b1**self.count))
        torch._foreach_sub_(self.parameters, change)


def empty_inputs(suite: Suite, device: torch.device, dtype: torch.dtype = torch.float32) -> Inputs:
    """Buffers for an iteration's draws."""
    made = []
    for _ in range(suite.rounds):
        given = {"index": torch.zeros(suite.batch, dtype=torch.int64, device=device)}
        if suite.latent:
            given["z"] = torch.zeros(suite.batch, *suite.latent, device=device, dtype=dtype)
        if suite.gp:
            given["epsilon"] = torch.zeros(suite.batch, 1, 1, 1, device=device, dtype=dtype)
        made.append(given)
    return made
