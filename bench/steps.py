"""Whole DCGAN-64 training steps on a GPU: what PyTorch can do, from the tutorial loop to a captured graph, and what the same
loop does accelerated.

    python -m bench.gpu --stages steps
    python -m bench.steps --toy                       the code of every row at toy size, on any CPU

All rows train the same networks on resident images; rows of ours change the modules (``fastgan.accelerate``) and the capture
alone. Losses and parameters must be finite, or the row failed.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.gpu import Row
from bench.store import Store
from fastgan.models.dcgan import Discriminator, Generator

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
LATENT = 100
VARIANTS = {  # name: (tuned, accelerated, compiled, graphed, seconds at most)
    "tutorial loop, PyTorch defaults": (False, False, False, False, 12),
    "bf16, channels_last, fused Adam, D frozen": (True, False, False, False, 12),
    "tuned + one CUDA graph": (True, False, False, True, 15),
    "tuned + accelerate": (True, True, False, False, 25),
    "tuned + accelerate + one CUDA graph": (True, True, False, True, 30),
    "tuned + torch.compile per module": (True, False, True, False, 70),
    "tuned + torch.compile + one CUDA graph": (True, False, True, True, 80),
}

Step = Callable[[Tensor], None]


class Training:
    """Networks, optimisers and resident images of one row."""

    def __init__(self, batch: int, tuned: bool, accelerated: bool, toy: bool) -> None:
        torch.manual_seed(0)
        size, width = (32, 8) if toy else (64, 64)
        form = torch.channels_last if tuned else torch.contiguous_format
        self.G: nn.Module = Generator(size=size, base_width=width).to(DEVICE, memory_format=form)
        self.D: nn.Module = Discriminator(size=size, base_width=width).to(DEVICE, memory_format=form)
        if accelerated:
            from fastgan.swap import accelerate

            self.G, self.D = accelerate(self.G), accelerate(self.D)
        self.batch = batch
        self.images = [(torch.rand(batch, 3, size, size, device=DEVICE) * 2 - 1).to(memory_format=form) for _ in range(4)]
        extra = {"fused": True, "capturable": CUDA} if tuned else {}
        self.adam_g = torch.optim.Adam(self.G.parameters(), lr=2e-4, betas=(0.5, 0.999), **extra)
        self.adam_d = torch.optim.Adam(self.D.parameters(), lr=2e-4, betas=(0.5, 0.999), **extra)
        self.ones, self.zeros = torch.ones(batch, device=DEVICE), torch.zeros(batch, device=DEVICE)
        self.losses: tuple[Any, Any] = (0.0, 0.0)

    def noise(self) -> Tensor:
        return torch.randn(self.batch, LATENT, 1, 1, device=DEVICE)


def tutorial_step(t: Training) -> Step:
    """The loop of the PyTorch tutorial: sigmoid and BCELoss, a label tensor filled three times, .item() at every turn."""
    criterion = nn.BCELoss()

    def judged(x: Tensor) -> Tensor:
        return torch.sigmoid(t.D(x)).view(-1)

    def step(real: Tensor) -> None:
        t.D.zero_grad()
        target = torch.full((t.batch,), 1.0, device=DEVICE)
        out = judged(real)
        loss_real = criterion(out, target)
        loss_real.backward()
        out.mean().item()
        fake = t.G(t.noise())
        target.fill_(0.0)
        out = judged(fake.detach())
        loss_fake = criterion(out, target)
        loss_fake.backward()
        out.mean().item()
        t.adam_d.step()
        t.G.zero_grad()
        target.fill_(1.0)
        out = judged(fake)
        loss_g = criterion(out, target)
        loss_g.backward()
        out.mean().item()
        t.adam_g.step()
        t.losses = (loss_real + loss_fake).item(), loss_g.item()

    return step


def tuned_step(t: Training, G: Callable[..., Tensor], D: Callable[..., Tensor]) -> Step:
    """What PyTorch offers without a compiler: bf16 autocast, no weight gradients of D in G's step, nothing read by the host."""
    bce = lambda logits, target: F.binary_cross_entropy_with_logits(logits.view(-1).float(), target)

    def step(real: Tensor) -> None:
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            fake = G(t.noise())
            loss_d = bce(D(real), t.ones) + bce(D(fake.detach()), t.zeros)
        loss_d.backward()
        t.adam_d.step()
        t.adam_d.zero_grad()
        t.D.requires_grad_(False)
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            loss_g = bce(D(fake), t.ones)
        loss_g.backward()
        t.adam_g.step()
        t.adam_g.zero_grad()
        t.D.requires_grad_(True)
        t.losses = loss_d.detach(), loss_g.detach()

    return step


