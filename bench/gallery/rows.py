"""What is read from the gallery's trainings, and beside what: a kind is a row."""

from __future__ import annotations

from dataclasses import dataclass


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
WITHIN = Measure("KD within classes", "measures/KD-small within classes", (CGAN,))
"""How far the images of a class are from reals of it."""


def of_classes(kind: str, *more: Measure) -> Row:
    """A kind told its classes, beside cgan."""
    return Row(kind, kind, (Measure(FD, FD, (CGAN,)), told(CGAN), *more))


def follows(word: str, how: str) -> Measure:
    """How often a judge sees what a caption says, or prefers it to one with another such word."""
    key = f"measures/{word} {how}"
    reals = Rival("held-out reals", key=f"{key}, held-out reals", ceiling=True)
    chance = Rival("chance", key=f"{key}, chance")
    label = (
        f"{word} as told, %" if how == "as told" else f"own caption before one of another {word}, %"
    )
    return Measure(label, f"{key}, samples", (chance, reals), True, 100)


def aged(label: str, other: Rival) -> Measure:
    """A measure of faces made older or younger, beside the same run without its identity term."""
    alone = Rival("without the identity term", "aging-alone", paired=True)
    return Measure(label, f"rows/generator/{label}", (alone, other), True)


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
                (
                    Rival("the labels alone", "semi-supervised-alone", paired=True),
                    Rival("these moved about", "semi-supervised-shifted", paired=True),
                ),
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
    of_classes("sagan", WITHIN),
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
            *(follows(name, "as told") for name in ("colour", "size", "form")),
            follows("colour", "swapped"),
        ),
    ),
    from_image("pix2pix", PSNR, SSIM),
    from_image("super-resolution", PSNR, SSIM, free=("bicubic",)),
    from_image(
        "inpainting",
        ("PSNR in the hole, dB", "PSNR in it, dB"),
        free=("harmonic fill", "biharmonic fill"),
    ),
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
            aged("identity kept", found("input as it is", "identity kept")),
            aged("age reached", Rival("chance", value=0.2)),
        ),
    ),
)
