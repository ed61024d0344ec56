"""Whole DCGAN steps on the CPU: fastgan against the loop every tutorial has, interleaved, median of pairs.

    python bench/cpu_step.py [--pairs 15] [--threads 2] [--json FILE]

The plain loop: D is not frozen in the generator's phase, tensors are contiguous, `.item()` at each step, torch's default
Adam, a DataLoader over images that are
decoded already. Both train the same networks (32x32, batch 64, base width 64) on the bundled data, fp32.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from torch import nn

import fastgan
from fastgan.models.dcgan import Discriminator, Generator

SIZE, BATCH, WIDTH = 32, 64, 64


class Decoded(torch.utils.data.Dataset):
    """What torchvision's ToTensor and Normalize give, from uint8 images in memory."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(self.images[i]).permute(2, 0, 1).contiguous().float().div(255).sub(0.5).div(0.5)


def plain_loop(images: np.ndarray):
    """A generator that runs one step of the tutorial's loop at each `next`."""
    torch.manual_seed(0)
    G, D = Generator(SIZE, 1, 100, WIDTH), Discriminator(SIZE, 1, WIDTH)
    adam_g = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_d = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))
    criterion = nn.BCEWithLogitsLoss()
    loader = torch.utils.data.DataLoader(Decoded(images), batch_size=BATCH, shuffle=True, drop_last=True)
    while True:
        for real in loader:
            D.zero_grad()
            label = torch.full((BATCH,), 1.0)
            on_real = criterion(D(real).view(-1), label)
            on_real.backward()
            fake = G(torch.randn(BATCH, 100, 1, 1))
            on_fake = criterion(D(fake.detach()).view(-1), label.fill_(0.0))
            on_fake.backward()
            adam_d.step()
            G.zero_grad()
            g_loss = criterion(D(fake).view(-1), label.fill_(1.0))
            g_loss.backward()
            adam_g.step()
            yield on_real.item() + on_fake.item(), g_loss.item()


def engine(images: np.ndarray):
    """A generator that runs one of fastgan's training steps at each `next`, its statistics included."""
    torch.manual_seed(0)
    trainer = fastgan.Trainer(
        Generator(SIZE, 1, 100, WIDTH), Discriminator(SIZE, 1, WIDTH), data=images, batch_size=BATCH, progress=False, watch=False
    )
    step = 0
    while True:
        trainer.stats.add(trainer._stage.train_step(step))
        if trainer.stats.full:
            trainer.stats.take()
        step += 1
        yield step


LOOPS = {"plain": plain_loop, "fastgan": engine}


def data() -> np.ndarray:
    return fastgan.data.open("fashion-mnist", size=SIZE).array("image")


def time_pairs(pairs: int, steps: int = 3) -> dict[str, list[float]]:
    """Seconds a step, by loop; the two take turns and swap order at each pair."""
    images = data()
    loops = {name: make(images) for name, make in LOOPS.items()}
    for loop in loops.values():
        for _ in range(3):
            next(loop)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for pair in range(pairs):
        for name in list(loops)[:: 1 if pair % 2 else -1]:
            start = time.perf_counter()
            for _ in range(steps):
                next(loops[name])
            seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def peak_memory(name: str, threads: int) -> float:
    """MiB that a process of its own reaches above what imports and data take."""
    code = f"import bench.cpu_step as b; b.report_peak({name!r}, {threads})"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def report_peak(name: str, threads: int) -> None:
    torch.set_num_threads(threads)
    images = data()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop = LOOPS[name](images)
    for _ in range(12):
        next(loop)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    seconds = time_pairs(options.pairs)
    ratios = [a / b for a, b in zip(seconds["plain"], seconds["fastgan"], strict=True)]
    rows = {
        name: {
            "images_per_s": BATCH / statistics.median(values),
            "ms_p20_p50_p80": [1e3 * float(np.quantile(values, q)) for q in (0.2, 0.5, 0.8)],
            "peak_MiB": peak_memory(name, options.threads),
        }
        for name, values in seconds.items()
    }
    for name, row in rows.items():
        low, mid, high = row["ms_p20_p50_p80"]
        print(
            f"{name:8} {row['images_per_s']:7.0f} img/s   {mid:6.1f} ms a step (p20 {low:.1f}, p80 {high:.1f})   {row['peak_MiB']:5.0f} MiB"
        )
    low, mid, high = (float(np.quantile(ratios, q)) for q in (0.2, 0.5, 0.8))
    print(f"speed-up, median of {len(ratios)} pairs: {mid:.2f} (p20 {low:.2f}, p80 {high:.2f})")
    if options.json:
        result = {
            "what": "dcgan 32x32, batch 64, base width 64, fp32, CPU",
            "rows": rows,
            "speed_up_p20_p50_p80": [low, mid, high],
            "threads": options.threads,
            "cpu": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip(),
        }
        with open(options.json, "w") as f:
            json.dump(result, f, indent=1)


if __name__ == "__main__":
    main()
