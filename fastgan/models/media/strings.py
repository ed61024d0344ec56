"""Networks for strings: a recurrent generator that writes symbol after symbol and reads what it has
written (Cho et al. 2014, arXiv 1406.1078), and a critic of whole strings."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def gumbel(u: Tensor) -> Tensor:
    """-log(-log u), of u uniform in [0, 1)."""
    return -torch.log(-torch.log(u.clamp(1e-7, 1 - 1e-7)))


def straight_through(logits: Tensor, g: Tensor, tau: float) -> Tensor:
    """One-hot of the largest of logits + g (B, symbols), with the gradient of softmax((logits + g)
    / tau) (Jang et al. 2017, arXiv 1611.01144, section 2.2). g: `gumbel` numbers; then it is a draw
    from softmax(logits)."""
    soft = ((logits.float() + g) / tau).softmax(1)
    largest = soft.argmax(1, keepdim=True)
    hard = (largest == torch.arange(soft.shape[1], device=soft.device)).to(soft.dtype)
    return hard + (soft - soft.detach())


class Generator(nn.Module):
    """(z (B, latent), u (B, length, symbols) uniform in [0, 1)) -> one-hot symbols (B, length,
    symbols); symbol 0 ends a string, and follows itself. z begins the state, u draws.

    given: symbols one-hot, of that shape; then the logits of each next symbol after those before.
    """

    def __init__(
        self, latent: int, length: int, symbols: int, width: int = 128, tau: float = 1.0
    ) -> None:
        super().__init__()
        self.latent, self.length, self.symbols = latent, length, symbols
        self.width, self.tau = width, tau
        self.first = nn.Linear(latent, width)
        self.cell = nn.GRUCell(symbols, width)
        self.last = nn.Linear(width, symbols)

    def forward(self, z: Tensor, u: Tensor, given: Tensor | None = None) -> Tensor:
        state = self.first(z).tanh()
        count = z.shape[0]  # `len` would fix the batch of an exported program
        written = z.new_zeros(count, self.symbols)
        if given is not None:
            states = []
            for at in range(self.length):
                state = self.cell(written, state)
                states.append(state)
                written = given[:, at]
            return self.last(torch.stack(states, 1))
        end = (torch.arange(self.symbols, device=z.device) == 0).float().expand_as(written)
        going, made, g = z.new_ones(count, 1), [], gumbel(u)
        for at in range(self.length):
            state = self.cell(written, state)
            drawn = straight_through(self.last(state), g[:, at], self.tau)
            written = going * drawn + (1 - going) * end
            going = going * (1 - written[:, :1].detach())  # else its gradient drowns all
            made.append(written)
        return torch.stack(made, 1)


class Critic(nn.Module):
    """Symbols one-hot, (B, length, symbols) -> (B, 1): a perceptron of three hidden layers."""

    def __init__(self, length: int, symbols: int, width: int = 256) -> None:
        super().__init__()
        self.length, self.symbols, self.width = length, symbols, width
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(length * symbols, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )

    def forward(self, strings: Tensor) -> Tensor:
        return self.layers(strings)
