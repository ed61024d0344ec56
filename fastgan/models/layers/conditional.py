"""Maps whose gain and bias follow from what a sample is told: a class, a part of the latent."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from fastgan.ops.norm import sync
from fastgan.ops.norm.functional import batch_norm
from fastgan.ops.norm.modules import current_groups


class ConditionedBatchNorm2d(nn.BatchNorm2d):
    """forward(x (B, C, H, W), condition (B, conditions)): batch norm with gain 1 + A condition and
    bias B condition (Brock et al. 2019, arXiv 1809.11096, appendix B); a one-hot condition makes it
    that of de Vries et al. 2017.
    """

    synchronised: ClassVar[type[ConditionedBatchNorm2d]]

    def __init__(self, num_features: int, conditions: int) -> None:
        super().__init__(num_features, affine=False)
        self.conditions = conditions
        self.gain = nn.Linear(conditions, num_features, bias=False)
        self.shift = nn.Linear(conditions, num_features, bias=False)
        nn.init.normal_(self.gain.weight, std=0.02)
        nn.init.normal_(self.shift.weight, std=0.02)

    def forward(self, input: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]  # a norm, but told a condition
        return batch_norm(
            input,
            self.running_mean,
            self.running_var,
            1 + self.gain(condition),
            self.shift(condition),
            self.training,
            self.momentum,
            self.eps,
            groups=current_groups() if self.training else 1,
            num_batches_tracked=self.num_batches_tracked if self.training else None,
        )


class SyncConditionedBatchNorm2d(ConditionedBatchNorm2d):
    """The same, its training statistics those of all processes."""

    def forward(self, input: Tensor, condition: Tensor) -> Tensor:  # type: ignore[override]  # as its base does
        if not (self.training and sync.several()):
            return super().forward(input, condition)
        gain, shift = 1 + self.gain(condition), self.shift(condition)
        y = sync.normalised(self, input)
        return (y * gain[:, :, None, None] + shift[:, :, None, None]).to(input.dtype)


ConditionedBatchNorm2d.synchronised = SyncConditionedBatchNorm2d


class ClassAffine(nn.Module):
    """forward(x (B, C, H, W), label (B,) int64): x * (1 + gain) + shift, both of the class, which
    are N(0, 0.3^2) at the start (FiLM, Perez et al. 2018, arXiv 1709.07871; after an instance norm
    it is Dumoulin et al. 2017, arXiv 1610.07629, eq. 5).
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        self.gain, self.shift = (nn.Embedding(classes, channels) for _ in "ab")
        for table in (self.gain, self.shift):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        gain, shift = (t(label)[:, :, None, None].to(x.dtype) for t in (self.gain, self.shift))
        return x * (1 + gain) + shift
