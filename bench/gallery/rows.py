"""The trainings of the gallery and what is read from them: a new kind is an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SMALL = "--size 16 --batch-size 32"
SMALL_64 = "--size 64 --batch-size 8 --ema-decay 0.99"
LATENT = f"{SMALL_64} --stage-steps 350 --steps 1300"
FASTGAN_64 = f"{SMALL_64} --width 4 --augment none"
R3GAN_64 = (
    "--recipe r3gan --data landscapes --size 64 --ema-decay 0.99 --width 8 --group 8 --lr 1e-3 "
    "--gamma 0.5"
)
STYLES_64 = (
    f"--recipe stylegan2-small --data landscapes {SMALL_64} --most 32 --path 0 --mixing 0 --r1 2.5 "
    "--lr 4e-3"
)
GROWING_64 = (
    "--recipe progressive --data landscapes --size 64 --batch-size 16 --ema-decay 0.99 --most 32 "
    "--lr 2e-3 --loss non-saturating --gp 0 --drift 0 --r1 5"
)
PROJECTED_64 = (
    "--recipe projected --data landscapes --size 64 --width 8 --seen 48 --lr 5e-4 --ema-decay 0.99"
)


def dcgan_64(data: str, steps: int, batch: int = 8) -> str:
    """Options of what the kinds for larger images are compared with."""
    shape = f"--size 64 --batch-size {batch} --ema-decay 0.99 --base-width 16"
    return f"--recipe dcgan --data {data} {shape} --r1 5 --steps {steps}"


LONGER: Mapping[str, str] = {
    "dcgan": dcgan_64("landscapes", 1650, batch=16),
    "fastgan": f"--recipe fastgan --data landscapes {FASTGAN_64} --steps 2000",
    "r3gan": f"{R3GAN_64} --batch-size 16 --steps 230",
    "progressive": f"{GROWING_64} --stage-steps 150 --steps 900",
    "stylegan2-small": f"{STYLES_64} --steps 750",
    "latent": f"--recipe latent --data landscapes {SMALL_64} --stage-steps 700 --steps 2600",
    "projected": f"{PROJECTED_64} --steps 200",
}
"""Options of three minutes by kind, seed 0 alone: places among kinds change with time."""

TRAININGS: Mapping[str, str] = {
    "dcgan": f"--recipe dcgan {SMALL} --base-width 32 --steps 3000",
    "cgan": f"--recipe cgan {SMALL} --base-width 32 --steps 2500",
    "cgan-long": f"--recipe cgan {SMALL} --base-width 32 --steps 5000",
    "gan": "--recipe gan --size 16 --hidden-g 256 --hidden-d 64 --batch-size 100 --steps 5000",
    "sngan": f"--recipe sngan {SMALL} --width-g 32 --width-d 32 --n-critic 1 --steps 1000",
    "wgan-gp": f"--recipe wgan-gp {SMALL} --width 32 --n-critic 2 --steps 500",
    "r3gan": f"{R3GAN_64} --batch-size 16 --steps 90",
    "r3gan-stacked": f"--recipe r3gan --data stacked {SMALL} --width 16 --group 16 --lr 1e-3 "
    "--gamma 0.5 --ema-decay 0.99 --steps 340",
    "dcgan-stacked": f"--recipe dcgan --data stacked {SMALL} --base-width 32 --steps 2500",
    "sagan": f"--recipe sagan {SMALL} --width 16 --attention 8 --lr-d 2e-3 --steps 1000",
    "biggan-small": f"--recipe biggan-small {SMALL} --width 16 --attention 8 --lr-g 1e-3 "
    "--lr-d 2e-3 --n-critic 1 --ema-decay 0.99 --steps 700",
    "stylegan2-small": f"{STYLES_64} --steps 355",
    "stylegan2-small-forms": "--recipe stylegan2-small --data forms --size 32 --batch-size 32 "
    "--ema-decay 0.99 --most 32 --path 0 --mixing 0 --r1 1 --lr 4e-3 --steps 400",
    "progressive": f"{GROWING_64} --stage-steps 45 --steps 270",
    "infogan": "--recipe infogan --steps 1500",
    "infogan-forms": "--recipe infogan --data forms --classes 4 --codes 4 --batch-size 64 "
    "--base-width 16 --steps 1000",
    "lapgan": "--recipe lapgan --width 16 --stage-steps 1500 --steps 4000 --lr 5e-4",
    "gan-32": "--recipe gan --size 32 --hidden-g 211 --hidden-d 31 --steps 9000",
    "semi-supervised": "--recipe semi-supervised --width 100 --hidden 250 --steps 4000",
    "semi-supervised-alone": "--recipe semi-supervised --width 100 --hidden 250 --steps 4000 "
    "--unlabelled 0",
    "text-to-image": "--recipe text-to-image --size 16 --lr-g 2e-4 --steps 2500",
    "fastgan": f"--recipe fastgan --data landscapes {FASTGAN_64} --steps 950",
    "fastgan-faces": f"--recipe fastgan --data faces {FASTGAN_64} --steps 950",
    **{
        f"{name}{'-alone' if alone else ''}": f"--recipe {name} --width 16 --steps {steps}"
        + (f" {alone}" if alone else "")
        for name, steps, without in (
            ("pix2pix", 1500, "--adversarial 0"),
            ("super-resolution", 1200, "--adversarial 0"),
            ("inpainting", 1500, "--adversarial 0"),
            ("astronomy", 1500, "--adversarial 0"),
            ("segmentation", 1200, "--adversarial 0"),
            ("video", 1500, "--adversarial 0 --gradients 0"),
        )
        for alone in ("", without)
    },
    "latent": f"--recipe latent --data landscapes {LATENT}",
    "latent-faces": f"--recipe latent --data faces {LATENT}",
    "dcgan-landscapes-64": dcgan_64("landscapes", 1130),
    "dcgan-faces-64": dcgan_64("faces", 1130),
    "projected": f"{PROJECTED_64} --steps 90",
    "tabular": "--recipe tabular --steps 1500",
    "voice": "--recipe voice --length 1024 --rate 4000 --batch-size 16 --steps 3000",
    "molecule": "--recipe molecule --steps 1200",
    "molecule-alone": "--recipe molecule --steps 1200 --adversarial 0",
    "cyclegan": "--recipe cyclegan --width 16 --steps 800",
    "aging": "--recipe aging --size 16 --width 16 --steps 800",
    **{f"longer-{kind}": options for kind, options in LONGER.items()},
}
"""Options of `fastgan train` by the name of the training; the seed and the folder are added."""


@dataclass(frozen=True)
class Rival:
    """What a kind has to beat: a number of another training (run), of the same evaluation (key
    alone), or one that is known without any (value). ceiling: what can be reached at best, shown
    beside it and not to be beaten. paired: of the same weights, data and labels at the start, or
    of the same run, so that each seed has to beat that seed."""

    label: str
    run: str | None = None
    key: str | None = None
    value: float | None = None
    ceiling: bool = False
    paired: bool = False


@dataclass(frozen=True)
class Measure:
    """One number of `fastgan evaluate --json`, by its path in there; the larger the better if
    `higher`. factor: for percent. run: where it isn't of the row's training."""

    label: str
    key: str
    rivals: tuple[Rival, ...] = ()
    higher: bool = False
    factor: float = 1.0
    run: str | None = None


@dataclass(frozen=True)
class Row:
    """A kind: its training, its measures, the first of which decides; what must be said with it."""

    kind: str
    run: str
    measures: tuple[Measure, ...]
    remark: str = ""


FD, CLOSE = "FD-small", "FD-patches"
SEPARABLE = "measures/separability of the class in"
GAUSSIAN = Rival("a Gaussian of the pixels", "gaussian")


def sets(kind: str, *rivals: Rival) -> Row:
    """A kind that is compared by FD-small."""
    return Row(kind, kind, (Measure(FD, FD, rivals),))


def on_landscapes(kind: str, *more: Measure) -> Row:
    """A kind for larger images, on painted landscapes of 64 pixels in at most dcgan's seconds."""
    rival = Rival("dcgan with R1", "dcgan-landscapes-64")
    flat = Rival("one flat colour", value=1)
    mine = (Measure(f"{FD}, landscapes", FD, (rival,)), Measure(CLOSE, CLOSE, (rival, flat)))
    return Row(kind, kind, (*mine, *more), "of about two minutes; [of three](#longer)")


