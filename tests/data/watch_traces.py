"""Makes watch_traces.json: what `Watch` sees of small real trainings, healthy ones and ones that were made to go wrong.

    python tests/data/watch_traces.py            # all, about five minutes on one core
    python tests/data/watch_traces.py healthy    # one; the others in the file stay

A plain PyTorch DCGAN on the bundled Fashion-MNIST at 32x32, one thread, nothing of the engine. A row each 25 steps: step, loss/D,
loss/G, D/logit_real, D/logit_fake, D/acc_real, D/acc_fake. Each 100 steps 24 samples and 12 samples of fixed latents, pooled to
8x8 bytes (zlib, base64).
"""

import base64
import json
import sys
import zlib
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import fastgan.data

FILE = Path(__file__).with_name("watch_traces.json")
PLAIN = {
    "steps": 1200,
    "seed": 0,
    "loss": "non-saturating",
    "opt": "adam",
    "lr_g": 2e-4,
    "lr_d": 2e-4,
    "turn": 0,
    "times_g": 1,
    "times_d": 1,
}
RUNS = {
    "healthy": {},
    "healthy, other seed": {"seed": 1, "steps": 800},
    "healthy, hinge": {"loss": "hinge", "steps": 800},
    "healthy, two time scales": {"lr_g": 1e-4, "lr_d": 4e-4, "steps": 800},
    "D's learning rate cut, G's raised at 300": {"turn": 300, "times_g": 10, "times_d": 1e-3, "steps": 1000},
    "G's learning rate 50 times": {"lr_g": 1e-2, "steps": 800},
    "D with SGD at 1.0": {"opt": "sgd", "lr_d": 1.0, "steps": 400},
    "both with momentum SGD at 0.05": {"opt": "momentum", "lr_d": 0.05, "lr_g": 0.05, "steps": 800},
}


def networks(width: int = 16) -> tuple[nn.Module, nn.Module]:
    def up(i: int, o: int, *where: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(i, o, 4, *where, bias=False), nn.BatchNorm2d(o), nn.ReLU()]

    def down(i: int, o: int) -> list[nn.Module]:
        return [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]

    last = [nn.ConvTranspose2d(width, 1, 4, 2, 1), nn.Tanh()]
    G = nn.Sequential(*up(100, 4 * width, 1, 0), *up(4 * width, 2 * width, 2, 1), *up(2 * width, width, 2, 1), *last)
    first = [nn.Conv2d(1, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    D = nn.Sequential(*first, *down(width, 2 * width), *down(2 * width, 4 * width), nn.Conv2d(4 * width, 1, 4))
    for module in [*G.modules(), *D.modules()]:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.02)
    return G, D


def optimizer(net: nn.Module, kind: str, rate: float) -> torch.optim.Optimizer:
    if kind == "adam":
        return torch.optim.Adam(net.parameters(), rate, (0.5, 0.999))
    return torch.optim.SGD(net.parameters(), rate, momentum=0.9 if kind == "momentum" else 0.0)


def pack(images: torch.Tensor) -> str:
    small = F.adaptive_avg_pool2d(images, 8).add(1).mul(127.5).round().clamp(0, 255).byte()
    return base64.b64encode(zlib.compress(small.numpy().tobytes(), 9)).decode()


def train(o: dict) -> dict:
    torch.manual_seed(o["seed"])
    data = torch.from_numpy(fastgan.data.open().array("image").copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    data = F.pad(data, (2, 2, 2, 2), value=-1)
    G, D = networks()
    opt_g, opt_d = optimizer(G, "adam" if o["opt"] == "sgd" else o["opt"], o["lr_g"]), optimizer(D, o["opt"], o["lr_d"])
    fixed, reals = torch.randn(12, 100, 1, 1), pack(data[torch.randint(len(data), (24,))])
    rows, looks, seen = [], [], []
    for step in range(1, o["steps"] + 1):
        if step == o["turn"]:
            opt_g.param_groups[0]["lr"] *= o["times_g"]
            opt_d.param_groups[0]["lr"] *= o["times_d"]
        fake = G(torch.randn(32, 100, 1, 1))
        on_real, on_fake = D(data[torch.randint(len(data), (32,))]), D(fake.detach())
        if o["loss"] == "hinge":
            loss_d = F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
        else:
            loss_d = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        judged = D(fake)
        loss_g = -judged.mean() if o["loss"] == "hinge" else F.softplus(-judged).mean()
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        hits = (on_real > 0).float().mean(), (on_fake < 0).float().mean()
        seen.append([v.item() for v in (loss_d, loss_g, on_real.mean(), on_fake.mean(), *hits)])
        if step % 25 == 0:
            rows.append([step, *(float(f"{sum(column) / len(column):.4g}") for column in zip(*seen))])
            seen = []
        if step % 100 == 0:
            with torch.no_grad():
                G.eval()
                looks.append([step, pack(G(torch.randn(24, 100, 1, 1))), pack(G(fixed))])
                G.train()
    return {"settings": o, "reals": reals, "rows": rows, "looks": looks}


if __name__ == "__main__":
    torch.set_num_threads(1)
    traces = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in sys.argv[1:] or RUNS:
        traces[name] = train({**PLAIN, **RUNS[name]})
        FILE.write_text(json.dumps(traces, separators=(",", ":")).replace('],["', '],\n["').replace('"},"', '"},\n"'))
        print(name, traces[name]["rows"][-1], flush=True)
