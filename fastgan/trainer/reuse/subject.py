"""What a kind's own measures are taken of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastgan import files
from fastgan.data import Dataset
from fastgan.runs.run_folder import read_facts
from fastgan.trainer.reuse.load import load, sample
from fastgan.trainer.reuse.restoring import open_checkpoint


@dataclass(frozen=True)
class Subject:
    """A checkpoint of a run, the images it is compared with, and the seed of what is drawn.

    step, trust: as for `fastgan.load`.
    """

    run: str | Path
    reals: Dataset
    seed: int = 0
    step: int | str | None = None
    trust: bool = False

    def sample(self, n: int, **given: Any) -> Tensor:
        """n images (n, C, H, W) in [0, 1]; given: labels or text, as for `fastgan.sample`."""
        return sample(self.run, n, seed=self.seed, step=self.step, trust=self.trust, **given)

    def load(self, network: str = "G") -> nn.Module:
        """A network of it, averaged where it has an average, in eval mode."""
        return load(self.run, network=network, step=self.step, trust=self.trust)

    @property
    def labelled(self) -> bool:
        """Whether the images have labels, of no other classes than the run was told."""
        known = read_facts(files.path_of(self.run))["classes"]
        mine = list(self.reals.classes or ())
        return "label" in self.reals.fields and bool(mine) and known in (None, mine)

    def learned_from(self, stream: str) -> str:
        """The fingerprint of what the run was trained on, by the name of the stream."""
        state = open_checkpoint(self.run, self.step)[2]
        return state["identity"]["data"][stream]["fingerprint"]
