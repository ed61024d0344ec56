"""What is trained against what: an objective names noise, phases and how images are generated. The engine knows no GAN kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastgan.errors import FastganError

if TYPE_CHECKING:
    from torch import Tensor

    from fastgan.engine.step import Step


@dataclass(frozen=True)
class Noise:
    """One random input of the generator, drawn per sample as a pure function of (seed, step, global sample index).

    shape: shape of one sample, such as (100, 1, 1). kind: "normal" N(0, 1); "uniform" U[low, high); "categorical" int64 in
    [0, classes), shape () or (k,).
    """

    shape: tuple[int, ...]
    kind: str = "normal"
    low: float = -1.0
    high: float = 1.0
    classes: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("normal", "uniform", "categorical"):
            raise FastganError(f"unknown kind of noise {self.kind!r}: choose normal, uniform or categorical")
        if self.kind == "categorical" and self.classes < 1:
            raise FastganError("categorical noise needs classes=, how many there are")


@dataclass(frozen=True)
class Phase:
    """One optimisation of some networks: every other network is frozen, the loss terms are summed, differentiated and stepped.

    name: prefix of what is logged, without "/". trains: networks that are optimised. loss: fn(step) -> {term name: 0-dim
    tensor}. repeat: how many times a step (n_critic).
    fresh: draw a new batch and new noise; False keeps those of the phase before, and its fake with its graph (DCGAN's reuse
    of one generator pass).
    """

    name: str
    trains: tuple[str, ...]
    loss: Callable[[Step], Mapping[str, Tensor]]
    repeat: int = 1
    fresh: bool = True

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise FastganError(f"a phase can't be named {self.name!r}: the name begins keys like 'D/accuracy', and has no /")
        if self.repeat < 1:
            raise FastganError(f"phase {self.name!r} must be repeated at least once, not {self.repeat} times")


class Objective:
    """Base of all objectives. Stateless: everything that changes lives in the networks, the step and the schedules.

    noise: the generator's random inputs by name. lazy: terms computed only every k-th step, by name (`step.due("r1")` is k on
    those steps, else 0). one_pass: whether `step.pair` may call a network once for reals and fakes, where a trial finds no
    difference; None: on a GPU, unless with impl="reference"; on a CPU it is no faster.
    """

    noise: Mapping[str, Noise] = {}
    lazy: Mapping[str, int] = {}
    one_pass: bool | None = None

    def phases(self) -> Sequence[Phase]:
        """The phases of one step, in order. One step is one update of the generator."""
        raise NotImplementedError

    def generate(self, step: Step) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] from `step.nets`, `step.noise` and `step.batch`.

        Called once for a batch, and again where a second phase on that batch trains the generator; also used to sample.
        """
        raise NotImplementedError

    def sample(self, step: Step) -> Tensor:
        """What `Trainer.sample` shows; differs from `generate` where training sees only a part of the image (a pyramid level,
        a residual).
        """
        return self.generate(step)

    def schedule(self, step: int) -> Mapping[str, float]:
        """Numbers that change during training (a fade-in, a weight), available to the losses as 0-dim tensors
        `step.scalar[name]`.
        """
        return {}

    def check(self, nets: Mapping[str, Any]) -> None:
        """Raise FastganError when the networks do not fit this objective."""

    def check_images(self, fake: Tensor, step: Step) -> None:
        """Raise FastganError when generated images, or the networks that see them, do not fit; called once, before training.

        fake: 4 images with their graph, of copies of the networks.
        """
