"""The kernels of normalisation: layouts, tiles of every candidate, parts of a sum."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from interpreter_child import compiled, interpreted, parent, run_child
from norm_checks import channels_last, close, run, wide
from torch import nn

from fastgan.kernels import tuning
from fastgan.kernels.norm import backward as backward_kernels
from fastgan.kernels.norm import backward_sums
from fastgan.kernels.norm import forward as forward_kernels
from fastgan.kernels.norm import moments as forward_kernels_moments
from fastgan.kernels.norm.moments import moments_backward
from fastgan.ops.norm import apply, handed_on, moments
from fastgan.ops.norm import functional as norm
from fastgan.ops.norm import train as norm_autograd
from fastgan.verify.cases import norm_launches

HERE = Path(__file__).parent


@parent
@pytest.mark.slow
@pytest.mark.parametrize("which", ["not slow", "slow"])
def test_kernels_in_the_interpreter(which):
    """Every file of this folder again, where impl="auto" means the kernels."""
    run_child("-m", which, HERE)


@interpreted
def test_any_layout_gives_the_same_bits():
    x = torch.randn(3, 5, 4, 6)
    expected = norm.batch_norm(
        channels_last(x), None, None, training=True, activation="relu", impl="triton"
    )
    wide = torch.randn(3, 5, 4, 12)
    wide[..., ::2] = x
    for other in (x, wide[..., ::2], x.transpose(2, 3).contiguous().transpose(2, 3)):
        z = norm.batch_norm(other, None, None, training=True, activation="relu", impl="triton")
        assert torch.equal(z, expected)
        assert z.is_contiguous(memory_format=torch.channels_last)


IN_PLACE = {
    "batch_norm": lambda x, w, b, impl: norm.batch_norm(x, None, None, w, b, True, impl=impl),
    "batch_norm eval": lambda x, w, b, impl: norm.batch_norm(
        x, w.detach() * 0, w.detach() * 0 + 1, w, b, impl=impl
    ),
    "instance_norm": lambda x, w, b, impl: norm.instance_norm(x, None, None, w, b, impl=impl),
    "affine_act": lambda x, w, b, impl: handed_on.affine_act(x, w, b, impl=impl),
}


@interpreted
@pytest.mark.parametrize("op", IN_PLACE)
@pytest.mark.parametrize(
    "layout", [channels_last, torch.Tensor.contiguous], ids=["channels_last", "contiguous"]
)
@pytest.mark.parametrize(
    "follow",
    [nn.ReLU(True), nn.LeakyReLU(0.2, True), lambda z: z.mul_(2)],
    ids=["relu", "leaky_relu", "mul"],
)
def test_what_follows_may_write_over_the_output(op, layout, follow):
    """No op returns a view: autograd forbids writing in place over one that a Function returned."""
    torch.manual_seed(0)
    x, w, b = layout(torch.randn(2, 3, 5, 4)), torch.rand(3) + 0.5, torch.randn(3)

    def call(x, w, b):
        z = IN_PLACE[op](x, w, b, "triton")
        assert z._base is None
        assert follow(z) is z
        return z

    def reference(x, w, b):
        return follow(IN_PLACE[op](x, w, b, "reference").clone())

    for a, r in zip(run(call, [x, w, b]), run(reference, wide(x, w, b)), strict=True):
        close(a, r, 2e-5)


@interpreted
@pytest.mark.parametrize("ratio", [0.0, 30.0, 100.0])
def test_variance_survives_a_large_mean(ratio):
    x = channels_last(
        torch.randn(4, 33, 13, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        + ratio
    ).float()
    mean, var = handed_on.moments(x)
    wide = x.double().transpose(0, 1).flatten(1)
    assert ((var[0] - wide.var(1, correction=0)).abs() / wide.var(1, correction=0)).max() < 2e-6
    assert ((mean[0] - wide.mean(1)).abs() / wide.std(1)).max() < 1e-7 * (1 + ratio)


@interpreted
def test_an_outlying_first_row_does_not_spoil_the_variance():
    """The pivot is a sample; where it lies far off, Welford's recurrence must still hold."""
    x = torch.randn(600, 5, generator=torch.Generator().manual_seed(4))
    x[0] = 1000.0
    for limit in (0, 2048):
        with tuning.override({"norm_one_launch": {"MAX_ROWS": limit}}):
            z = norm.batch_norm(x, None, None, training=True)
        close(z.double(), F.batch_norm(x.double(), None, None, training=True), 2e-5)


