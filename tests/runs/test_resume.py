"""Resume is exact: a run cut anywhere ends bit for bit like one that was never cut."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from run_support import (
    assert_same_run,
    discriminator,
    generator,
    images,
    in_a_hurry,
    leftovers,
    mlp_pair,
    newest,
    rows,
    tiny,
)
from torch import nn

import fastgan
from fastgan import recipes
from fastgan.objectives import Adversarial, Cosine, Exponential, Linear, Noise, Objective, Phase
from fastgan.recipes.config import fields_of
from fastgan.runs import changes
from fastgan.trainer.optimization.optimizers import adam

STEPS = 23
CUTS = (4, 13)
"""Neither is a multiple of the log interval (5), the lazy interval (3), the picture interval (7) or
an epoch (2.625 steps)."""

SGD = lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    in_a_hurry(monkeypatch)


class Fading(Adversarial):
    """Uses a scheduled number in its loss, and per-sample randomness."""

    def schedule(self, step):
        return {"alpha": min(1.0, step / 20)}

    def d_loss(self, step):
        terms = super().d_loss(step)
        terms["fade"] = (
            step.scalar["alpha"] * (step.nets.D(step.batch["image"]) * step.rand("u", (1,))).mean()
        )
        return terms


class Conditional(nn.Module):
    def __init__(self, net, inputs):
        super().__init__()
        self.net, self.label = net, nn.Embedding(3, inputs)

    def forward(self, x, label):
        return self.net(
            x + self.label(label).view(len(x), *([-1, 1, 1] if x.shape[1] == 4 else [1, 8, 8]))
        )


def spectral():
    d = discriminator()
    nn.utils.parametrizations.spectral_norm(d[0])
    nn.utils.parametrizations.spectral_norm(d[2])
    return {"G": generator(), "D": d}


def own_optimizers():
    """Two groups of different learning rates in an optimiser made by the user, a learning rate in a
    tensor, a frozen layer."""
    g, d = generator(), discriminator()
    d[0].weight.requires_grad_(False)
    groups = [
        {"params": g[0].parameters(), "lr": 1e-3},
        {"params": [p for m in g[1:] for p in m.parameters()]},
    ]
    made = {
        "G": torch.optim.Adam(groups, 1e-4, amsgrad=True),
        "D": torch.optim.Adam(
            [p for p in d.parameters() if p.requires_grad],
            torch.tensor(1e-3),
            capturable=False,
            foreach=False,
        ),
    }
    return {"nets": {"G": g, "D": d}, "optimizers": made}


def cumulative():
    """BatchNorm that averages over all batches, in D too, with its counter in the averages."""
    d = nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1),
        nn.BatchNorm2d(4, momentum=None),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 1, 4),
    )
    return {"nets": {"G": generator(), "D": d}, "ema": ("G", "D")}


KINDS = {
    "adam": dict,
    "sgd-momentum": lambda: {"optimizers": {"G": SGD, "D": SGD}},
    "adamw": lambda: {
        "optimizers": {n: lambda p: torch.optim.AdamW(p, 1e-3, betas=(0.5, 0.99)) for n in "GD"}
    },
    "rmsprop": lambda: {
        "optimizers": {
            n: lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5, centered=True) for n in "GD"
        }
    },
    "own-optimizers": own_optimizers,
    "lazy-r1": lambda: {"objective": Adversarial("non-saturating", (4, 1, 1), r1=1.0, lazy_r1=3)},
    "r1-r2-relativistic": lambda: {
        "objective": Adversarial("relativistic", (4, 1, 1), r1=0.5, r2=0.5)
    },
    "n-critic-gp": lambda: {
        "objective": Adversarial("wasserstein", (4, 1, 1), n_critic=3, gp=10.0, latent="uniform")
    },
    "diffaugment": lambda: {
        "objective": Adversarial("hinge", (4, 1, 1), r1=1.0, augment="color,translation,cutout")
    },
    "ada": lambda: {"objective": Adversarial("hinge", (4, 1, 1), n_critic=2, augment="ada")},
    "dropout": lambda: {"nets": mlp_pair()},
    "schedules": lambda: {
        "optimizers": {"G": SGD, "D": SGD},
        "schedules": {
            "G": {"lr": Cosine(1e-2, 1e-4, 20), "momentum": Linear(0.5, 0.9, 15)},
            "D": {"lr": Exponential(1e-2, 1.1)},
        },
        "objective": Fading("hinge", (4, 1, 1)),
    },
    "flips": lambda: {"flip": True},
    "streaming": lambda: {"flip": True, "resident_bytes": 0},
    "spectral-norm": lambda: {"nets": spectral()},
    "cumulative-batchnorm": cumulative,
    "labels": lambda: {
        "nets": {"G": Conditional(generator(), 4), "D": Conditional(discriminator(), 64)},
        "objective": Adversarial("hinge", (4, 1, 1), conditional=True),
        "data": fastgan.data.open(images(), labels=[i % 3 for i in range(21)]),
    },
    "no-log-row-yet": lambda: {"log_every": 100},
    "log-every-step": lambda: {"log_every": 1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_run_ends_like_a_straight_one(kind, tmp_path):
    torch.manual_seed(1)
    straight, cut = tiny(tmp_path / "straight", seed=7, **KINDS[kind]()), None
    torch.manual_seed(1)
    cut = tiny(tmp_path / "cut", seed=7, **KINDS[kind]())
    with straight:
        straight.fit(STEPS)
        pictures = straight.sample(9)
    with cut:
        cut.fit(CUTS[0])
    for i, steps in enumerate((*CUTS[1:], STEPS)):
        torch.manual_seed(100 + i)  # other first weights: everything must come from the checkpoint
        with tiny(tmp_path / "cut", seed=7, resume=True, **KINDS[kind]()) as cut:
            assert cut.step == CUTS[i]
            torch.rand(i + 1)
            cut.fit(steps)
            resumed = cut.sample(9)
    assert_same_run(tmp_path / "straight", tmp_path / "cut")
    assert torch.equal(pictures, resumed)
    assert leftovers(tmp_path) == []


def test_something_was_learnt(tmp_path):
    """The comparison above would pass on runs that do nothing."""
    with tiny(tmp_path / "run") as trainer:
        before, _ = newest(tmp_path / "run")
        trainer.fit(6)
    after, _ = newest(tmp_path / "run")
    assert all(
        before[k] != after[k]
        for k in before
        if k.startswith(("nets/", "ema/")) and k.endswith("weight")
    )
    assert len(rows(tmp_path / "run" / "metrics.jsonl")) == 1


def test_streamed_and_resident_runs_are_the_same_run(tmp_path):
    for name, limit in (("resident", 2**31), ("streamed", 0)):
        torch.manual_seed(1)
        with tiny(tmp_path / name, resident_bytes=limit, flip=True) as trainer:
            trainer.fit(STEPS)
    assert_same_run(tmp_path / "resident", tmp_path / "streamed")


def test_fit_in_pieces_is_a_straight_run(tmp_path):
    torch.manual_seed(1)
    with tiny(tmp_path / "straight") as trainer:
        trainer.fit(STEPS)
    torch.manual_seed(1)
    with tiny(tmp_path / "pieces") as trainer:
        for steps in range(3, STEPS + 3, 4):
            trainer.fit(steps)
    assert_same_run(tmp_path / "straight", tmp_path / "pieces")


class TwoLevels(Objective):
    """The second level paints over the enlarged picture of the first, whose network is another
    stage's."""

    def __init__(self, level):
        self.level = level
        self.noise = {"z": Noise((4, 1, 1)), "detail": Noise((1, 8, 8))}

    def phases(self):
        return (Phase("D", ("D",), self.d), Phase("G", (f"G{self.level}",), self.g, fresh=False))

    def generate(self, step):
        small = step.nets.G0(step.noise.z)
        return small if self.level == 0 else small + step.nets.G1(step.noise.detail)

    def d(self, step):
        real, fake = step.pair("D", step.batch["image"], step.fake)
        return {"adv": nn.functional.softplus(-real).mean() + nn.functional.softplus(fake).mean()}

    def g(self, step):
        return {"adv": nn.functional.softplus(-step.nets.D(step.fake)).mean()}


