"""What is trained against what: an objective names noise, phases and how images are generated. The
engine knows no GAN kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from fastgan import arguments
from fastgan.errors import FastganError
from fastgan.objectives.medium import IMAGES, Medium
from fastgan.ops import random

if TYPE_CHECKING:
    from torch import Tensor


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
        object.__setattr__(self, "shape", arguments.shape(self.shape, "the shape of noise"))
        arguments.number(self.low, "low of noise", -math.inf)
        arguments.number(self.high, "high of noise", self.low)
        arguments.whole(self.classes, "classes of noise")
        if self.kind not in ("normal", "uniform", "categorical"):
            raise FastganError(
                f"unknown kind of noise {self.kind!r}: choose normal, uniform or categorical"
            )
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
        arguments.text(self.name, "the name of a phase")
        what = f"trains of phase {self.name!r}"
        if isinstance(self.trains, str) or not isinstance(self.trains, Sequence):
            raise FastganError(
                f"{what} must be names such as ('G',), not {arguments.shown(self.trains)}"
            )
        for one in self.trains:
            arguments.text(one, what)
        arguments.function(
            self.loss, f"loss of phase {self.name!r}", "a function of the step that returns losses"
        )
        arguments.whole(self.repeat, f"repeat of phase {self.name!r}", -arguments.MOST)
        arguments.flag(self.fresh, f"fresh of phase {self.name!r}")
        if not self.name or "/" in self.name:
            raise FastganError(
                f"a phase can't be named {self.name!r}: the name begins keys like 'D/accuracy', "
                "and has no /"
            )
        if self.repeat < 1:
            raise FastganError(
                f"phase {self.name!r} must be repeated at least once, not {self.repeat} times"
            )


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
        traversed: Names of noise, "codes.0" for one number of several, of which a run draws a
            picture with a row for each value of the rest.
        watched: Whether the watch looks at samples: not where nothing is trained to make them.
        medium: What samples are, and how they are drawn and written.
        turns: Whether samples take each class in turn where none is asked for; False: they have the
            classes that the generator gives them.

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
    traversed: tuple[str, ...] = ()
    watched: ClassVar[bool] = True
    medium: Medium = IMAGES
    turns: bool = True

    def phases(self) -> Sequence[Phase]:
        """The phases of one step, in order. One step is one update of the generator."""
        raise NotImplementedError

    def own_nets(self) -> Mapping[str, nn.Module]:
        """Networks that the objective itself brings, such as one without parameters that remembers
        in its buffers; saved and resumed with the others."""
        return {}

    def generate(self, step: Step) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] from `step.nets`, `step.noise` and `step.batch`.

        Called once for a batch, and again where a second phase on that batch trains the generator;
        also used to sample.
        """
        raise NotImplementedError

    def sample(self, step: Step) -> Tensor:
        """What `Trainer.sample` shows; differs from `generate` where training sees only a part of
        the image (a pyramid level, a residual).
        """
        return self.generate(step)

    def panels(self, step: Step, made: Tensor) -> Sequence[Tensor]:
        """What a picture shows of each sample, side by side: (B, 1 or 3, h, w) in [-1, 1] each,
        `made` (what `sample` gave) among them.
        """
        return (made,)

    def schedule(self, step: int) -> Mapping[str, float]:
        """Numbers that change during training (a fade-in, a weight), available to the losses as
        0-dim tensors `step.scalar[name]`.
        """
        return {}

    def check(self, nets: Mapping[str, Any]) -> None:
        """Raise FastganError when the networks do not fit this objective."""

    def check_images(self, fake: Tensor, step: Step) -> None:
        """Raise FastganError when generated images, or the networks that see them, do not fit;
        called once, before training.

        fake: 4 images with their graph, of copies of the networks.
        """


OnePass = Callable[..., "tuple[Tensor, Tensor] | None"]
"""fastgan.trainer.step.pairing.one_pass, which is imported only where it is used."""


class Named(dict):
    """A dict whose entries are attributes too: step.nets.G and step.nets["G"]."""

    def __missing__(self, name: str) -> Any:
        raise KeyError(f"no {name!r} here, only {', '.join(map(repr, self)) or 'nothing'}")

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None


def draw(noise: Mapping[str, Noise], seed: int, position: Tensor, count: int) -> Named:
    """The random inputs of `count` samples from global sample index `position` (0-dim int64 tensor)
    on; a pure function of its arguments.
    """
    drawn = Named()
    for name, spec in noise.items():
        stream = random.stream_id(f"noise/{name}")
        if spec.kind == "normal":
            drawn[name] = random.normal(seed, position, count, spec.shape, stream=stream)
        elif spec.kind == "uniform":
            drawn[name] = (
                random.uniform(seed, position, count, spec.shape, stream=stream)
                * (spec.high - spec.low)
                + spec.low
            )
        else:
            drawn[name] = (
                (random.uniform(seed, position, count, spec.shape, stream=stream) * spec.classes)
                .long()
                .clamp_(max=spec.classes - 1)
            )
    return drawn


