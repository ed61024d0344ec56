"""Rows of a table: a conditional generator against a critic of packs of rows (Xu et al. 2019, arXiv
1907.00503; packs: Lin et al. 2018, arXiv 1712.04086; a classifier beside: Zhao et al. 2021,
"CTAB-GAN", arXiv 2102.08369)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastgan import arguments
from fastgan.errors import FastganError
from fastgan.objectives.base import Noise, Objective, Phase
from fastgan.objectives.losses import LOSSES
from fastgan.objectives.medium import IMAGES, Medium
from fastgan.objectives.regularizers import gradient_penalty

if TYPE_CHECKING:
    from fastgan.objectives.base import Step


def gumbel_softmax(logits: Tensor, u: Tensor, groups: Sequence[int], tau: float) -> Tensor:
    """softmax((logits + g) / tau) of each group of a row (B, sum of groups), g = -log(-log u) (Jang
    et al. 2017, eq. 2); u: uniform in [0, 1)."""
    g = -torch.log(-torch.log(u.clamp_min(1e-7)))
    parts = ((logits.float() + g) / tau).split(list(groups), 1)
    return torch.cat([part.softmax(1) for part in parts], 1)


def condition_loss(logits: Tensor, slots: Tensor, groups: Sequence[int]) -> Tensor:
    """The cross-entropy of the value that each row was told, among those of its column; mean over
    rows (Xu et al. 2019, section 4.3).

    logits (B, sum of groups); slots int64 (B,), where a value stands among all of all groups.
    """
    parts = [part.log_softmax(1) for part in logits.float().split(list(groups), 1)]
    return -torch.cat(parts, 1).gather(1, slots[:, None]).mean()


def class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """-sum of classes * log softmax(logits), mean over rows: both (B, classes), the latter shares
    that add up to 1 (Zhao et al. 2021, section 3.2)."""
    return -(classes * logits.float().log_softmax(1)).sum(1).mean()


@dataclass
class ConditionalRows(Objective):
    """The Wasserstein loss with a gradient penalty on packs of rows, the condition's loss, and with
    `classifier` that of a network "C" (B, width) -> (B, classes), which learns the class of real
    rows whose own group is blanked, and must find that of a fake in the rest of it.

    The batch holds "image", rows (B, width): one-hot groups, then numbers in [-1, 1]; and, where
    `told` is not 0, "condition", the slot int64 (B,) of one value of the row. "G" maps (z,
    condition one-hot) to (B, width) before softmax and tanh, "D" maps (B / pack, pack * (width +
    slots)) to (B / pack, 1).

    Args:
        groups: The width of each one-hot group.
        numbers: How many numbers follow them.
        told: How many of the first groups a condition may be of.
        chances: For each of these, how often each value is in the data: conditions of samples.
        label: The group of the classes that samples can be asked of; -1: none.
        classifier: The weight of the class that C sees in a fake; 0: there is no C.
        latent: The numbers of one latent vector.
        pack: Rows that the critic sees together. Rows that fill no pack are joined by the first.
        gp: The weight of the gradient penalty.
        tau: The temperature of the softmax.
        n_critic: Updates of D for one of G.
        medium: How rows are drawn and written.
    """

    groups: tuple[int, ...] = ()
    numbers: int = 0
    told: int = 0
    chances: tuple[tuple[float, ...], ...] = ()
    label: int = -1
    classifier: float = field(default=0.0, metadata={"later": True})
    latent: int = 128
    pack: int = 10
    gp: float = 10.0
    tau: float = 0.2
    n_critic: int = 1
    medium: Medium = IMAGES
    noise: Mapping[str, Noise] = field(init=False, repr=False)
    loss = "wasserstein"
    turns = False

    def __post_init__(self) -> None:
        for name in ("pack", "n_critic", "latent"):
            arguments.whole(getattr(self, name), name, 1)
        arguments.number(self.classifier, "classifier")
        if self.classifier and self.label < 0:
            raise FastganError("classifier needs a label: the group of the classes")
        self.noise = {"z": Noise((self.latent,))}
        if self.groups:
            self.noise["gumbel"] = Noise((sum(self.groups),), "uniform", 0.0, 1.0)
        if self.told:
            self.noise["choice"] = Noise((2,), "uniform", 0.0, 1.0)

    @property
    def slots(self) -> int:
        """Values that a condition may be."""
        return sum(self.groups[: self.told])

    def phases(self) -> Sequence[Phase]:
        own = (Phase("C", ("C",), self.c_loss),) if self.classifier else ()
        return (
            *own,
            Phase("D", ("D",), self.d_loss, repeat=self.n_critic),
            Phase("G", ("G",), self.g_loss, fresh=self.n_critic > 1),
        )

    def generate(self, step: Step) -> Tensor:
        """(B, width + slots): rows, and the logits of the values that conditions may be."""
        return self._made(step, step.batch.get("condition"))

    def sample(self, step: Step) -> Tensor:
        """Rows alone, of conditions as often as the data have them, or of the class asked for."""
        made = self._made(step, self.natural(step) if self.told else None)
        return made[:, : sum(self.groups) + self.numbers]

    def natural(self, step: Step) -> Tensor:
        """Slots int64 (B,): a column by even chances and a value of it by its own, or the class in
        the batch."""
        choice = step.noise.choice
        if "label" in step.batch and self.label >= 0:
            return step.batch["label"] + sum(self.groups[: self.label])
        wide = max(map(len, self.chances))
        reached = torch.ones(len(self.chances), wide, device=choice.device)
        for row, chances in zip(reached, self.chances):
            row[: len(chances)] = torch.tensor(chances, dtype=torch.float64).cumsum(0)
            row[len(chances) - 1] = 1.0
        starts = [sum(self.groups[:i]) for i in range(self.told)]
        column = (choice[:, 0] * self.told).long().clamp_max(self.told - 1)
        value = (choice[:, 1:] >= reached[column]).sum(1)
        return torch.tensor(starts, device=choice.device)[column] + value

    def _told(self, slots: Tensor | None, like: Tensor) -> Tensor:
        """Conditions one-hot (B, slots)."""
        if slots is None:
            return like.new_zeros(len(like), self.slots, dtype=torch.float32)
        return (slots[:, None] == torch.arange(self.slots, device=slots.device)).float()

    def _made(self, step: Step, slots: Tensor | None) -> Tensor:
        z = step.noise.z
        raw = step.nets.G(z, self._told(slots, z)).float()
        logits, numbers = raw.split([sum(self.groups), self.numbers], 1)
        if self.groups:
            logits = gumbel_softmax(logits, step.noise.gumbel, self.groups, self.tau)
        return torch.cat([logits, numbers.tanh(), raw[:, : self.slots]], 1)

    def packed(self, step: Step, rows: Tensor) -> Tensor:
        """(packs, pack * (width + slots)) of rows (B, width) with their conditions."""
        rows = torch.cat([rows, self._told(step.batch.get("condition"), rows)], 1)
        count = -(-len(rows) // self.pack) * self.pack
        if count != len(rows):
            rows = rows[torch.arange(count, device=rows.device) % len(rows)]
        return rows.reshape(count // self.pack, -1)

    def fakes(self, step: Step) -> Tensor:
        return step.fake[:, : sum(self.groups) + self.numbers]

    def classes_apart(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(rows (B, width) whose classes are blanked, their classes (B, classes))."""
        first = sum(self.groups[: self.label])
        last = first + self.groups[self.label]
        blank = torch.zeros_like(rows[:, first:last])
        return torch.cat([rows[:, :first], blank, rows[:, last:]], 1), rows[:, first:last]

    def c_loss(self, step: Step) -> Mapping[str, Tensor]:
        rest, classes = self.classes_apart(step.batch["image"].float())
        return {"class": class_loss(step.nets.C(rest), classes)}

    def d_loss(self, step: Step) -> Mapping[str, Tensor]:
        real = self.packed(step, step.batch["image"])
        fake = self.packed(step, self.fakes(step))
        terms = {"adv": LOSSES[self.loss].d(*step.pair("D", real, fake), step)}
        if self.gp:
            epsilon = step.rand("gradient-penalty", (1,))[: len(real)]
            terms["gp"] = self.gp * gradient_penalty(step.nets.D, real, fake, epsilon)
        return terms

    def g_loss(self, step: Step) -> Mapping[str, Tensor]:
        fake = self.packed(step, self.fakes(step))
        terms = {"adv": LOSSES[self.loss].g(None, step.nets.D(fake))}
        if self.told:
            logits = step.fake[:, sum(self.groups) + self.numbers :]
            told = condition_loss(logits, step.batch["condition"], self.groups[: self.told])
            terms["condition"] = told
        if self.classifier:
            rest, classes = self.classes_apart(self.fakes(step))
            terms["class"] = self.classifier * class_loss(step.nets.C(rest), classes)
        return terms

    def check(self, nets: Mapping[str, Any]) -> None:
        wanted = ("G", "D", "C") if self.classifier else ("G", "D")
        if missing := [name for name in wanted if name not in nets]:
            raise FastganError(f"the objective ConditionalRows needs a network {missing[0]!r}")

    def check_images(self, fake: Tensor, step: Step) -> None:
        wide = sum(self.groups) + self.numbers
        if step.batch["image"].shape[1:] != (wide,):
            raise FastganError(
                f"rows of the data are {tuple(step.batch['image'].shape[1:])}, but the objective's "
                f"groups and numbers make {wide}"
            )
