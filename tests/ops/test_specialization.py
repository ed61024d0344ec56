"""Integer arguments equal to 1 become compile-time constants in a real launch, and neither the
interpreter nor the compile report tries that: every kernel must compile that way too.
"""

import pytest

from fastgan.kernels.common import INTERPRET, has_triton, triton
from fastgan.verify import aot, registry

FAMILIES = ("loss", "adam", "average", "random", "images", "augment", "resample")
pytestmark = pytest.mark.skipif(INTERPRET or not has_triton, reason="needs Triton's compiler")


@pytest.mark.parametrize(
    "name",
    ["adversarial", "adam_ema", "normal", "images_gather_random_flip", "diffaugment", "upsample2"],
)
def test_compiles_with_every_size_equal_to_one(name):
    from triton.backends.compiler import GPUTarget

    registry.load(FAMILIES)
    seen = set()
    for variant in registry.ops(name)[0].kernels():
        if variant.kernel in seen:
            continue
        seen.add(variant.kernel)
        kept = {p.name for p in variant.kernel.params if p.do_not_specialize}
        ones = {n: 1 for n, kind in variant.signature.items() if kind == "i32" and n not in kept}
        assert ones or kept
        signature = {n: kind for n, kind in variant.signature.items() if n not in ones}
        one = registry.Variant(
            variant.name, variant.kernel, signature, {**variant.constexprs, **ones}, aligned=()
        )
        source, options = aot.source_of(one, variant.configs[0])
        assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm[
            "cubin"
        ]