def kernel_alone(name, x, w, b, dz):
    """What the kernels that are configured under `name` compute, and the same in float64."""
    stats = torch.stack(handed_on.moments(x, 2, impl="reference"))
    mean, var = stats.unbind(0)
    wide_x = x.double().requires_grad_()
    ends = [t.double().requires_grad_() for t in (w, b)]
    each = lambda v: v.double()[:, :, None, None]  # a group is one sample here
    normed = (wide_x - each(mean)) * (each(var) + 1e-5).rsqrt()
    gold = torch.tanh(normed * ends[0][:, None, None] + ends[1][:, None, None])
    if name == "norm_moments":
        return [forward_kernels_moments.moments(x, 2)], [
            torch.stack(handed_on.moments(x.double(), 2, impl="reference"))
        ]
    if name == "norm_apply":
        return [forward_kernels.apply(x, w, b, mean, var, 1e-5, "tanh", 0.2)], [gold]
    if name in ("norm_backward_once", "norm_reduce"):
        once = name == "norm_backward_once"
        dx, sums = backward_sums.reduce(dz, x, w, b, mean, var, 1e-5, "tanh", 0.2, once)
        first = torch.autograd.grad(gold, [*ends, wide_x], dz.double())
        return [sums[:, 1].sum(0), sums[:, 0].sum(0), *([dx] if once else [])], first[
            : 3 if once else 2
        ]
    if name == "norm_moments_dx":
        d = torch.linspace(-1, 1, stats.numel()).view_as(stats)
        out = torch.stack(handed_on.moments(wide_x, 2, impl="reference"))
        return [moments_backward(None, x, stats, d)], torch.autograd.grad(out, wide_x, d.double())
    both = lambda x, w, b: norm.batch_norm(x, None, None, w, b, True, activation="tanh", groups=2)
    if name == "norm_dx":
        _, sums = backward_sums.reduce(dz, x, w, b, mean, var, 1e-5, "tanh", 0.2, False)
        dx = backward_kernels.dx(dz, x, w, b, mean, var, sums, 1e-5, "tanh", 0.2)
        return [dx], torch.autograd.grad(both(wide_x, *ends), wide_x, dz.double())
    backward = name != "norm_segment_forward"
    whole = lambda tensors: run(both, tensors, 1) if backward else [both(*tensors)]
    return whole([x, w, b]), whole(wide(x, w, b))


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("name", norm_launches.TUNED)
def test_every_candidate_configuration_is_right(name):
    torch.manual_seed(0)
    x, dz = (channels_last(torch.randn(2, 33, 9, 11) + 1) for _ in range(2))
    w, b = torch.rand(33) + 0.5, torch.randn(33)
    short = "segment" in name or name == "norm_one_launch"
    for config in norm_launches.TUNED[name]:
        with tuning.override(
            {name: config} if short else {name: config, "norm_one_launch": {"MAX_ROWS": 0}}
        ):
            mine, gold = kernel_alone(name, x, w, b, dz)
        for a, r in zip(mine, gold, strict=True):
            close(a, r, 3e-6)


@interpreted
def test_two_runs_give_the_same_bits():
    torch.manual_seed(0)
    x, w, b = channels_last(torch.randn(2, 17, 33, 34)), torch.rand(17), torch.randn(17)
    runs = [
        run(
            lambda *t: norm.batch_norm(t[0], None, None, *t[1:], True, activation="relu"),
            [x, w, b],
            1,
        )
        for _ in range(2)
    ]
    assert all(torch.equal(a, c) for a, c in zip(*runs, strict=True))


@interpreted
@pytest.mark.slow
def test_registered_ops_pass_opcheck():
    torch.manual_seed(0)
    x, dz = (channels_last(torch.randn(4, 3, 5, 6)).requires_grad_() for _ in range(2))
    w, b = (torch.rand(3, requires_grad=True) for _ in range(2))
    mean, var = torch.randn(3), torch.rand(3) + 0.5
    _, stats = norm_autograd.norm_train(x.detach(), None, None, 2, 1e-5, "silu", 0.2)
    dstats = torch.randn(2, 2, 3, requires_grad=True)
    for op, args in (
        (norm_autograd.norm_train, (x, w, b, 2, 1e-5, "silu", 0.2)),
        (norm_autograd.norm_train_backward, (dz, x, w, b, stats, 1e-5, "silu", 0.2)),
        (apply.norm_apply, (x, w, None, mean, var, 1e-5, "tanh", 0.2)),
        (apply.norm_apply_backward, (dz, x, w, b, mean, var, 1e-5, "silu", 0.2, True, True)),
        (apply.norm_apply_backward, (dz, x, w, b, None, None, 0.0, "silu", 0.2, True, False)),
        (moments.norm_moments, (x, 2)),
        (moments.norm_moments_backward, (x, stats, dstats)),
        (
            moments.norm_running,
            (
                [torch.rand(3)],
                [torch.rand(3)],
                [torch.tensor(2)],
                [torch.rand(2, 2, 3)],
                [10],
                [-1.0],
            ),
        ),
    ):
        # tracing with symbolic sizes costs seconds an op: the two that training uses stand for all
        traced = op in (norm_autograd.norm_train, moments.norm_moments_backward)
        utils = (
            "test_schema",
            "test_autograd_registration",
            "test_faketensor",
            *(("test_aot_dispatch_dynamic",) if traced else ()),
        )
        torch.library.opcheck(op, args, test_utils=utils)


