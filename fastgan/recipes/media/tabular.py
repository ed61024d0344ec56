"""Tables: rows like those of a CSV file (Xu et al. 2019, "CTGAN", arXiv 1907.00503; a classifier
beside: Zhao et al. 2021, "CTAB-GAN", arXiv 2102.08369)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastgan.errors import FastganError
from fastgan.recipes.config import Config, ImageSpec, RecipeParts, option, run_option

if TYPE_CHECKING:
    import numpy as np

    from fastgan.data import Dataset
    from fastgan.data.tables.columns import Column
    from fastgan.data.tables.opening import Table


@dataclass(frozen=True, kw_only=True)
class Tabular(Config):
    recipe: ClassVar[str] = "tabular"
    summary: ClassVar[str] = "rows of a table: CTGAN's modes, conditions and packs, Wasserstein"
    generated: ClassVar[tuple[str, ...]] = ("loans",)
    makes: ClassVar[str] = "rows"
    without: ClassVar[tuple[str, ...]] = (
        *("size", "channels", "augment", "augment_p", "model", "flip", "strict"),
        "evaluate_every",
    )

    data: str = run_option("loans", "a CSV file, or loans, a table that is drawn here")
    categorical: str | None = option(None, "columns that are kinds and look like numbers: a,b")
    continuous: str | None = option(None, "columns that are numbers and look like kinds: a,b")
    leave_out: str | None = option(None, "columns that are not learned, such as names: a,b")
    target: str | None = option(None, "the column for --label and evaluate; default: the last")
    steps: int = run_option(3000, "updates of the generator")
    batch_size: int = run_option(100, "rows of a step")
    held_out: float = option(0.2, "share of the rows kept from training, for evaluate", below=0.9)
    latent: int = option(128, "numbers in a latent vector")
    width: int = option(256, "units of each hidden layer")
    pack: int = option(4, "rows that the critic judges together")
    dropout: float = option(0.2, "share of the critic's hidden units dropped", below=1)
    gp: float = option(10.0, "weight of the gradient penalty")
    classifier: float = option(
        1.0, "weight of the class that a classifier sees in a row; 0: none, as CTGAN", before=0.0
    )
    tau: float = option(0.2, "temperature of the softmax of kinds and modes", least=0.01)
    n_critic: int = option(3, "updates of the critic for one of the generator")
    lr: float = option(5e-4, "learning rate of all networks")
    beta1: float = option(0.5, "Adam's first decay", below=1)
    beta2: float = option(0.9, "Adam's second decay", below=1)

    def table(self) -> Table:
        """The table of --data. Raises FastganError."""
        from fastgan.data.tables import drawn
        from fastgan.data.tables.opening import open_table

        if self.data in self.generated:
            return drawn.loans()
        return open_table(
            self.data,
            categorical=self.categorical,
            continuous=self.continuous,
            leave_out=self.leave_out,
        )

    def parts(self) -> tuple[Table, list[Column], int, np.ndarray, np.ndarray]:
        """The table, its columns fitted to the rows of training, the number of the target, and the
        values of training and held-out rows. Raises FastganError."""
        from fastgan.data.tables.columns import fitted
        from fastgan.data.tables.opening import split, target_of

        table = self.table()
        seen, apart = split(len(table.values), self.held_out, self.seed)
        train = table.values[seen]
        columns = [fitted(column, train[:, i]) for i, column in enumerate(table.columns)]
        return table, columns, target_of(columns, self.target), train, table.values[apart]

    def streams(self, held_out: bool = False) -> dict[str, Dataset]:
        from fastgan.data.tables.conditions import Rows

        table, columns, target, train, apart = self.parts()
        return {"image": Rows(table, columns, apart if held_out else train, target, self.seed)}

    def build(self, images: ImageSpec) -> RecipeParts:
        from fastgan.data.tables.columns import Layout
        from fastgan.data.tables.conditions import Rows
        from fastgan.media.tables import Table as Medium
        from fastgan.models.media.tables import Classifier, Critic, Generator
        from fastgan.objectives.media.rows import ConditionalRows
        from fastgan.trainer.optimization.optimizers import adam

        rows = images.data
        if not isinstance(rows, Rows):
            raise FastganError("recipe tabular needs a table: see docs/kinds/tabular.md")
        layout = Layout.of(rows.columns)
        counts = [rows.columns[i].counts for i in layout.discrete]
        label = layout.discrete.index(rows.target) if rows.classes else -1
        objective = ConditionalRows(
            groups=layout.groups,
            numbers=len(layout.continuous),
            told=len(layout.discrete),
            chances=tuple(tuple(n / sum(of) for n in of) for of in counts),
            label=label,
            classifier=self.classifier if rows.classes else 0.0,
            latent=self.latent,
            pack=self.pack,
            gp=self.gp,
            tau=self.tau,
            n_critic=self.n_critic,
            medium=Medium(rows.columns, rows.separator),
        )
        seen = self.pack * (layout.width + objective.slots)
        nets = {
            "G": Generator(self.latent, objective.slots, layout.width, self.width),
            "D": Critic(seen, self.width, self.dropout),
        }
        if objective.classifier:
            nets["C"] = Classifier(layout.width, layout.groups[label], self.width)
        return RecipeParts(
            nets=nets,
            objective=objective,
            optimizers=dict.fromkeys(nets, adam(self.lr, (self.beta1, self.beta2))),
        )

    def measure(self, run: str, n: int, seed: int, data: str | None, trust: bool) -> Any:
        import numpy as np

        from fastgan.data.tables.opening import values_like
        from fastgan.media.tables import Table as Medium
        from fastgan.metrics import tables
        from fastgan.trainer.reuse.load import sample

        table, columns, target, train, apart = self.parts()
        held_out = apart if data is None else values_like(data, columns)
        if len(held_out) < 20:
            raise FastganError(
                f"{run} has {len(held_out)} held-out rows, too few to measure against: name others "
                "with --data"
            )
        few = np.random.default_rng(seed).permutation(len(train))[: max(n, 100)]
        train, medium = train[few], Medium(tuple(columns), table.separator)
        ways: dict[str, tables.Draw] = {
            "generator": lambda count, s: medium.values(sample(run, count, seed=s, trust=trust)),
            "Gaussian copula": tables.gaussian_copula(train),
            "independent columns": tables.independent(train),
        }
        title = f"{run}: {len(train):,} rows of {len(columns)} columns each"
        return tables.measure(title, columns, ways, train, held_out, target, seed)
