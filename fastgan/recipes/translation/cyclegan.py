"""CycleGAN: two kinds of images, no pairs (Zhu et al. 2017, arXiv 1703.10593)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from fastgan.ops.loss_table import LOSSES
from fastgan.recipes.config import ImageSpec, RecipeParts, option, run_option
from fastgan.recipes.translation.base import FromImage

if TYPE_CHECKING:
    from fastgan.data import Dataset


@dataclass(frozen=True, kw_only=True)
class CycleGan(FromImage):
    recipe: ClassVar[str] = "cyclegan"
    summary: ClassVar[str] = "from one kind of images to another and back, without pairs"

    data: str = run_option(
        "two-colours",
        "a folder with sub-folders a/ and b/ of images that need no partners; two-colours has a "
        "known map",
    )
    batch_size: int = run_option(8, "images of a step, of each kind")
    blocks: int = option(2, "residual blocks of a generator")
    adversarial: float = option(2.0, "weight of the adversarial losses; the paper's 1 is 2 here")
    cycle: float = option(10.0, "weight of coming back to where one began")
    identity: float = option(0.5, "weight, times that of the cycle, of leaving targets as they are")
    pool: int = option(48, "generated images that are kept for the discriminators")
    loss: str = option("least-squares", "adversarial loss", choices=tuple(LOSSES))

    def everything(self, source: str) -> dict[str, Dataset]:
        from fastgan.data.sets.pairs import open_two, two_colours

        if source == "two-colours":
            return two_colours(self.size, self.channels)
        return open_two(source, **self.opening())

    def baselines(self) -> Mapping[str, Callable]:
        return {"source as it is": lambda step: step.batch["source"]}

    def measure(self, run: str, n: int, seed: int, data: str | None, trust: bool) -> object:
        """Against the known map of the bundled data; of one's own data, as sets of images."""
        from fastgan.data.sets.pairs import reprinted
        from fastgan.metrics.evaluate import evaluate
        from fastgan.metrics.fidelity import fidelity, head, made_from

        streams = self.streams(held_out=True) if data is None else self.everything(data)
        sources = streams["source"]
        if data is None and self.data == "two-colours":
            pairs = head({"source": sources, "image": reprinted(sources)}, n)
            return fidelity(run, pairs, baselines=self.baselines(), seed=seed, trust=trust)
        images = made_from(run, head({"source": sources}, n), seed=seed, trust=trust)
        return evaluate(images, streams["image"], len(images), seed=seed, name=run)

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.models.pool import ImagePool
        from fastgan.models.srresnet import Translator
        from fastgan.models.unet import PatchDiscriminator
        from fastgan.objectives.translation.cycle import Cycle

        channels, size = images.channels, images.size

        def networks() -> dict:
            G, F = (Translator(channels, channels, self.width, self.blocks) for _ in "ab")
            D, E = (PatchDiscriminator(channels, 0, self.width) for _ in "ab")
            pools = [ImagePool(self.pool, channels, size, size) for _ in "ab"]
            return {"G": G, "F": F, "D": D, "E": E, "pool": pools[0], "pool_a": pools[1]}

        objective = Cycle(self.loss, self.cycle, self.identity, self.adversarial)
        return replace(self.built(images, networks, objective), ema=("G", "F"))