def on_faces(run: str) -> Measure:
    """The same of drawn faces."""
    return Measure(f"{FD}, drawn faces", FD, (Rival("dcgan with R1", "dcgan-faces-64"),), run=run)


def found(name: str, key: str) -> Rival:
    """What needs no training, of the same evaluation."""
    return Rival(name, key=f"rows/{name}/{key}")


def generator(label: str, key: str, run: str, *more: Rival, higher: bool = True) -> Measure:
    """A number of a kind that makes images from images, beside the same network alone."""
    rivals = (Rival("the same network alone", f"{run}-alone", paired=True), *more)
    return Measure(label, f"rows/generator/{key}", rivals, higher)


def from_image(kind: str, *exact: tuple[str, str], free: tuple[str, ...] = ()) -> Row:
    """A kind that is for images that look real: the distance of patches decides, exactness
    stands beside it. free: what needs no training."""
    measures = [(CLOSE, CLOSE, False), *((*one, True) for one in exact)]
    return Row(
        kind,
        kind,
        tuple(
            generator(label, key, kind, *(found(name, key) for name in free), higher=higher)
            for label, key, higher in measures
        ),
    )


def named(label: str, run: str | None = None) -> Measure:
    """How wrong the code is that nobody labelled, beside clusters of the pixels."""
    rival = Rival("k-means on the pixels", key="measures/error of k-means")
    return Measure(label, "measures/error of the code", (rival,), factor=100, run=run)


