"""Ten styles in which public GANs write norm -> activation outside an nn.Sequential, and the table
of what accelerate joins.

`python tests/support/ten_styles.py --write docs/ten-styles.md` makes the table.
"""

from __future__ import annotations

import argparse
import pathlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from fastgan.acceleration import accelerate, report

C = 4


def conv(a: int, b: int, k: int = 3, sn: bool = False) -> nn.Module:
    layer = nn.Conv2d(a, b, k, padding=k // 2)
    return parametrizations.spectral_norm(layer) if sn else layer


class PreActivation(nn.Module):
    """ResNet blocks that open with norm -> activation -> upsample -> convolution."""

    def __init__(self, sn: bool) -> None:
        super().__init__()
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(C), nn.BatchNorm2d(C), nn.BatchNorm2d(C)
        self.conv1, self.conv2, self.skip, self.out = (
            conv(C, C, sn=sn),
            conv(C, C, sn=sn),
            conv(C, C, 1, sn),
            conv(C, 3, sn=sn),
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.bn1(x))
        h = self.conv1(F.interpolate(h, scale_factor=2))
        h = self.conv2(self.activation(self.bn2(h)))
        h = h + self.skip(F.interpolate(x, scale_factor=2))
        return torch.tanh(self.out(F.relu(self.bn3(h))))


class ConditionalNorm(nn.Module):
    """BigGAN's: statistics by a function, gain and bias from the class embedding."""

    def __init__(self, cond: int) -> None:
        super().__init__()
        self.gain, self.bias = nn.Linear(cond, C, bias=False), nn.Linear(cond, C, bias=False)
        self.register_buffer("stored_mean", torch.zeros(C))
        self.register_buffer("stored_var", torch.ones(C))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gain = (1 + self.gain(y)).view(y.size(0), -1, 1, 1)
        bias = self.bias(y).view(y.size(0), -1, 1, 1)
        out = F.batch_norm(
            x, self.stored_mean, self.stored_var, None, None, self.training, 0.1, 1e-5
        )
        return out * gain + bias


class EmbeddedNorm(nn.Module):
    """The other conditional norm: an embedding of gamma and beta over a norm module."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.bn, self.embed = nn.BatchNorm2d(C, affine=False), nn.Embedding(classes, 2 * C)
        self.embed.weight.data[:, :C].fill_(1.0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gamma, beta = self.embed(y).chunk(2, 1)
        return gamma.view(-1, C, 1, 1) * self.bn(x) + beta.view(-1, C, 1, 1)


class BigGANBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(3, 5)
        self.bn1, self.bn2, self.bn3 = ConditionalNorm(5), ConditionalNorm(5), EmbeddedNorm(3)
        self.conv1, self.conv2, self.out = (
            conv(C, C, sn=True),
            conv(C, C, sn=True),
            conv(C, 3, sn=True),
        )
        self.activation = F.relu

    def forward(self, x: Tensor) -> Tensor:
        label = torch.arange(len(x), device=x.device) % 3
        y = self.shared(label)
        h = self.conv1(F.interpolate(self.activation(self.bn1(x, y)), scale_factor=2))
        h = self.conv2(self.activation(self.bn2(h, y)))
        return torch.tanh(self.out(self.activation(self.bn3(h, label))))


class Unet(nn.Module):
    """Skips that hold the tensor before the activation, which later writes over it."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.down3 = (nn.Conv2d(a, C, 4, 2, 1) for a in (C, C, C))
        self.up1, self.up2, self.up3 = (
            nn.ConvTranspose2d(a, C, 4, 2, 1) for a in (C, 2 * C, 2 * C)
        )
        self.n2, self.n3, self.u1, self.u2 = (nn.BatchNorm2d(C) for _ in range(4))
        self.n4 = nn.InstanceNorm2d(C, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        a = F.leaky_relu(self.down1(x), 0.2)
        b = F.leaky_relu(self.n2(self.down2(a)), 0.2, inplace=True)
        c = F.leaky_relu(self.n3(self.down3(b)), 0.2)
        h = F.relu(self.u1(self.up1(c)))
        h = F.relu(self.u2(self.up2(torch.cat([h, b], 1))), True)
        return F.silu(self.n4(self.up3(torch.cat([h, a], 1))))


class AdaIN(nn.Module):
    def __init__(self, style: int) -> None:
        super().__init__()
        self.norm, self.fc = nn.InstanceNorm2d(C, affine=False), nn.Linear(style, 2 * C)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        gamma, beta = torch.chunk(self.fc(s).view(s.size(0), 2 * C, 1, 1), 2, dim=1)
        return (1 + gamma) * self.norm(x) + beta


class StarGAN(nn.Module):
    """StarGAN v2's decoder block, its activation one object for all."""

    def __init__(self) -> None:
        super().__init__()
        self.actv = nn.LeakyReLU(0.2)
        self.norm1, self.norm2 = AdaIN(5), AdaIN(5)
        self.conv1, self.conv2 = conv(C, C), conv(C, C)
        self.to_rgb = nn.Sequential(
            nn.InstanceNorm2d(C, affine=True), nn.LeakyReLU(0.2), nn.Conv2d(C, 3, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean((2, 3))
        s = torch.cat([s, s[:, :1]], 1)
        h = F.interpolate(self.actv(self.norm1(x, s)), scale_factor=2, mode="nearest")
        h = self.conv2(self.actv(self.norm2(self.conv1(h), s)))
        return self.to_rgb(h)


class DenseLayer(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.relu1, self.conv1 = (
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            conv(channels, C, 1),
        )
        self.norm2, self.relu2, self.conv2 = nn.BatchNorm2d(C), nn.ReLU(inplace=True), conv(C, 2)

    def forward(self, features: list[Tensor]) -> Tensor:
        h = self.conv1(self.relu1(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu2(self.norm2(h)))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DenseLayer(C), DenseLayer(C + 2)])
        self.norm = nn.BatchNorm2d(C + 4)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return F.avg_pool2d(F.relu(self.norm(torch.cat(features, 1)), inplace=True), 2)


class SharedHead(nn.Module):
    """One head for two resolutions, registered under both, and one norm that serves both inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.bn = nn.LeakyReLU(0.2, True), nn.BatchNorm2d(C)
        head = nn.Sequential(conv(C, C), nn.BatchNorm2d(C), self.act, conv(C, 1))
        self.fine, self.coarse = head, head

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(self.act(self.bn(x)))
        return fine.mean() + self.coarse(self.act(self.bn(F.avg_pool2d(x, 2))))


class Checkpointed(nn.Module):
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn1, self.bn2, self.conv1, self.conv2 = (
                nn.BatchNorm2d(C),
                nn.BatchNorm2d(C),
                conv(C, C),
                conv(C, C),
            )

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([self.Block(), self.Block()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.training else block(x)
        return x


class Branches(nn.Module):
    """Modules of a list, chosen and sized by `if`, with asserts on values that stop torch.fx."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [nn.ModuleDict({"bn": nn.BatchNorm2d(C), "conv": conv(C, C)}) for _ in range(3)]
        )
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        if not torch.isfinite(x).all():
            raise ValueError("not finite")
        for i, block in enumerate(self.blocks):
            h = block["bn"](x) if "bn" in block else x
            if i % 2 == 0:
                h = self.act(h)
            else:
                h = torch.relu(h)
            x = block["conv"](h) + (x if x.shape == h.shape else 0)
        return x


class Functional(nn.Module):
    """No norm module at all: parameters, buffers and F.batch_norm, F.instance_norm."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.ParameterList([nn.Parameter(0.3 * torch.randn(C, C, 3, 3)) for _ in range(3)])
        self.gamma, self.beta = nn.Parameter(torch.ones(3, C)), nn.Parameter(torch.zeros(3, C))
        self.register_buffer("mean", torch.zeros(2, C))
        self.register_buffer("var", torch.ones(2, C))

    def norm(self, x: Tensor, i: int) -> Tensor:
        return F.batch_norm(
            x, self.mean[i], self.var[i], self.gamma[i], self.beta[i], self.training
        )

    def forward(self, x: Tensor) -> Tensor:
        for i in range(2):
            x = F.conv2d(F.leaky_relu(self.norm(x, i), 0.1), self.w[i], padding=1)
        x = F.instance_norm(x, weight=self.gamma[2], bias=self.beta[2])
        return F.conv2d(x.relu(), self.w[2], padding=1)


class Nested(nn.Sequential):
    """Blocks that are containers in a container; one's norm ends it, its activation stands
    outside."""

    def __init__(self) -> None:
        block = lambda: nn.Sequential(conv(C, C), nn.BatchNorm2d(C), nn.ReLU(True))
        super().__init__(
            block(),
            nn.Sequential(block(), conv(C, C)),
            nn.Sequential(conv(C, C), nn.BatchNorm2d(C)),
            nn.Tanh(),
        )


STYLES = {
    "pre-activation ResNet": (lambda: PreActivation(sn=False), 3),
    "pre-activation ResNet, spectral norm": (lambda: PreActivation(sn=True), 3),
    "BigGAN, class-conditional": (BigGANBlock, 3),
    "U-Net with skips": (Unet, 5),
    "StarGAN v2's AdaIN": (StarGAN, 3),
    "DenseNet-like": (DenseNet, 5),
    "weight-shared head": (SharedHead, 2),
    "checkpointed blocks": (Checkpointed, 4),
    "list of blocks with if": (Branches, 3),
    "functions, no norm module": (Functional, 2),
    "nested Sequential": (Nested, 3),
}
"""Each network and its number of places where an activation takes a norm's output, counted by
hand."""


def example(seed: int = 5) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(2, C, 8, 8)


def rows() -> list[tuple[str, int, int, int, str]]:
    """(style, pairs, joined as rewrite is off, joined, why the rest was not) after one forward in
    training."""
    found = []
    for name, (make, pairs) in STYLES.items():
        counts = []
        for rewrite in (False, True):
            torch.manual_seed(1)
            net = accelerate(make(), rewrite=rewrite)
            net(example())
            done = report(net)
            in_containers = sum(
                row.status == "fused" and "Norm2d >" in row.module for row in done.rows
            )
            counts.append(in_containers + done.count("joined"))
        apart = "; ".join(
            f"{row.path}: {row.why}" for row in done.rows if row.why.startswith("runs apart")
        )
        found.append((name, pairs, *counts, apart))
    return found


def table() -> str:
    lines = [
        "| style | norm -> activation | joined, `accelerate(net)` | joined, `rewrite=True` | why "
        "not |"
    ]
    lines += ["|---|---:|---:|---:|---|"]
    found = rows()
    lines += [
        f"| {name} | {pairs} | {plain} | {joined} | {why} |"
        for name, pairs, plain, joined, why in found
    ]
    total = [sum(row[i] for row in found) for i in (1, 2, 3)]
    return "\n".join(
        [
            *lines,
            f"| together | {total[0]} | {total[1]} | {total[2]} ({total[2] / total[0]:.0%}) | |",
        ]
    )


BEGIN, END = "<!-- made by tests/support/ten_styles.py -->", "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--write", type=pathlib.Path, help="a page whose table between the marks is replaced"
    )
    page = parser.parse_args().write
    if page is None:
        print(table())
        return
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
