"""What the kinds that make images from images share: held-out data, inputs from files, a measure
against the right images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastgan import files
from fastgan.errors import FastganError
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, load_networks, option, run_option

if TYPE_CHECKING:
    from torch import nn

    from fastgan.data import Dataset
    from fastgan.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class FromImage(Config):
    """Base of the recipes whose generator is given an image."""

    as_sets: ClassVar[bool] = True
    """Whether what it makes is to look like real images, so that sets of both are compared, too."""
    shares: ClassVar[tuple[float, ...]] = ()
    """Bounds of the share of an image's pixels in `where` by which its PSNR is told apart."""

    size: int | None = run_option(32, "side of the images in pixels")
    steps: int = run_option(2000, "updates of the generator")
    batch_size: int = run_option(16, "images of a step")
    ema_decay: float = run_option(0.99, "decay of the averaged generator")
    held_out: float = option(
        0.1, "share of the images kept from training, for sample and evaluate", below=1
    )
    width: int = option(32, "channels of the outermost layers; inner ones double")
    adversarial: float = option(1.0, "weight of the adversarial loss; 0 trains the generator alone")
    lr: float = option(2e-4, "learning rate of all networks")
    beta1: float = option(0.5, "Adam's first decay", below=1)

    def everything(self, source: str) -> dict[str, Dataset]:
        """All data at a source, by stream name."""
        from fastgan import data

        return {"image": data.open(source, **self.opening())}

    def opening(self) -> dict[str, Any]:
        """Options of `fastgan.data.open`."""
        size, channels = self.defaults_for()
        return {"size": size, "channels": channels, "strict": self.strict}

    def streams(self, held_out: bool = False) -> dict[str, Dataset]:
        from fastgan.data.sets.pairs import split

        found = self.everything(self.data)
        return {name: split(part, self.held_out)[held_out] for name, part in found.items()}

    def inputs(self, run: str, path: str, mask: str | None) -> dict[str, Dataset]:
        """Images (a folder or one file) as the generator is given them. Raises FastganError."""
        self.check_no_mask(run, mask)
        side = self.source_size()
        return {"source": open_inputs(path, (side, side, self.source_channels(run)))}

    def check_no_mask(self, run: str, mask: str | None) -> None:
        if mask is not None:
            raise FastganError(f"--mask is for inpainting, and {run} is a {self.recipe} run")

    def source_size(self) -> int:
        """The side of what the generator is given; of a run, whose size is known."""
        assert self.size is not None
        return self.size

    def source_channels(self, run: str) -> int:
        """The channels of it, as the run's generator was made for; the images' own where it does
        not say."""

        from fastgan.runs.run_folder import read_facts

        how = read_facts(files.path_of(run))["stages"][-1]["nets"]["G"]
        return how.get("spec", {}).get("args", {}).get("inputs") or self.channels or 3

    def baselines(self) -> Mapping[str, Callable]:
        """What needs no training, by name: functions of a step."""
        return {}

    def where(self) -> Callable | None:
        """A function of a step that tells which pixels are compared; None: all."""
        return None

    def measures(self) -> Mapping[str, Callable] | None:
        """Functions of (images, targets) by name; None: L1, PSNR and SSIM."""
        return None

    def measure(self, run: str, n: int, seed: int, data: str | None, trust: bool) -> Any:
        from fastgan.metrics.fidelity import fidelity, head

        datasets = self.streams(held_out=True) if data is None else self.everything(data)
        return fidelity(
            run,
            head(datasets, n),
            baselines=self.baselines(),
            where=self.where(),
            shares=self.shares,
            measures=self.measures(),
            as_sets=self.as_sets,
            seed=seed,
            trust=trust,
        )

    def built(
        self, images: ImageSpec, networks: Callable[[], dict[str, nn.Module]], objective: Objective
    ) -> RecipeParts:
        """The recipe's own networks, or those of --model, with Adam for each."""
        from fastgan.trainer.optimization.optimizers import adam

        if images.size < 16:
            raise FastganError(
                f"{self.recipe} needs images of at least 16 pixels, not {images.size}: use --size "
                "16 or more"
            )
        nets = load_networks(self.model, images, 0) if self.model else networks()
        return RecipeParts(
            nets=nets,
            objective=objective,
            optimizers=dict.fromkeys(nets, adam(self.lr, (self.beta1, 0.999))),
        )


def open_inputs(path: str, shape: tuple[int, int, int]) -> Dataset:
    """The images of a folder, or one image, fitted to (height, width, channels)."""

    from fastgan import data, files
    from fastgan.data.pixels import Unreadable, decode

    height, width, channels = shape
    file = files.path_of(path)
    if files.kind(file) != "file":
        return data.open(path, size=(height, width), channels=channels, labels=False)
    from fastgan.data import Dataset

    with files.explained(f"can't read {path}"):
        content = files.read(file)
    try:
        pixels = decode(content, (height, width), channels)
    except Unreadable as error:
        raise FastganError(f"{path}: {error}: give an image, or a folder of images") from None
    return Dataset(file.name, {"image": pixels[None]}, {"image": "image"}, names=[file.name])