def told(rival: Rival) -> Measure:
    """How often the class of an image is the one that was asked for."""
    reals = Rival("held-out reals", key="measures/the same of held-out reals", ceiling=True)
    key = "measures/samples of the class they were told (1000)"
    return Measure("class as told, %", key, (rival, reals), higher=True, factor=100)


CGAN = Rival("cgan", "cgan-long")


def of_classes(kind: str) -> Row:
    """A kind told its classes, beside cgan."""
    return Row(kind, kind, (Measure(FD, FD, (CGAN,)), told(CGAN)))


PSNR, SSIM = ("PSNR, dB", "PSNR dB"), ("SSIM", "SSIM")
DCGAN = (Rival("dcgan", "dcgan"),)

ROWS: tuple[Row, ...] = (
    sets("gan", GAUSSIAN),
    sets("dcgan", GAUSSIAN, Rival("gan", "gan")),
    Row("cgan", "cgan", (Measure(FD, FD, DCGAN), told(Rival("chance", value=10)))),
    sets("sngan", *DCGAN),
    sets("wgan-gp", *DCGAN),
    on_landscapes("fastgan", on_faces("fastgan-faces")),
    Row(
        "infogan",
        "infogan-forms",
        (
            Measure(
                "gap of the codes about the factors of drawn forms",
                "measures/gap of the codes",
                (Rival("principal components", key="measures/gap of principal components"),),
                True,
            ),
            named("its class as the form, error %"),
            named("on Fashion-MNIST, error %", "infogan"),
        ),
    ),
    Row(
        "semi-supervised",
        "semi-supervised",
        (
            Measure(
                "error with 100 labels, %",
                "measures/error on 2000 held-out images",
                (Rival("the labels alone", "semi-supervised-alone", paired=True),),
                factor=100,
            ),
        ),
    ),
    on_landscapes(
        "r3gan",
        Measure(
            "modes of 1,000, of three clothes each",
            "measures/modes in 10000 samples",
            (
                Rival("dcgan", "dcgan-stacked"),
                Rival("held-out reals", key="measures/modes in 10000 reals", ceiling=True),
            ),
            higher=True,
            run="r3gan-stacked",
        ),
    ),
    of_classes("sagan"),
    of_classes("biggan-small"),
    on_landscapes("progressive"),
    on_landscapes(
        "stylegan2-small",
        Measure(
            "path length in w",
            "measures/path length in w",
            (Rival("in z", key="measures/path length in z", paired=True),),
        ),
        Measure(
            "separability of a drawn form in w",
            f"{SEPARABLE} w",
            (
                Rival("in z", key=f"{SEPARABLE} z", paired=True),
                Rival("in shuffled w", key=f"{SEPARABLE} shuffled w", paired=True),
            ),
            run="stylegan2-small-forms",
        ),
    ),
    on_landscapes("latent", on_faces("latent-faces")),
    on_landscapes("projected"),
    Row("lapgan", "lapgan", (Measure(FD, FD, (Rival("a gan of more parameters", "gan-32"),)),)),
    Row(
        "text-to-image",
        "text-to-image",
        (
            Measure(
                "R-precision, 1 of 48, %",
                "measures/R-precision of samples, 1 of 48",
                (
                    Rival("chance", value=100 / 48),
                    Rival(
                        "held-out reals", key="measures/R-precision of held-out reals", ceiling=True
                    ),
                ),
                True,
                100,
            ),
        ),
    ),
    from_image("pix2pix", PSNR, SSIM),
    from_image("super-resolution", PSNR, SSIM, free=("bicubic",)),
    from_image("inpainting", ("PSNR in the hole, dB", "PSNR in it, dB"), free=("harmonic fill",)),
    from_image("astronomy", PSNR, SSIM, free=("smoothed by 1 pixel", "Richardson-Lucy, 5")),
    Row("segmentation", "segmentation", (generator("mean IoU", "mean IoU", "segmentation"),)),
    Row(
        "video",
        "video",
        (
            generator("SSIM at t+1", "SSIM t+1", "video", found("repeat the last", "SSIM t+1")),
            generator("FD-patches at t+10", "FD t+10", "video", higher=False),
            generator("PSNR at t+1, dB", "PSNR t+1", "video", found("repeat the last", "PSNR t+1")),
        ),
        "a repeated frame is a real one, so that its patches say nothing",
    ),
    Row(
        "tabular",
        "tabular",
        (
            Measure(
                "accuracy of a classifier fitted to generated rows, %",
                "from generator/accuracy",
                tuple(
                    Rival(name, key=f"from {name}/accuracy", ceiling=name == "real rows")
                    for name in ("independent columns", "Gaussian copula", "real rows")
                ),
                True,
                100,
            ),
        ),
    ),
    Row(
        "voice",
        "voice",
        (
            Measure(
                "FD-mel",
                "rows/generator/FD-mel",
                (
                    found("noise of their spectrum", "FD-mel"),
                    found("untrained generator", "FD-mel"),
                ),
            ),
        ),
    ),
    Row(
        "molecule",
        "molecule",
        (
            Measure(
                "valid, different and new, % of strings",
                "rows/generator/good %",
                (
                    Rival("the likelihood alone", "molecule-alone", paired=True),
                    found("symbols one by one", "good %"),
                    found("5-gram", "good %"),
                ),
                True,
            ),
        ),
    ),
    Row(
        "cyclegan",
        "cyclegan",
        (
            Measure(
                "PSNR to the known map, dB",
                "rows/generator/PSNR dB",
                (Rival("source as it is", key="rows/source as it is/PSNR dB"),),
                True,
            ),
        ),
    ),
    Row(
        "aging",
        "aging",
        (
            Measure(
                "age reached", "rows/generator/age reached", (Rival("chance", value=0.2),), True
            ),
            Measure(
                "identity kept",
                "rows/generator/identity kept",
                (Rival("input as it is", key="rows/input as it is/identity kept"),),
                True,
            ),
        ),
    ),
)
