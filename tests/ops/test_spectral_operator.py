"""The operator behind spectral norm: sigmas of many weights in a few launches, against float64."""

import pytest
import torch
import torch.nn.functional as F
from interpreter_child import compiled, interpreted, parent, run_child
from spectral_support import close

from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels.spectral import launch as kernels
from fastgan.ops.spectral import functional as spectral
from fastgan.ops.spectral import reference
from fastgan.ops.spectral import weights as weights_op


@parent
@pytest.mark.slow
def test_kernels_in_the_interpreter():
    run_child(__file__)


def layers(
    generator,
    shapes=((17, 33), (5, 3, 3, 3), (6, 4, 2, 2), (1, 70), (130, 2), (5, 4, 3)),
    dims=(0, 0, 1, 0, 0, 0),
):
    weights = [torch.randn(s, generator=generator) for s in shapes]
    weights[2] = weights[2].contiguous(memory_format=torch.channels_last)
    vs = [
        F.normalize(torch.randn(reference.as_matrix(w, d).shape[1], generator=generator), dim=0)
        for w, d in zip(weights, dims)
    ]
    us = [F.normalize(reference.as_matrix(w, d) @ v, dim=0) for w, d, v in zip(weights, dims, vs)]
    return weights, us, vs, list(dims)


@pytest.mark.parametrize("v_first", [False, True])
@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_sigma_against_float64(iterations, v_first):
    weights, us, vs, dims = layers(torch.Generator().manual_seed(0))
    wide = [[t.double() for t in some] for some in (weights, us, vs)]
    sigma = spectral.spectral_sigma(
        weights, us, vs, dims, n_power_iterations=iterations, v_first=v_first, groups=2
    )
    gold = reference.spectral_sigma_reference(
        *wide, dims, iterations, 1e-12, v_first, 2 if iterations else 1
    ).expand(2, -1)
    close(sigma, gold, 1e-6)
    for a, b in zip(us + vs, wide[1] + wide[2]):
        close(a, b, 2e-6)


def test_gradcheck_of_the_reference():
    weights, us, vs, dims = small()
    call = lambda *w: spectral.spectral_sigma(
        w, [u.clone() for u in us], [v.clone() for v in vs], dims, n_power_iterations=0
    )
    leaves = [w.double().requires_grad_() for w in weights]
    us, vs = [u.double() for u in us], [v.double() for v in vs]
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(lambda *w: call(*w) ** 2, leaves)


def small():
    weights = [torch.randn(3, 2), torch.randn(2, 3, 2)]
    dims = [0, 1]
    us = [F.normalize(torch.randn(3), dim=0) for _ in dims]
    vs = [
        F.normalize(torch.randn(reference.as_matrix(w, d).shape[1]), dim=0)
        for w, d in zip(weights, dims)
    ]
    return weights, us, vs, dims


@interpreted
@pytest.mark.parametrize("iterations", [1, 2])
@pytest.mark.parametrize("count", [1, 5])
def test_launches_do_not_grow_with_the_network(monkeypatch, iterations, count):
    launches = []
    for name in (
        "row_product_kernel",
        "column_product_kernel",
        "finish_kernel",
        "outer_kernel",
        "normalise_kernel",
        "overlap_kernel",
        "weight_gradient_kernel",
    ):
        kernel = getattr(kernels, name)
        counted = type(
            "Counted",
            (),
            {"__getitem__": lambda self, grid, k=kernel, n=name: launches.append(n) or k[grid]},
        )
        monkeypatch.setattr(kernels, name, counted())
    weights = [torch.randn(4, 3, requires_grad=True) for _ in range(count)]
    us, vs = (
        [F.normalize(torch.randn(4), dim=0) for _ in weights],
        [F.normalize(torch.randn(3), dim=0) for _ in weights],
    )
    sigma = spectral.spectral_sigma(weights, us, vs, n_power_iterations=iterations, impl="triton")
    assert len(launches) == 2 * iterations + 1
    sigma.sum().backward()
    assert len(launches) == 2 * iterations + 2
    launches.clear()
    made = weights_op.spectral_weights(weights, us, vs, n_power_iterations=iterations)
    assert len(launches) == 2 * iterations + 2
    sum(weight.sum() for weight in made).backward()
    assert len(launches) == 2 * iterations + 4


