"""Same training: accelerated networks against the same networks left alone.

    python -m fastgan.bench.stages.same_training [--seeds 5] [--steps N] [--json FILE]
    python -m fastgan.bench.gpu --stages same
        as a stage, with a budget

1. Buffers of BatchNorm and spectral norm after 50 steps from one state. Yardstick: PyTorch against
itself in the other memory
   format, which differs by rounding alone; accelerated may differ by at most 4 times that, or 1e-5.
2. `dcgan` on Fashion-MNIST over several seeds, judged by feature distance (FD-small) and by the
entropy of the classes a
   classifier sees. Margins, one-sided at 95 % over paired seeds: the mean FD-small may be at most
   10 % worse (25 % in the short form), the mean entropy at most 0.1 nats lower (0.3).

On a GPU accelerated means impl="auto" with graphs against impl="reference" without, and full runs.
On a CPU the networks are accelerated by hand and take the way they take on a GPU, each operator by
its reference, with the normalisation handed on from convolution to convolution (edge "on_load"):
left alone they would call PyTorch's own operations there, and the same bits prove nothing. Runs are
short there, and the weights are judged instead of their average. Gradients from one state are
judged by `fastgan bench` in each run. Exit code 1 on a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import fastgan.data
from fastgan import machine
from fastgan.acceleration import accelerate
from fastgan.acceleration.fused import FusedSequential
from fastgan.bench.gpu import StageRow
from fastgan.bench.store import Store
from fastgan.graphs.backends import CudaGraph
from fastgan.precision import resolve
from fastgan.recipes.config import ImageSpec, RecipeParts
from fastgan.recipes.dcgan import Dcgan
from fastgan.recipes.sngan import Sngan
from fastgan.trainer.sampling import generate
from fastgan.trainer.stages.active import ActiveStage
from fastgan.trainer.stages.stage import Stage

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
FULL = (5000, 64, 5000)
"""Steps, base width and samples of a run in the full form."""
QUANTILE = {2: 6.314, 3: 2.920, 4: 2.353, 5: 2.132, 6: 2.015, 8: 1.895, 10: 1.833}
"""One-sided 95 % of Student's t for so many pairs."""
MARGINS = {"fd": 0.10 if GPU else 0.25, "entropy": 0.1 if GPU else 0.3}


def begin(
    built: RecipeParts,
    dataset: Any,
    *,
    seed: int,
    fast: bool,
    layout: torch.memory_format = torch.channels_last,
) -> ActiveStage:
    """A training that has not begun."""
    stage = Stage(built.nets, built.objective, optimizers=built.optimizers, ema=("G",))
    if fast and not GPU:
        for net in built.nets.values():
            for module in accelerate(net).modules():
                if isinstance(module, FusedSequential):
                    module.edge = "on_load"
    return ActiveStage(
        stage,
        {"image": dataset},
        index=0,
        seed=seed,
        batch_size=64 if dataset.nbytes > 2**20 else 16,
        ema_decay=0.999,
        flip=False,
        device=DEVICE,
        precision=resolve("auto", DEVICE),
        memory_format=layout,
        resident_bytes=2**34,
        graphs=CudaGraph if fast and GPU else None,
        impl="auto" if fast else "reference",
    )


@contextlib.contextmanager
def way(fast: bool) -> Iterator[None]:
    """Within it accelerated modules run on a CPU as on a GPU: every module that asks whether
    kernels take a tensor hears yes."""
    with contextlib.ExitStack() as stack:
        for name, module in [*sys.modules.items()] if fast and not GPU else ():
            if name.startswith("fastgan.") and hasattr(module, "kernels_take"):
                stack.enter_context(mock.patch.object(module, "kernels_take", return_value=True))
        yield


def buffers(nets: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.detach().double().cpu()
        for name, net in nets.items()
        for key, value in net.named_buffers()
        if value.is_floating_point()
    }