def growing():
    """A shared generator, a discriminator of each stage's own, and a carry that copies weights."""
    g = generator()
    first = fastgan.Stage({"G": g, "D": discriminator()}, Adversarial("hinge", (4, 1, 1)), steps=9)
    second = fastgan.Stage(
        {"G": g, "D": discriminator()},
        Adversarial("non-saturating", (4, 1, 1), n_critic=2),
        batch_size=6,
        carry=lambda before, now: now["D"].load_state_dict(before["D"].state_dict()),
    )
    return [first, second]


def pyramid():
    """The last stage trains a network that the middle one does not hold."""
    g0, g1 = generator(), nn.Conv2d(1, 1, 3, padding=1)
    return [
        fastgan.Stage({"G0": g0, "D": discriminator()}, TwoLevels(0), steps=5, ema=("G0",)),
        fastgan.Stage(
            {"G": generator(2), "D": discriminator(2)},
            Adversarial("hinge", (4, 1, 1)),
            steps=6,
            data=images(16, seed=3),
        ),
        fastgan.Stage(
            {"G0": g0, "G1": g1, "D": discriminator()},
            TwoLevels(1),
            ema=("G0", "G1"),
            optimizers={"G1": SGD},
        ),
    ]


@pytest.mark.parametrize(
    ("stages", "cuts"),
    [
        (growing, (4,)),
        (growing, (9,)),
        (growing, (13,)),
        (pyramid, (2, 7)),
        (pyramid, (5, 11)),
        (pyramid, (17,)),
    ],
)
def test_stages_resume_inside_each_and_at_the_boundary(stages, cuts, tmp_path):
    torch.manual_seed(1)
    with tiny(tmp_path / "straight", stages=stages()) as trainer:
        trainer.fit(STEPS)
    torch.manual_seed(1)
    with tiny(tmp_path / "cut", stages=stages()) as trainer:
        trainer.fit(cuts[0])
    for steps in (*cuts[1:], STEPS):
        torch.manual_seed(2)
        with tiny(tmp_path / "cut", stages=stages(), resume=True) as trainer:
            trainer.fit(steps)
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def changed(**options):
    return lambda: options


