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
    "wgan-gp": "fastgan.recipes.wgan_gp:WganGp",
    "infogan": "fastgan.recipes.infogan:InfoGan",
    "semi-supervised": "fastgan.recipes.semi_supervised:SemiSupervisedGan",
    "r3gan": "fastgan.recipes.r3gan:R3Gan",
    "sagan": "fastgan.recipes.sagan:Sagan",
    "biggan-small": "fastgan.recipes.sagan:BigGanSmall",
    "progressive": "fastgan.recipes.progressive:Progressive",
    "lapgan": "fastgan.recipes.lapgan:Lapgan",
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