def furthest(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Largest relative distance of two states' buffers."""
    return max(float((a[k] - b[k]).norm() / b[k].norm().clamp_min(1e-12)) for k in b)


def compare_buffers(steps: int) -> dict[str, Any]:
    """{recipe: how far accelerated and the yardstick are from the reference}."""
    grey = (
        torch.from_numpy(np.array(fastgan.data.open("fashion-mnist").array("image")[:512]))
        .permute(0, 3, 1, 2)
        .float()
    )
    small = (
        nn.functional.interpolate(grey, size=(16, 16), mode="bilinear")
        .round()
        .byte()
        .permute(0, 2, 3, 1)
        .contiguous()
    )
    dataset = fastgan.data.open(small.numpy())
    recipes = {
        "dcgan": Dcgan(base_width=16, latent=16),
        "sngan": Sngan(width_g=32, width_d=32, n_critic=2, latent=16),
    }
    found = {}
    for name, recipe in recipes.items():
        ends = {}
        for kind, fast, layout in (
            ("reference", False, torch.channels_last),
            ("yardstick", False, torch.contiguous_format),
            ("accelerated", True, torch.channels_last),
        ):
            torch.manual_seed(0)
            active = begin(
                recipe.build(ImageSpec(16, 1)), dataset, seed=0, fast=fast, layout=layout
            )
            with way(fast):
                for step in range(steps):
                    active.train_step(step)
            ends[kind] = buffers(active.nets)
            active.close()
        away, rounding = (
            furthest(ends[kind], ends["reference"]) for kind in ("accelerated", "yardstick")
        )
        allowed = max(4 * rounding, 1e-5)
        found[name] = {
            "accelerated": away,
            "yardstick": rounding,
            "allowed": allowed,
            "passed": away <= allowed,
        }
        print(
            f"{name}: buffers after {steps} steps {away:.1e} off the reference's, by rounding "
            f"{rounding:.1e}, bound {allowed:.1e}"
        )
    return found


def bound(differences: list[float]) -> float:
    """Upper one-sided 95 % confidence bound of the mean of paired differences."""
    n = len(differences)
    t = QUANTILE.get(n, 1.75 if n > 10 else 6.314)
    return statistics.mean(differences) + t * statistics.stdev(differences) / math.sqrt(n)


def judge(reference: list[float], fast: list[float], margin: float, worse: int) -> dict[str, Any]:
    """Whether `fast` is worse than `reference` by less than `margin` with 95 % confidence. worse:
    +1 where larger is worse."""
    upper = bound([worse * (b - a) for a, b in zip(reference, fast)])
    return {
        "reference": reference,
        "accelerated": fast,
        "margin": margin,
        "upper_bound": upper,
        "passed": upper <= margin,
    }


def one_run(seed: int, fast: bool, steps: int, width: int, samples: int) -> dict[str, Any]:
    """FD-small and entropy (nats) of the classes after one `dcgan` run on Fashion-MNIST."""
    from fastgan.metrics.evaluate import evaluate

    dataset = fastgan.data.open("fashion-mnist")
    torch.manual_seed(seed)
    active = begin(Dcgan(base_width=width).build(ImageSpec(28, 1)), dataset, seed=seed, fast=fast)
    with way(fast):
        for step in range(steps):
            active.train_step(step)
        images = generate(
            active.stage.objective,
            active.sampling_nets(averaged=GPU),
            samples,
            seed=seed,
            device=DEVICE,
            precision=active.precision,
            datasets=active.datasets,
        )
    active.close()
    report = evaluate(images.float().cpu(), dataset, samples)
    assert report.balance is not None
    fd, entropy = report.samples.fd, report.balance.entropy
    return {
        "seed": seed,
        "fast": fast,
        "fd": fd,
        "entropy": entropy,
        "shown": f"FD-small {fd:.3f}, entropy {entropy:.3f}",
    }


def verdicts(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Class balance and FD-small of runs, in pairs of one seed, that differ in nothing but
    acceleration."""
    fast, reference = ({r["seed"]: r for r in runs if r["fast"] is fast} for fast in (True, False))
    seeds = sorted(fast.keys() & reference.keys())
    score = lambda name, of: [of[seed][name] for seed in seeds]
    margin = MARGINS["fd"] * statistics.mean(score("fd", reference))
    found = {
        "fd": judge(score("fd", reference), score("fd", fast), margin, 1),
        "entropy": judge(
            score("entropy", reference), score("entropy", fast), MARGINS["entropy"], -1
        ),
    }
    for name, verdict in found.items():
        word = "passed" if verdict["passed"] else "FAILED"
        print(
            f"{name}: worse by at most {verdict['upper_bound']:.4f} (95 %), margin "
            f"{verdict['margin']:.4f}: {word}"
        )
    return found


def compare_runs(seeds: int, steps: int, width: int, samples: int) -> dict[str, Any]:
    """Every run of the comparison, one after the other, and the verdicts."""
    runs = []
    for seed in range(seeds):
        for fast in (False, True):
            runs.append(one_run(seed, fast, steps, width, samples))
            print(
                f"seed {seed}, {'accelerated' if fast else 'reference'}: {runs[-1]['shown']}",
                flush=True,
            )
    return verdicts(runs)


def rows(toy: bool) -> Iterable[StageRow]:
    """The comparison as a stage: the buffers, then each run; a row needs at most two minutes."""
    yield StageRow("buffers", lambda: {"buffers": compare_buffers(5 if toy else 50)}, 60)
    size = (20, 8, 200) if toy else FULL
    for seed in range(2 if toy else 5):
        for fast in (False, True):
            name = f"seed {seed}, {'accelerated' if fast else 'reference'}"
            yield StageRow(name, lambda a=(seed, fast, *size): one_run(*a), 120)


def summary(store: Store) -> None:
    """The verdicts on what is known."""
    known = store.stage("same")
    runs = [r for r in known if "fd" in r]
    pairs = {r["seed"] for r in runs if r["fast"]} & {r["seed"] for r in runs if not r["fast"]}
    if len(pairs) < 2:
        print(
            f"\nsame training: {len(pairs)} pairs of runs known, two are the least that can be "
            "judged"
        )
        return
    print(f"\nsame training, {len(pairs)} seeds:")
    verdicts(runs)


def main() -> int:
    p = argparse.ArgumentParser(
        "python -m fastgan.bench.stages.same_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--seeds", type=int, default=5, choices=sorted(QUANTILE))
    p.add_argument("--steps", type=int, default=FULL[0] if GPU else 600)
    p.add_argument("--width", type=int, default=FULL[1] if GPU else 16, help="base width of dcgan")
    p.add_argument("--samples", type=int, default=FULL[2] if GPU else 1000)
    p.add_argument("--json")
    a = p.parse_args()
    form = "full form on a GPU" if GPU else "short form on a CPU"
    print(
        f"{form}: {a.seeds} seeds, {a.steps} steps, base width {a.width}; margins {MARGINS}",
        flush=True,
    )
    result = {"machine": machine.describe(DEVICE), "form": form}
    result |= {"seeds": a.seeds, "steps": a.steps, "width": a.width}
    result["margins"] = MARGINS
    result["buffers"] = compare_buffers(50)
    result["runs"] = compare_runs(a.seeds, a.steps, a.width, a.samples)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(result, f, indent=1)
    verdicts = [*result["buffers"].values(), *result["runs"].values()]
    return 0 if all(v["passed"] for v in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
