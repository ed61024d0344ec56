"""Spectral norms as people write their own, in the styles of public GANs: what accelerate tells by
a probe, and what it must leave.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unit(v: Tensor, eps: float = 1e-12) -> Tensor:
    return v / (v.norm() + eps)


class BarWrapper(nn.Module):
    """A wrapper that moves the weight to `weight_bar` and keeps u and v beside it as parameters
    without gradients; iterates in eval too."""

    def __init__(self, module: nn.Module, name: str = "weight", power_iterations: int = 1) -> None:
        super().__init__()
        self.module, self.name, self.power_iterations = module, name, power_iterations
        w = getattr(module, name)
        rows = w.shape[0]
        columns = w.view(rows, -1).shape[1]
        del module._parameters[name]
        for suffix, size in (("u", rows), ("v", columns)):
            start = nn.Parameter(unit(torch.randn(size)), requires_grad=False)
            module.register_parameter(f"{name}_{suffix}", start)
        module.register_parameter(f"{name}_bar", nn.Parameter(w.data))

    def _update(self) -> None:
        u, v, w = (getattr(self.module, f"{self.name}_{s}") for s in ("u", "v", "bar"))
        rows = w.data.shape[0]
        for _ in range(self.power_iterations):
            v.data = unit(torch.mv(torch.t(w.view(rows, -1).data), u.data))
            u.data = unit(torch.mv(w.view(rows, -1).data, v.data))
        sigma = u.dot(w.view(rows, -1).mv(v))
        setattr(self.module, self.name, w / sigma.expand_as(w))

    def forward(self, *args: Tensor) -> Tensor:
        self._update()
        return self.module.forward(*args)


class BufferWrapper(nn.Module):
    """A wrapper with buffers of its own, u before v, which rests in eval."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.weight = nn.Parameter(layer.weight.data)
        del layer._parameters["weight"]
        flat = self.weight.flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(flat.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(flat.shape[1]), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        if self.training:
            with torch.no_grad():
                self.u.copy_(F.normalize(matrix @ self.v, dim=0))
                self.v.copy_(F.normalize(matrix.t() @ self.u, dim=0))
        sigma = self.u.clone() @ (matrix @ self.v.clone())
        self.layer.weight = self.weight / sigma
        return self.layer(x)


class SNConv2d(nn.Conv2d):
    """A convolution with a row vector u alone, which finds v anew and stores u in training."""

    def __init__(self, *args, iterations: int = 1, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.iterations = iterations
        self.register_buffer("u", unit(torch.randn(1, self.out_channels)))

    def divided(self) -> Tensor:
        matrix = self.weight.reshape(self.weight.shape[0], -1)
        u = self.u
        with torch.no_grad():
            for _ in range(self.iterations):
                v = F.normalize(u @ matrix, eps=1e-12)
                u = F.normalize(v @ matrix.t(), eps=1e-12)
            if self.training:
                self.u[:] = u
        sigma = ((v @ matrix.t()) @ u.t()).squeeze()
        return self.weight / sigma

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(
            x, self.divided(), self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class SNLinear(nn.Linear):
    """The same for a linear layer, two iterations, a method that makes the weight."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("weight_u", F.normalize(torch.randn(self.out_features), dim=0))

    @property
    def w_bar(self) -> Tensor:
        with torch.no_grad():
            u = self.weight_u.clone()
            for _ in range(2):
                v = F.normalize(self.weight.t() @ u, dim=0)
                u = F.normalize(self.weight @ v, dim=0)
            if self.training:
                self.weight_u.copy_(u)
        return self.weight / torch.dot(u, self.weight @ v)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.w_bar, self.bias)


class HomeMadeCritic(nn.Module):
    """(B, 3, 8, 8) -> (B, 1): every norm above, and PyTorch's beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = BarWrapper(nn.Conv2d(3, 4, 3, padding=1))
        self.down = SNConv2d(4, 6, 4, 2, 1, iterations=1)
        self.more = nn.Sequential(
            BufferWrapper(nn.Conv2d(6, 6, 3, padding=1)),
            nn.LeakyReLU(0.2),
            BarWrapper(nn.ConvTranspose2d(6, 4, 4, 2, 1), power_iterations=2),
        )
        self.theirs = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3))
        self.out = SNLinear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.down(F.leaky_relu(self.first(x), 0.1)), 0.1)
        return self.out(torch.tanh(self.theirs(self.more(h))).mean((2, 3)))


class Constant(SNConv2d):
    """sigma from the weight's data: its gradient does not go through sigma."""

    def divided(self) -> Tensor:
        matrix = self.weight.data.flatten(1)
        v = unit(self.u @ matrix)
        u = unit(v @ matrix.t())
        self.u.copy_(u)
        return self.weight / (v @ matrix.t() @ u.t()).squeeze()


class Clipped(SNConv2d):
    """Divides only where sigma is above 1."""

    def divided(self) -> Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = unit(self.u @ matrix)
            u = unit(v @ matrix.t())
            self.u.copy_(u)
        return self.weight / (1 + F.relu((v @ matrix.t() @ u.t()).squeeze() - 1))


class Gained(SNConv2d):
    """A learned gain on the output."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gain


class Counting(SNConv2d):
    """Counts its forwards."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Recording(SNConv2d):
    """Keeps the last sigma in a buffer."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("sv0", torch.ones(1))

    def divided(self) -> Tensor:
        made = super().divided()
        if self.training:
            with torch.no_grad():
                self.sv0[:] = (self.weight.flatten()[0] / made.flatten()[0]).detach()
        return made


class Raising(SNConv2d):
    def divided(self) -> Tensor:
        if self.weight.dtype != torch.float32:
            raise TypeError("float32 only")
        return super().divided()


class Resting(SNConv2d):
    """Iterates only where gradients are wanted."""

    def divided(self) -> Tensor:
        before = self.u.clone()
        made = super().divided()
        if not torch.is_grad_enabled():
            self.u.copy_(before)
        return made


class OwnHook:
    """A pre-hook of one's own in PyTorch's older form."""

    def __call__(self, module: nn.Module, inputs: object) -> None:
        w = module.weight_orig
        matrix = w.flatten(1)
        with torch.no_grad():
            v = unit(matrix.t() @ module.weight_u)
            u = unit(matrix @ v)
        module.weight = w / (u @ matrix @ v)
        module.weight_u = u

    @staticmethod
    def apply(layer: nn.Module) -> nn.Module:
        w = layer._parameters.pop("weight")
        layer.register_parameter("weight_orig", nn.Parameter(w.data))
        layer.weight = w.data
        layer.register_buffer("weight_u", unit(torch.randn(w.shape[0])))
        layer.register_forward_pre_hook(OwnHook())
        return layer


UNSURE = {
    "sigma without gradient": (lambda: Constant(3, 4, 3), "not PyTorch's power iteration"),
    "clipped": (lambda: Clipped(3, 4, 3), "where sigma is below 1"),
    "gain": (lambda: Gained(3, 4, 3), "does more than its layer"),
    "counter": (lambda: Counting(3, 4, 3), "changes attributes"),
    "sigma kept": (lambda: Recording(3, 4, 3), "not PyTorch's power iteration"),
    "raises": (lambda: Raising(3, 4, 3), "probe of it failed (TypeError)"),
    "rests without gradients": (lambda: Resting(3, 4, 3), "something else without gradients"),
    "hook": (lambda: OwnHook.apply(nn.Conv2d(3, 4, 3)), "hook OwnHook"),
}
"""What must be left, and words of its reason."""
