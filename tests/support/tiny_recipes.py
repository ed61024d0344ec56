"""What makes each recipe quick to try: one entry a recipe."""

TINY = {
    "gan": {"hidden_g": 8, "hidden_d": 8},
    "dcgan": {"base_width": 2, "latent": 8},
    "cgan": {"base_width": 2, "latent": 8},
    "sngan": {"width_g": 2, "width_d": 2, "latent": 8, "n_critic": 2},
    "wgan-gp": {"width": 2, "latent": 8, "n_critic": 2},
    "infogan": {"base_width": 2, "latent": 8},
    "semi-supervised": {"width": 2, "hidden": 8, "labels": 10},
    "r3gan": {"width": 4, "latent": 8, "group": 4},
    "stylegan2-small": {"width": 2, "most": 4, "latent": 8, "lazy_r1": 2, "lazy_path": 2},
    "projected": {"width": 1, "latent": 8, "heads": 4, "seen": 32, "size": 32},
    "sagan": {"width": 2, "latent": 8, "attention": 8},
    "biggan-small": {"width": 2, "latent": 8, "attention": 8, "n_critic": 1},
    "progressive": {"width": 2, "most": 4, "latent": 8, "stage_steps": 1},
    "lapgan": {"width": 2, "hidden": 8, "latent": 8},
    "latent": {"width": 4, "maps": 2, "latent": 8, "base": 4, "stage_steps": 1},
    "text-to-image": {"width": 2, "latent": 4, "features": 4},
    "fastgan": {"width": 1, "latent": 8, "size": 32},
}

MEDIA = {
    "tabular": {"width": 8, "latent": 4, "pack": 2},
    "voice": {"width": 1, "latent": 4, "length": 1024, "rate": 4000},
    "molecule": {"width": 8, "latent": 4, "width_d": 8},
}
"""Those that make no images."""


def tiny(name):
    """Options of a tiny run of a recipe from noise, without those of images."""
    return {**TINY, **MEDIA}[name]


def flags(name):
    """`tiny(name)` as they are typed."""
    return [f"--{key.replace('_', '-')}={value}" for key, value in tiny(name).items()]
