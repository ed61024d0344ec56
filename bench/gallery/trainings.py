"""Options of the gallery's trainings: a new kind is an entry here, and a row in `rows`."""

from __future__ import annotations

from collections.abc import Mapping

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
FEW_LABELS = "--recipe semi-supervised --width 100 --hidden 250 --steps 4000"
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
    **{
        f"semi-supervised{name}": f"{FEW_LABELS}{arm}"
        for name, arm in (
            ("", ""),
            ("-alone", " --unlabelled 0"),
            ("-shifted", " --unlabelled 0 --augment translation"),
        )
    },
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
    "aging-alone": "--recipe aging --size 16 --width 16 --steps 800 --identity 0",
    **{f"longer-{kind}": options for kind, options in LONGER.items()},
}
"""Options of `fastgan train` by the name of the training; the seed and the folder are added."""
