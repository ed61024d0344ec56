"""Strings, such as SMILES of molecules: a critic against a recurrent generator that draws symbol by
symbol, and the likelihood of the data (sources: `fastgan.objectives.media.letters`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from fastgan.errors import FastganError
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, option, run_option

if TYPE_CHECKING:
    from fastgan.data import Dataset
    from fastgan.data.strings.opening import Strings


@dataclass(frozen=True, kw_only=True)
class Molecule(Config):
    recipe: ClassVar[str] = "molecule"
    summary: ClassVar[str] = "short strings such as SMILES: Gumbel draws, Wasserstein; experimental"
    generated: ClassVar[tuple[str, ...]] = ("molecules",)
    makes: ClassVar[str] = "strings"
    without: ClassVar[tuple[str, ...]] = (
        *("size", "channels", "augment", "augment_p", "model", "flip", "strict"),
        "evaluate_every",
    )

    data: str = run_option(
        "molecules", "a file of strings, one a line, or molecules, SMILES that are drawn here"
    )
    form: str = option("smiles", "what strings are", choices=("smiles", "text"))
    column: str | None = option(None, "the column of a .csv file; default: SMILES")
    length: int | None = option(
        None, "symbols of the longest string that is kept; default: 64, or what the data have"
    )
    steps: int = run_option(3000, "updates of the generator")
    batch_size: int = run_option(64, "strings of a step")
    held_out: float = option(0.2, "share of the strings kept from training", below=0.9)
    latent: int = option(32, "numbers in a latent vector")
    width: int = option(128, "units of the generator")
    width_d: int = option(256, "units of each hidden layer of the critic")
    likelihood: float = option(1.0, "weight of the likelihood of the data; 0: the critic alone")
    adversarial: float = option(1.0, "weight of the critic; 0: likelihood alone, no GAN")
    tau: float = option(1.0, "temperature of the draws' gradient", least=0.01)
    gp: float = option(10.0, "weight of the gradient penalty")
    n_critic: int = option(1, "updates of the critic for one of the generator")
    lr_g: float = option(2e-3, "learning rate of the generator")
    lr_d: float = option(5e-4, "learning rate of the critic")
    beta1: float = option(0.5, "Adam's first decay", below=1)
    beta2: float = option(0.9, "Adam's second decay", below=1)

    def parts(self) -> tuple[Strings, Strings]:
        """Strings of training, and held-out ones. Raises FastganError."""
        from fastgan.data.strings.opening import open_strings
        from fastgan.data.tables.opening import split

        found = open_strings(self.data, form=self.form, column=self.column, length=self.length)
        seen, apart = split(len(found), self.held_out, self.seed)
        return found.part(seen), found.part(apart)

    def streams(self, held_out: bool = False) -> dict[str, Dataset]:
        return {"image": self.parts()[held_out]}

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.data.strings.opening import Strings
        from fastgan.media.strings import Lines
        from fastgan.models.media.strings import Critic, Generator
        from fastgan.objectives.media.letters import Letters
        from fastgan.trainer.optimization.optimizers import adam

        data = images.data
        if not isinstance(data, Strings):
            raise FastganError("recipe molecule needs strings: see docs/kinds/molecule.md")
        count = 1 + len(data.alphabet)
        nets = {
            "G": Generator(self.latent, data.length, count, self.width, self.tau),
            "D": Critic(data.length, count, self.width_d),
        }
        return RecipeParts(
            nets=nets,
            objective=Letters(
                "wasserstein",
                (self.latent,),
                gp=self.gp,
                n_critic=self.n_critic,
                length=data.length,
                symbols=count,
                adversarial=self.adversarial,
                likelihood=self.likelihood,
                medium=Lines(data.alphabet, data.form),
            ),
            optimizers={
                "G": adam(self.lr_g, (self.beta1, self.beta2)),
                "D": adam(self.lr_d, (self.beta1, self.beta2)),
            },
        )

    def measure(self, run: str, n: int, seed: int, data: str | None, trust: bool) -> Any:
        from fastgan.data.strings.opening import symbols_of
        from fastgan.data.strings.reading import read_strings
        from fastgan.media.strings import Lines
        from fastgan.metrics.strings import measure
        from fastgan.trainer.reuse.load import medium_of, sample

        train, apart = self.parts()
        held_out = apart.strings
        if data is not None:
            held_out = read_strings(data, self.column, self.form == "smiles")
        if len(held_out) < 20:
            raise FastganError(
                f"{run} has {len(held_out)} held-out strings, too few to measure against: name "
                "others with --data"
            )
        lines = cast(Lines, medium_of(run, trust=trust))
        return measure(
            run,
            {"generator": lambda count, s: lines.strings(sample(run, count, seed=s, trust=trust))},
            train.strings,
            held_out,
            lambda text: symbols_of(text, self.form),
            self.form,
            n,
            train.length,
            seed,
        )
