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
    """One random input of the generator, a pure function of (seed, step, global sample index).

    Args:
        shape: The shape of one sample, such as (100, 1, 1).
        kind: "normal" is N(0, 1); "uniform" is U[low, high); "categorical" is int64 in [0,
            classes), of shape () or (k,).
        low: The lower end of "uniform".
        high: The upper end of "uniform".
        classes: How many values "categorical" has.

    Raises:
        FastganError: There is no such kind, or "categorical" lacks its classes.

    Example:
        >>> import fastgan
        >>> z = fastgan.Noise((62,))
        >>> kind = fastgan.Noise((), "categorical", classes=10)
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
    """One optimisation of some networks while all others are frozen.

    The terms that `loss` returns are summed and differentiated, and the optimisers of `trains`
    step.

    Args:
        name: What its metrics begin with; without "/".
        trains: The names of the networks that are optimised.
        loss: A function of the `Step` that returns {term name: 0-dim tensor}. It never reads the
            device.
        repeat: How many times the phase runs in a step (n_critic).
        fresh: Whether each run draws a new batch and new noise. False keeps those of the phase
            before, and its fakes with their graph.

    Raises:
        FastganError: The name is empty or contains "/", or `repeat` is below 1.

    Example:
        >>> import fastgan
        >>> def push_up(step):
        ...     return {"adv": -step.nets.D(step.fake).mean()}
        >>> fastgan.Phase("G", trains=("G",), loss=push_up, fresh=False).repeat
        1
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
    """What is trained against what: the base class of all objectives.

    An objective is stateless: what changes lives in the networks, the optimisers and the schedules.
    A subclass gives `phases` and `generate`, and usually `noise`.

    Attributes:
        noise: The generator's random inputs by name.
        lazy: Terms that are computed every k-th step only, by name; `step.due("r1")` is k on those
            steps and 0 on others.
        one_pass: Whether `step.pair` may call a network once for reals and fakes, where a trial
            finds no difference. None: on a GPU, unless with impl="reference"; on a CPU it is no
            faster.

    Example:
        >>> import fastgan
        >>> from fastgan.objectives import LOSSES
        >>> class Hinge(fastgan.Objective):
        ...     noise = {"z": fastgan.Noise((100, 1, 1))}
        ...
        ...     def phases(self):
        ...         return [
        ...             fastgan.Phase("D", ("D",), self.d_loss),
        ...             fastgan.Phase("G", ("G",), self.g_loss, fresh=False),
        ...         ]
        ...
        ...     def generate(self, step):
        ...         return step.nets.G(step.noise.z)
        ...
        ...     def d_loss(self, step):
        ...         real, fake = step.pair("D", step.batch["image"], step.fake)
        ...         return {"adv": LOSSES["hinge"].d(real, fake, step)}
        ...
        ...     def g_loss(self, step):
        ...         return {"adv": LOSSES["hinge"].g(None, step.nets.D(step.fake))}
        >>> [phase.name for phase in Hinge().phases()]
        ['D', 'G']
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