@interpreted
def test_two_runs_give_the_same_bits_and_every_configuration_is_right():
    weights, us, vs, dims = layers(torch.Generator().manual_seed(2))
    fresh = lambda: ([u.clone() for u in us], [v.clone() for v in vs])
    runs = [spectral.spectral_sigma(weights, *fresh(), dims, impl="triton") for _ in range(2)]
    assert torch.equal(*runs)
    for config in kernels.CANDIDATES[1:]:
        with tuning.override({"spectral": config}):
            close(spectral.spectral_sigma(weights, *fresh(), dims, impl="triton"), runs[0], 1e-6)


@interpreted
def test_other_strides_and_types_fall_back_with_a_reason():
    from fastgan.ops.dispatch import why

    odd = torch.randn(4, 3, 4, 4)[:, :, ::2, 1:].transpose(2, 3)
    spectral.spectral_sigma(
        [odd],
        [F.normalize(torch.randn(4), dim=0)],
        [F.normalize(torch.randn(odd[0].numel()), dim=0)],
    )
    assert "channels_last" in why("spectral_sigma")
    half = [torch.randn(4, 3).half()]
    with pytest.raises(FastganError, match="fp32"):
        spectral.spectral_sigma(half, [torch.ones(4).half()], [torch.ones(3).half()], impl="triton")


@interpreted
def test_registered_ops_pass_opcheck():
    weights = [torch.randn(5, 7, requires_grad=True), torch.randn(4, 3, 2, 2, requires_grad=True)]
    detached = [w.detach() for w in weights]
    us, vs = [torch.rand(5), torch.rand(4)], [torch.rand(7), torch.rand(12)]
    torch.library.opcheck(spectral.spectral_power, (detached, us, vs, [0, 0], 1, 1e-12, False, 2))
    sigma, unit_u, unit_v = spectral.spectral_power(detached, us, vs, [0, 0], 1, 1e-12, False, 2)
    torch.library.opcheck(spectral._sigma_op, (weights, sigma, unit_u, unit_v, [0, 0]))
    torch.library.opcheck(
        spectral.spectral_outer,
        (torch.randn(2, 2, requires_grad=True), unit_u, unit_v, detached, [0, 0]),
    )


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 90])
def test_kernels_with_pointer_tuples_compile_without_spills(arch):
    """Ahead of time, without a GPU: registers that do not suffice show as a stack frame."""
    from triton import compile as build
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastgan.kernels.norm import running as norm_running
    from fastgan.verify.aot import resources
    from fastgan.verify.cases.spectral import variants, weight_variants
    from fastgan.verify.registry import Variant

    many = ("*fp32",) * 4
    running = Variant(
        "running statistics",
        norm_running.running_kernel,
        {
            "stats_ptrs": many,
            "mean_ptrs": many,
            "var_ptrs": many,
            "tracked_ptrs": ("*i64",) * 4,
            "sizes_ptr": "*i32",
            "momenta_ptr": "*fp32",
        },
        {"LAYERS": 4, "TRACKED": True, "BLOCK_C": 1024},
    )
    for variant in (*variants(), *weight_variants()[:6], running):
        for config in variant.configs:
            names = variant.kernel.arg_names
            options = {k: v for k, v in config.items() if k not in names}
            constexprs = {**variant.constexprs, **{k: v for k, v in config.items() if k in names}}
            signature = {n: variant.signature.get(n, "constexpr") for n in names}
            source = ASTSource(fn=variant.kernel, signature=signature, constexprs=constexprs)
            built = build(source, target=GPUTarget("cuda", arch, 32), options=options)
            assert resources(built.asm["cubin"], built.asm["ptx"])[1] == 0, (variant.name, config)