class Step:
    """What a loss sees. `nets`, `batch`, `noise` and `scalar` by name; `fake` made once; `rand`,
    `pair`, `due` and `log`.

    Nothing here reads the device, so that a step can be captured: losses keep to that too (no
    `.item()`, no `if` on a tensor).

    What runs the phases sets `phase` and `index` (which one it is), `live` (whether it trains what
    the fakes come from), `graph_to` (the networks whose graph the fakes keep), `generate` (how they
    are made), `one_pass` (networks that `pair` may call once) and `total` (the sum of a tensor over
    all processes).
    """

    def __init__(
        self,
        objective: Objective,
        nets: Mapping[str, nn.Module],
        seed: int,
        *,
        batch: Mapping[str, Tensor] | None = None,
        noise: Mapping[str, Tensor] | None = None,
        scalar: Mapping[str, Tensor] | None = None,
        due: Mapping[str, int] | None = None,
        position: Tensor | None = None,
    ) -> None:
        self.nets = Named(nets)
        self.batch = Named(batch or {})
        self.noise = Named(noise or {})
        self.scalar = Named(scalar or {})
        self.logged: dict[str, Tensor] = {}
        self._objective = objective
        self._seed = seed
        self._due = dict(due or {})
        self._position = position
        self._fake: Tensor | None = None
        self.phase, self.index, self.live = "", 0, False
        self.graph_to: tuple[str, ...] = ()
        self.generate: Callable[[], Tensor] = lambda: objective.generate(self)
        self.one_pass: Mapping[str, OnePass] = {}
        self.total: Callable[[Tensor], Tensor] = lambda value: value

    @property
    def fake(self) -> Tensor:
        """The generated batch (B, C, H, W) of this round; attached to the generator's graph only in
        phases that train it.

        A network that generator and discriminator share learns from the fakes in the generator's
        phase alone, as in a loop that gives D `fake.detach()`. Made once, and again where an
        earlier phase or repeat has changed what it was made of.
        """
        if self._fake is None or (self.live and not self._fake.requires_grad):
            self._fake = self.generate()
        return self._fake if self.live else self._fake.detach()

    def cut(self) -> None:
        """The fake loses its graph: a phase has changed what it was made of."""
        if self._fake is not None:
            self._fake = self._fake.detach()

    def sample(self) -> Tensor:
        """What `Objective.sample` makes of this batch."""
        return self._objective.sample(self)

    def panels(self, made: Tensor) -> Sequence[Tensor]:
        """What a picture shows of `made`, see `Objective.panels`."""
        return self._objective.panels(self, made)

    @property
    def size(self) -> int:
        """Samples in the batch."""
        return len(next(iter((self.batch or self.noise).values())))

    def pair(self, net: str, real: Tensor, fake: Tensor, *conditions: Any) -> tuple[Tensor, Tensor]:
        """`net` on reals and on fakes, real first, with separate batch statistics; one call where
        that is known to be the same.

        Two calls too where one of both requires gradients: the other's would be computed in vain.
        """
        module, one_pass = self.nets[net], self.one_pass.get(net)
        if one_pass is not None and real.requires_grad == fake.requires_grad:
            both = one_pass(module, real, fake, *conditions)
            if both is not None:
                return both
        return module(real, *conditions), module(fake, *conditions)

    def due(self, term: str) -> int:
        """k where a term of interval k is to be computed now, 0 elsewhere; a Python number,
        constant within a captured step."""
        return self._due.get(term, 0)

    def rand(self, name: str, shape: tuple[int, ...] = (), kind: str = "uniform") -> Tensor:
        """(B, *shape) random numbers, uniform in [0, 1) or "normal", a pure function of (seed,
        step, sample) and `name`."""
        draw_ = random.normal if kind == "normal" else random.uniform
        return draw_(n=self.size, shape=shape, **self.key(name))

    def key(self, name: str) -> dict[str, Any]:
        """seed, position and stream of `name` in this phase, for operators that draw for
        themselves."""
        if self._position is None:
            raise FastganError(
                "step.rand can't be used while sampling: declare the noise in the objective instead"
            )
        stream = random.stream_id(f"{self.phase}/{name}")
        return {"seed": self._seed, "position": self._position, "stream": stream}

    def log(self, name: str, value: Tensor) -> None:
        """Log a 0-dim tensor under "<phase>/<name>"."""
        self.logged[f"{self.phase}/{name}"] = value.detach()
