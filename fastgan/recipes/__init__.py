"""One file a GAN kind. A recipe is a dataclass of options with a `build`; this table names them
without importing torch."""

from __future__ import annotations

import difflib
import importlib

from fastgan.errors import FastganError
from fastgan.recipes.config import Config, ImageSpec, RecipeParts

RECIPES = {
    "gan": "fastgan.recipes.gan:Gan",
    "dcgan": "fastgan.recipes.dcgan:Dcgan",
    "cgan": "fastgan.recipes.cgan:Cgan",
    "sngan": "fastgan.recipes.sngan:Sngan",
    "fastgan": "fastgan.recipes.fastgan:Fastgan",
    "wgan-gp": "fastgan.recipes.wgan_gp:WganGp",
    "infogan": "fastgan.recipes.latent.infogan:InfoGan",
    "semi-supervised": "fastgan.recipes.latent.semi_supervised:SemiSupervisedGan",
    "r3gan": "fastgan.recipes.latent.r3gan:R3Gan",
    "stylegan2-small": "fastgan.recipes.latent.stylegan2:StyleGan2Small",
    "projected": "fastgan.recipes.latent.projected:Projected",
    "sagan": "fastgan.recipes.latent.sagan:Sagan",
    "biggan-small": "fastgan.recipes.latent.sagan:BigGanSmall",
    "progressive": "fastgan.recipes.latent.progressive:Progressive",
    "lapgan": "fastgan.recipes.latent.lapgan:Lapgan",
    "latent": "fastgan.recipes.latent.on_maps:Latent",
    "text-to-image": "fastgan.recipes.latent.text_to_image:TextToImage",
    "pix2pix": "fastgan.recipes.translation.pix2pix:Pix2Pix",
    "super-resolution": "fastgan.recipes.translation.super_resolution:SuperResolution",
    "inpainting": "fastgan.recipes.translation.inpainting:Inpaint",
    "cyclegan": "fastgan.recipes.translation.cyclegan:CycleGan",
    "astronomy": "fastgan.recipes.translation.astronomy:Astronomy",
    "segmentation": "fastgan.recipes.translation.segmentation:Segment",
    "video": "fastgan.recipes.translation.video:Video",
    "tabular": "fastgan.recipes.media.tabular:Tabular",
    "voice": "fastgan.recipes.media.voice:Voice",
    "molecule": "fastgan.recipes.media.molecule:Molecule",
    "aging": "fastgan.recipes.translation.aging:Aging",
}


def find(name: str) -> type[Config]:
    """The options class of a recipe. Raises FastganError naming the nearest."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1, 0.4)
        raise FastganError(
            f"unknown recipe {name!r}: {f'did you mean {near[0]!r}? ' if near else ''}there are "
            f"{', '.join(RECIPES)}"
        )
    module, _, cls = RECIPES[name].partition(":")
    return getattr(importlib.import_module(module), cls)


__all__ = ["RECIPES", "Config", "ImageSpec", "RecipeParts", "find"]
