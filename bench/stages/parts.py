"""What the first two calls on a GPU measure, in order of worth (:data:`PLAN`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Rows of a stage whose keys match a regular expression, and the seconds they may take
    together.

    prefetch: run for what the compilers leave in their caches; what was measured beside others is
        thrown away. again: known rows too, as long as their suite is not: it needs the caches.
    only: of a suite, these rows of its table.
    """

    stage: str
    rows: str
    seconds: float
    prefetch: bool = False
    again: bool = False
    only: tuple[str, ...] = ()


AUTO = (
    "batch_norm|instance_norm|moments|update_running|affine_act|adversarial|adam_ema|average"
    "|spectral|uniform|normal|images_gather|upsample|avg_pool|add_bias"
)
COMPILED = (
    "(batch_norm|spectral).* both . torch.compile",
    "(instance_norm|affine_act|moments|diffaugment|ada ).* both . torch.compile",
    "(adversarial|upsample|avg_pool|add_bias).* both . torch.compile",
    "(update|adam|average|uniform|normal|images).* torch.compile",
)
"""Rows of operators beside what a compiler makes of them, in as many processes."""
KINDS = {
    "dcgan": "--r1 5",
    "fastgan": "",
    "r3gan": "",
    "stylegan2-small": "",
    "sngan": "",
    "progressive": "--stage-steps 1500 --steps 1000000",
}
"""Options of the recipes that are compared on drawn landscapes: R1 is what dcgan is strongest with
on them."""
RIVALS = ("c", "f", "f2:nchw", "i")
"""The tuned loop, what PyTorch is fastest by, and ours."""
PLAN: tuple[tuple[Part, ...], ...] = (
    (Part("look", "ceilings", 15),),
    (  # compilers work, the GPU hardly: together
        Part("warm", "sngan-32-b64 f2:nchw", 110, again=True),
        Part("warm", "dcgan-64-b128 (f2|f3):nchw", 110, again=True),
        Part("warm", "(dcgan-64-b128|sngan-32-b64) i$", 110),
        Part("recipes", "lapgan|progressive|cyclegan|sagan|dcgan|gan$|text", 110),
        Part("recipes", "super|inpainting|astronomy|segmentation|fastgan|infogan|cgan", 110),
        Part("recipes", "video|aging|sngan|wgan|r3gan|pix2pix", 110),
        Part("recipes", "latent|semi|biggan|stylegan2|tabular|voice|molecule", 110),
        Part("verify", f"({AUTO}).* bf16|(upsample|avg_pool|affine_act|spectral).* fp32", 110),
        Part("verify", "conv2d bf16|conv_transpose2d bf16|diffaugment|ada ", 110),
    ),
    (Part("suites", "dcgan-64-b128$", 85, only=("a", *RIVALS, "f3:nchw", "i:whole")),),
    (Part("suites", "sngan-32-b64$", 75, only=(*RIVALS, "h:cudnn")),),
    (
        Part("verify", f"({AUTO}).* fp(16|32)", 70),
        Part("verify", "conv", 70),
        Part("recipes", "", 70),
        Part("commands", "resume dcgan", 70),
        Part("commands", "resume (sngan|r3gan)", 70),
    ),
    tuple(Part("kernels", rows, 60, prefetch=True) for rows in COMPILED),
    (Part("kernels", "|".join(COMPILED), 110),),
    tuple(Part("commands", f"landscapes {kind}$", 150) for kind in KINDS),
    (Part("warm", "dcgan-64-b16 (f2|f3):nchw", 70, again=True),),
    (Part("suites", "dcgan-64-b16$", 75, only=(*RIVALS, "f3:nchw")),),
    tuple(Part("same", f"seed {seed}", 90) for seed in range(5)),
    (Part("norm", "", 40),),
)
"""In order. A group takes as long as its longest part."""