def graphed(step: Step, t: Training) -> Step:
    """The step as one CUDA graph; warm-up compiles, tunes cuDNN and creates Adam's state first."""
    static, stream = t.images[0].clone(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(4):
            step(static)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(static)

    def replay(real: Tensor) -> None:
        static.copy_(real)
        graph.replay()

    return replay


def sync() -> None:
    if CUDA:
        torch.cuda.synchronize()


def measure(variant: str, batch: int, toy: bool) -> dict[str, Any]:
    """Milliseconds a step (wall clock around synchronised loops, median of three), start-up, peak memory, last losses."""
    tuned, accelerated, compiled, captured, _ = VARIANTS[variant]
    torch._dynamo.reset()
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.backends.cudnn.benchmark = tuned
    began = time.perf_counter()
    t = Training(batch, tuned, accelerated, toy)
    wrap = (lambda net: torch.compile(net, dynamic=False)) if compiled else lambda net: net
    step = tuned_step(t, wrap(t.G), wrap(t.D)) if tuned else tutorial_step(t)
    if captured and CUDA:
        step = graphed(step, t)

    def loop(n: int) -> float:
        sync()
        start = time.perf_counter()
        for i in range(n):
            step(t.images[i % len(t.images)])
        sync()
        return (time.perf_counter() - start) / n

    loop(3)
    startup = time.perf_counter() - began
    n = 1 if toy else max(4, min(300, int(0.5 / loop(3))))
    seconds = statistics.median(loop(n) for _ in range(1 if toy else 3))
    losses = [float(v) for v in t.losses]
    parameters = [p for net in (t.G, t.D) for p in net.parameters()]
    if not all(map(math.isfinite, losses)) or not all(bool(p.isfinite().all()) for p in parameters):
        return {"failed": f"not finite: losses {losses}"}
    peak = torch.cuda.max_memory_allocated() / 2**20 if CUDA else 0.0
    shown = f"{seconds * 1e3:.3f} ms, {batch / seconds:.0f} images/s, start-up {startup:.1f} s, peak {peak:.0f} MB"
    return {
        "ms": seconds * 1e3,
        "images_per_s": batch / seconds,
        "startup_s": startup,
        "peak_mb": peak,
        "losses": losses,
        "shown": shown,
    }


def rows(toy: bool) -> Iterable[Row]:
    """Uncompiled rows at every batch size first; compiled ones take minutes."""
    for slow in (False, True):
        for batch in (4,) if toy else (128, 16, 1024, 64):
            for variant, (_, accelerated, compiled, _, seconds) in VARIANTS.items():
                if compiled is slow:
                    yield Row(
                        f"batch {batch} | {variant}", lambda a=(variant, batch, toy): measure(*a), seconds, ours=accelerated
                    )


def summary(store: Store) -> None:
    """A table a batch size, against the tutorial loop and the best of PyTorch's."""
    known: dict[str, dict[str, dict[str, Any]]] = {}
    for r in store.stage("steps"):
        batch, _, variant = r["key"].partition(" | ")
        known.setdefault(batch, {})[variant] = r
    for batch, by in known.items():
        print(f"\nDCGAN-64 step, {batch}")
        base = by.get(next(iter(VARIANTS)), {}).get("ms", math.nan)
        for variant in VARIANTS:
            r = by.get(variant)
            text = (
                f"{r['ms']:9.3f} ms {r['images_per_s']:9.0f} images/s  {base / r['ms']:5.2f}x of the first"
                if r
                else "not measured"
            )
            print(f"  {variant:42} {text}")


def main() -> None:
    """Every row at once, without a store."""
    p = argparse.ArgumentParser(
        "python -m bench.steps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--toy", action="store_true")
    for row in rows(p.parse_args().toy or not CUDA):
        values = row.run()
        print(f"{row.key}: {values.get('failed') or values['shown']}", flush=True)


if __name__ == "__main__":
    main()