REFUSED = {
    "networks.G.0.weight": changed(nets={"G": generator(5), "D": discriminator()}),
    "networks.D.2.bias": changed(
        nets={
            "G": generator(),
            "D": nn.Sequential(*discriminator()[:2], nn.Conv2d(4, 1, 4, bias=False)),
        }
    ),
    "networks.E": changed(nets={"G": generator(), "D": discriminator(), "E": nn.Linear(1, 1)}),
    "data.image.images": changed(data=images(22)),
    "data.image.fingerprint": changed(data=images(seed=1)),
    "seed": changed(seed=3),
    "objective.args.loss": changed(loss="hinge"),
    "objective.args.r1": changed(objective=Adversarial("non-saturating", (4, 1, 1), r1=1.0)),
    "objective": changed(objective=Fading("non-saturating", (4, 1, 1))),
    "batch_size": changed(batch_size=7),
    "optimizers.G.class": changed(optimizers={"G": SGD}),
    "optimizers.D.options.lr": changed(
        optimizers={"D": lambda p: torch.optim.Adam(p, 1e-5, (0.5, 0.999), fused=True)}
    ),
    "schedules.G": changed(schedules={"G": {"lr": Linear(1e-3, 0, 100)}}),
    "ema": changed(ema=("G", "D")),
    "ema_decay": changed(ema_decay=0.9),
    "flip": changed(flip=True),
    "log_every": changed(log_every=6),
    "precision": changed(precision="bf16"),
    "steps": changed(
        stages=[
            fastgan.Stage(
                {"G": generator(), "D": discriminator()},
                Adversarial("non-saturating", (4, 1, 1)),
                steps=40,
            )
        ]
    ),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    torch.manual_seed(1)
    with tiny(path) as trainer:
        trainer.fit(4)
    return path


@pytest.mark.parametrize("field", REFUSED)
def test_a_changed_run_is_refused_by_the_name_of_what_changed(field, finished):
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    with pytest.raises(fastgan.FastganError) as error:
        tiny(finished, resume=True, **REFUSED[field]())
    message = str(error.value)
    assert "\n" not in message
    assert f"{field} was " in message or f"{field}." in message
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before


def test_what_does_not_change_the_numbers_may_change(finished):
    with tiny(
        finished,
        resume=True,
        sample_every=2,
        checkpoint_every=3,
        keep=1,
        resident_bytes=0,
        watch=False,
    ) as trainer:
        assert trainer.step == 4


@pytest.mark.parametrize("precision", ["bf16"])
def test_bf16_resumes_exactly(precision, tmp_path):
    for name, pieces in (("straight", [12]), ("cut", [7, 12])):
        for steps, resume in zip(pieces, itertools.chain([False], itertools.repeat(True))):
            torch.manual_seed(1)
            with tiny(tmp_path / name, precision=precision, resume=resume) as trainer:
                trainer.fit(steps)
    assert_same_run(tmp_path / "straight", tmp_path / "cut")


def test_other_schedules_are_refused_unless_they_are_meant(tmp_path):
    make = lambda steps, **options: tiny(
        tmp_path / "run", schedules={"G": {"lr": Linear(1e-3, 0.0, steps)}}, **options
    )
    with make(10) as first:
        first.fit(6)
    with pytest.raises(
        fastgan.FastganError,
        match=r"schedules\.G\.lr\.args\.steps was 10 and is 20 now; .* \(reschedule=True\)",
    ):
        make(20, resume=True)
    with make(20, resume=True, reschedule=True) as on:
        assert on.rescheduled == "G: lr goes on with 0.0007 instead of 0.0004"
        on.fit(8)
        assert on.optimizers["G"].param_groups[0]["lr"] == pytest.approx(1e-3 * 13 / 20)
    with make(20, resume=True) as again:
        assert again.rescheduled is None
        assert again.step == 8


def test_a_network_may_gain_or_lose_its_schedules(tmp_path):
    make = lambda nets, **options: tiny(
        tmp_path / "run", schedules={n: {"lr": Linear(1e-3, 0.0, 10)} for n in nets}, **options
    )
    with make("") as first:
        first.fit(2)
    gains, loses = (
        "lr goes on with 0.0008 instead of no schedule",
        "lr goes on with no schedule instead of 0.0008",
    )
    for nets, expected in {
        "G": f"G: {gains}",
        "D": f"G: {loses}; D: {gains}",
        "": f"D: {loses}",
    }.items():
        with make(nets, resume=True, reschedule=True) as on:
            assert on.rescheduled == expected


def test_the_page_lists_what_may_change_and_every_option_is_one():
    page = (Path(__file__).parents[2] / "docs" / "runs.md").read_text()
    assert changes.table() in page, "print(fastgan.runs.changes.table())"
    known = {name for recipe in recipes.RECIPES for name in fields_of(recipes.find(recipe))}
    assert set(changes.options()) <= known


CHANGED = {
    "r1": (
        "r1 goes on with 5.0 instead of 0.0",
        {"objective": Adversarial(latent_shape=(4, 1, 1), r1=5.0)},
    ),
    "lazy r1": (
        "r1 goes on with 1.0 instead of 0.0; lazy_r1 goes on with 4 instead of 1",
        {"objective": Adversarial(latent_shape=(4, 1, 1), r1=1.0, lazy_r1=4)},
    ),
    "flip": ("flip goes on with True instead of False", {"flip": True}),
    "ema": ("ema_decay goes on with 0.9 instead of 0.999", {"ema_decay": 0.9}),
    "precision": ("precision goes on with bf16 instead of fp32", {"precision": "bf16"}),
    "beta1": (
        "D: betas goes on with [0.0, 0.9] instead of [0.5, 0.999]",
        {"optimizers": {"D": adam(betas=(0.0, 0.9))}},
    ),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_the_table_marks_may_change_and_is_said_and_recorded(tmp_path, name):
    told, changed = CHANGED[name]
    with tiny(tmp_path / "run") as trainer:
        trainer.fit(7)
    with pytest.raises(fastgan.FastganError, match=r"\(reschedule=True\)"):
        tiny(tmp_path / "run", resume=True, **changed)
    with tiny(tmp_path / "run", resume=True, reschedule=True, **changed) as on:
        assert on.rescheduled == told
        on.fit(9)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["changes"] == [{"step": 7, "what": told}]
    with tiny(tmp_path / "run", resume=True, **changed) as again:
        assert again.rescheduled is None
    assert fastgan.sample(tmp_path / "run", 2, device="cpu").shape == (2, 1, 8, 8)


def test_what_the_table_does_not_have_may_not_change(tmp_path):
    tiny(tmp_path / "run").close()
    for changed in ({"batch_size": 4}, {"seed": 1}, {"log_every": 9}, {"data": images(22)}):
        with pytest.raises(fastgan.FastganError, match="start a new run"):
            tiny(tmp_path / "run", resume=True, reschedule=True, **changed)
