"""The table of losses: every list of losses reads it, `verify --quick` proves what stands in it,
and nobody guesses a name."""

import pytest
import torch

from fastgan import objectives, recipes
from fastgan.errors import FastganError
from fastgan.kernels import loss as kernels
from fastgan.kernels.common import INTERPRET, has_triton, triton
from fastgan.monitor.health import LIMITS
from fastgan.ops.loss_table import LOSSES
from fastgan.verify import registry


def test_the_lists_are_the_table():
    assert list(objectives.LOSSES) == list(LOSSES)
    assert all(row.outputs in LIMITS for row in LOSSES.values())
    for name in ("dcgan", "sngan"):
        assert list(recipes.find(name).__dataclass_fields__["loss"].metadata["choices"]) == list(
            LOSSES
        )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("side", ["d", "g"])
def test_quick_proves_every_row_because_it_stands_in_the_table(name, side):
    op = registry.load()["adversarial"]
    draw = lambda case: case.make(
        torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0)
    )
    cases = [
        c
        for c in op.cases
        if "quick" in c.tags and (draw(c)["kind"], draw(c)["side"]) == (name, side)
    ]
    assert {d for case in cases for d in case.directions or op.directions} == {
        "forward",
        "backward",
        "double",
    }


def test_an_unknown_name_is_refused():
    with pytest.raises(FastganError, match="unknown loss 'hings'"):
        objectives.Adversarial("hings")


@pytest.mark.skipif(not has_triton or INTERPRET, reason="needs Triton's compiler")
@pytest.mark.parametrize("side", ["d", "g"])
def test_the_kernel_refuses_an_unknown_name_when_it_is_compiled(side):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, CompilationError

    def build(name):
        kernel = kernels.adversarial_kernel
        fixed = {
            "rows_ptr": None,
            "KIND": name,
            "D": side == "d",
            "HAS_REAL": True,
            "REAL_GRAD": True,
            "ONE": True,
            "BLOCK": 16,
        }
        signature = {
            n: "i32" if n in ("n_real", "n_fake", "span") else "*fp32" for n in kernel.arg_names
        }
        source = ASTSource(
            fn=kernel, signature=signature | dict.fromkeys(fixed, "constexpr"), constexprs=fixed
        )
        triton.compile(source, target=GPUTarget("cuda", 90, 32))

    build("hinge")
    with pytest.raises(CompilationError):
        build("hings")
