"""Arguments of the wrong kind: one FastganError each, before anything is written."""

import inspect
import math

import pytest
import torch
from run_support import QUIET, discriminator, generator, images
from torch import nn

import fastgan

WRONG = {
    "none": None,
    "text": "x",
    "empty": "",
    "minus": -1,
    "fraction": 1.5,
    "nan": math.nan,
    "infinite": math.inf,
    "huge": 2**70,
    "yes": True,
    "list": [1],
    "dict": {"G": 3},
    "bytes": b"x",
    "class": nn.Linear,
    "object": object(),
    "nothing": (),
}


def trainer(out=None, **changed):
    torch.manual_seed(0)
    return fastgan.Trainer(
        **{
            "nets": {"G": generator(), "D": discriminator()},
            "data": images(count=9),
            "latent_shape": (4, 1, 1),
            "batch_size": 4,
            "out": out,
            **QUIET,
            **changed,
        }
    )


def holds(make):
    """Whether `make` works or raises a FastganError of one line, and nothing else."""
    try:
        made = make()
    except fastgan.FastganError:  # one line: its constructor sees to that
        return None
    return made


@pytest.mark.parametrize("name", list(inspect.signature(fastgan.Trainer).parameters))
def test_wrong_arguments_of_the_trainer_are_named_before_anything_is_written(tmp_path, name):
    for kind, value in WRONG.items():
        if name == "out" or (name == "data" and kind == "none"):
            continue
        folder = tmp_path / f"{name}-{kind}"
        try:
            made = holds(
                lambda name=name, value=value, folder=folder: trainer(folder, **{name: value})
            )
        except Exception as error:
            raise AssertionError(f"{name}={value!r}: {type(error).__name__}: {error}") from error
        if made is None:
            assert not folder.exists(), f"{name}={value!r} left a folder"
        else:
            made.close()


@pytest.mark.parametrize(
    ("cls", "right"),
    [
        (fastgan.Adversarial, {}),
        (fastgan.Noise, {"shape": (2,)}),
        (fastgan.Phase, {"name": "D", "trains": ("D",), "loss": lambda step: {}}),
        (fastgan.Stage, {"nets": {}, "objective": fastgan.Adversarial()}),
    ],
    ids=lambda p: getattr(p, "__name__", ""),
)
def test_wrong_arguments_of_the_parts_are_named(cls, right):
    for name in inspect.signature(cls).parameters:
        for value in WRONG.values():
            try:
                holds(lambda name=name, value=value: cls(**{**right, name: value}))
            except Exception as error:
                raise AssertionError(
                    f"{cls.__name__}({name}={value!r}): {type(error).__name__}: {error}"
                ) from error


def test_what_is_natural_is_taken():
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    with trainer(generator=flat, latent_shape=16, ema=False) as made:
        made.fit(1)
        assert made.sample(2).shape == (2, 1, 8, 8)
        assert not made.ema


class Both(nn.Module):
    """A network that returns more than one thing."""

    def __init__(self, net, kind):
        super().__init__()
        self.net, self.kind = net, kind

    def forward(self, x):
        return (self.net(x), x) if self.kind == "tuple" else {"out": self.net(x)}


def scheduled(parameters):
    optimizer = torch.optim.SGD(parameters, 0.1)
    optimizer.scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    return optimizer


def failing(step):
    raise ZeroDivisionError("by mine")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"optimizers": "adam"}, "optimizers must be a function.*not 'adam'.*Adam"),
        ({"optimizers": {"G": "adam"}}, r"optimizers\['G'\] must be a function"),
        ({"optimizers": lambda p: torch.optim.LBFGS(p)}, "LBFGS.*closure.*Adam"),
        ({"optimizers": scheduled}, "has a scheduler of torch.*schedules="),
        ({"optimizers": lambda a, b: None}, "can't be made: TypeError"),
        ({"schedules": {"G": {"lr": 1e-3}}}, r"lambda step: value\), not 0.001"),
        ({"schedules": {"G": torch.optim.lr_scheduler.StepLR}}, "is a scheduler of torch"),
        (
            {"schedules": {"G": {"lr": lambda step: None}}},
            r"'lr'\]\(0\) must be a number, not None",
        ),
        ({"schedules": {"G": {"lr": lambda step: -1.0}}}, "must be at least 0"),
        ({"schedules": {"G": {"lr": failing}}}, "raised ZeroDivisionError at step 0: by mine"),
        ({"batch_size": "4"}, "batch_size must be a whole number, not '4'"),
        ({"batch_size": 4.0}, "batch_size must be a whole number, not 4.0"),
        ({"seed": None}, "seed must be a whole number, not None"),
        ({"objective": fastgan.Adversarial}, "objective is the class Adversarial: make an object"),
        ({"generator": Both(generator(), "tuple")}, "the generator returns a tuple"),
        ({"generator": Both(generator(), "dict")}, "the generator returns a dict"),
        ({"discriminator": Both(discriminator(), "tuple")}, "the discriminator returns a tuple"),
        ({"discriminator": Both(discriminator(), "dict")}, "the discriminator returns a dict"),
        (
            {
                "batch_size": 1,
                "discriminator": nn.Sequential(
                    nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)
                ),
            },
            "batch norm needs more than one image",
        ),
    ],
)
def test_the_usual_mistakes_are_named(tmp_path, changed, said):
    with pytest.raises(fastgan.FastganError, match=said):
        trainer(tmp_path / "run", **changed)
    assert not (tmp_path / "run").exists()


class Labelled(nn.Module):
    """D or G of three classes."""

    def __init__(self, net):
        super().__init__()
        self.net, self.embed = net, nn.Embedding(3, 1)

    def forward(self, x, label):
        return self.net(x + self.embed(label)[:, :, None, None])


def test_labels_that_an_embedding_does_not_have_are_named_though_rare(tmp_path):
    data = {"image": [(image, 7 if i == 8 else i % 3) for i, image in enumerate(images(count=9))]}
    with pytest.raises(fastgan.FastganError, match="knows fewer classes"):
        trainer(
            tmp_path / "run",
            nets={"G": Labelled(generator()), "D": Labelled(discriminator())},
            objective=fastgan.Adversarial(latent_shape=(4, 1, 1), conditional=True),
            data=data,
        )


def test_lazy_modules_get_their_parameters_before_the_run_begins(tmp_path):
    lazy = nn.Sequential(
        nn.LazyConv2d(4, 4, 2, 1), nn.LazyBatchNorm2d(), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4)
    )
    with trainer(tmp_path / "run", discriminator=lazy) as made:
        assert lazy[0].weight.shape == (4, 1, 4, 4)
        assert lazy[1].num_batches_tracked == 0
        made.fit(2)
    with trainer(tmp_path / "run", resume=True, discriminator=lazy) as made:
        assert made.step == 2


def test_a_dataset_that_changes_its_images_is_said_and_one_that_does_not_is_not(capfd):
    fixed = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images(count=9)]

    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 9

        def __getitem__(self, i):
            return (fixed[i] * torch.rand(())).clamp(0, 1)

    with trainer(data=Noisy()):
        assert "Noisy gives other images each time it is read" in capfd.readouterr().err
    with trainer(data=fixed):
        assert capfd.readouterr().err == ""


def test_a_network_of_the_program_itself_is_said(capfd):
    class Mine(nn.Sequential):
        __module__ = "__main__"

    with trainer(nets={"G": Mine(*generator()), "D": discriminator()}):
        assert "network G: class Mine stands in the program itself" in capfd.readouterr().err
