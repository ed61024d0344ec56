"""InfoGAN's discriminator (Chen et al. 2016, appendix C) on DCGAN's body; its generator is DCGAN's,
which takes noise and codes side by side."""

from __future__ import annotations

from torch import Tensor, nn

from fastgan.models.dcgan import Discriminator, init_weights, plan


class CodeDiscriminator(nn.Module):
    """(B, channels, size, size) -> logits (B, 1), class logits (B, classes), means and log standard
    deviations (B, codes) of the codes.

    All share the convolutions; the codes have a hidden layer of `hidden` units of their own.
    """

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        base_width: int = 64,
        classes: int = 10,
        codes: int = 2,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.base_width = size, channels, base_width
        self.classes, self.codes, self.hidden = classes, codes, hidden
        side, widths = plan(size, base_width)
        inner = widths[0] * side * side
        self.body = nn.Sequential(
            *list(Discriminator(size, channels, base_width))[:-1], nn.Flatten()
        )
        self.logit = nn.Linear(inner, 1)
        self.found = nn.Sequential(
            nn.Linear(inner, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, classes + 2 * codes),
        )
        self.apply(init_weights)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h = self.body(images)
        kinds, mean, log_std = self.found(h).split([self.classes, self.codes, self.codes], 1)
        return self.logit(h), kinds, mean, log_std.clamp(-5.0, 5.0)