@compiled
def test_running_statistics_are_seen_by_the_next_segment():
    """Between the stores of one segment's statistics and the loads of the next's stands a
    barrier."""
    from triton import compile as build
    from triton.backends.compiler import GPUTarget

    from fastgan.verify import aot, registry

    registry.load(["norm"])
    variant = next(
        v for v in registry.ops("batch_norm")[0].kernels() if v.name == "one launch leaky_relu fp32"
    )
    source, options = aot.source_of(variant, variant.configs[0])
    text = build(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ttir"]
    loop = text[text.index("scf.for %segment") :]
    stored = loop.index("tt.store %old_var")
    assert "barrier" in loop[stored : loop.index("tt.store", stored + 1)]


@compiled
@pytest.mark.parametrize("name", ["merge moments", "merge sums", "apply", "dx"])
def test_a_chained_kernel_waits_before_it_writes_or_reads_what_the_last_one_made(name):
    """In the machine's order: the wait stands before every store, and before the loads of parts,
    statistics or sums, of which there are some behind it."""
    from triton import compile as build
    from triton.backends.compiler import GPUTarget

    from fastgan.verify import aot, registry

    registry.load(["norm"])
    found = [
        v
        for v in registry.ops("batch_norm")[0].kernels()
        if v.name.startswith(name) and v.name.endswith("chained")
    ]
    assert {v.least for v in found} == {90}
    source, options = aot.source_of(found[0], found[0].configs[0])
    ptx = build(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    before, after = ptx.split("griddepcontrol.wait")
    assert "st.global" not in before
    assert "ld.global" in after
    if name.startswith("merge"):
        assert "ld.global" not in before
        assert "griddepcontrol.launch_dependents" in before
    else:
        assert "ld.global" in before


@interpreted
@pytest.mark.parametrize(("rows", "groups"), [(528, 1), (272, 2), (50, 2)])
def test_parts_of_several_programs_are_merged(rows, groups):
    """33 parts, 17 for each of two segments, and few."""
    small = {"BLOCK_R": 4, "BLOCK_C": 4, "num_warps": 1, "num_stages": 1}
    torch.manual_seed(0)
    x, dz = (channels_last(torch.randn(groups, 3, rows, 1) + 3.0) for _ in range(2))
    running, tracked = (torch.zeros(3), torch.ones(3)), torch.tensor(0)
    once = {"norm_one_launch": {"MAX_ROWS": 0}}
    with tuning.override({**once, "norm_moments": small, "norm_reduce": small}):
        for _ in range(2):
            stats = forward_kernels_moments.moments(x, groups, running, tracked, 0.5)
            _, sums = backward_sums.reduce(
                dz, x, None, None, *stats.unbind(0), 1e-5, "identity", 0.0, False
            )
    wide = x.double()
    mean, var = wide.mean((2, 3)), wide.var((2, 3), correction=0)
    close(stats[0].double(), mean, 1e-6)
    close(stats[1].double(), var, 1e-6)
    xhat = (wide - mean[:, :, None, None]) / (var + 1e-5).sqrt()[:, :, None, None]
    # some hundred terms of size 3 that cancel to 40: fp32's rounding of the terms
    close(sums[:, 0].double(), dz.double().sum((2, 3)), 5e-5)
    close(sums[:, 1].double(), (dz.double() * xhat).sum((2, 3)), 5e-5)
    want_mean, want_var = torch.zeros(3).double(), torch.ones(3).double()
    for _ in range(2):
        for group in range(groups):
            want_mean = (want_mean + mean[group]) / 2
            want_var = (want_var + var[group] * rows / (rows - 1)) / 2
    close(running[0].double(), want_mean, 1e-6)
    close(running[1].double(), want_var, 1e-6)
    assert tracked == 2 * groups
