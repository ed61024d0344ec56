"""What a step launches, counted without a GPU: pinned for recipes and suites, and what the counter
itself must get right."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

pytest.importorskip("triton")

from fastgan.bench import launches
from fastgan.bench.experiments import pages
from fastgan.bench.fake_gpu import FakeGpu
from fastgan.cli.measuring.bench import command
from fastgan.errors import FastganError

PINNED = json.loads((Path(__file__).parents[1] / "fixtures" / "launches.json").read_text())
UPDATE = "fastgan bench --launches all --json tests/fixtures/launches.json"
LONG = (
    "sngan",
    "wgan-gp",
    "sngan-32-b64",
    "wgan-gp-32-b64",
)  # five updates of deep networks: seconds each


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in launches.names()]
)
def test_counts_are_as_pinned(name):
    rows = launches.table(launches.record(name)[0])
    assert launches.counts(rows) == PINNED[name], (
        f"the launches of {name} changed; where that is meant: {UPDATE}"
    )


@pytest.mark.parametrize("page", pages.PAGES)
def test_pages_hold_the_tables_that_the_command_makes(page):
    text = (pages.DOCS / page).read_text("utf-8")
    assert pages.filled(text, pages.PAGES[page]) == text, pages.__doc__


def noted_of(function, *shapes):
    """The launches of function(*tensors of these shapes)."""
    recorder = launches.Recorder()
    with FakeGpu(recorder):
        given = [torch.empty(shape, device="cuda") for shape in shapes]
        recorder.on = True
        function(*given)
    return [(launch.what, launch.bytes, launch.flops) for launch in recorder.launches]


def test_operators_launch_what_they_do_on_a_gpu():
    assert noted_of(lambda x: x.view(-1).t()[:2].detach(), (4, 4)) == []
    assert noted_of(lambda x: torch.empty_like(x), (4, 4)) == []
    assert noted_of(lambda x: x.to(torch.bfloat16), (4, 4)) == [("cast", 16 * 6, 0)]
    assert noted_of(lambda x, y: x.copy_(y), (4, 4), (4, 4)) == [("copy", 16 * 8, 0)]
    assert noted_of(lambda x, y: x.add_(y), (4, 4), (1, 4)) == [
        ("add", 64 + 16 + 64, 0)
    ]  # read, read, written
    assert noted_of(lambda x, y: x + y, (4, 4), (4, 4)) == [("add", 3 * 64, 0)]
    assert noted_of(lambda x: x.zero_(), (4, 4)) == [("fill", 64, 0)]
    assert noted_of(lambda x: torch.mm(x, x), (4, 4)) == [("matmul", 4 * 64 - 64, 2 * 4**3)]


def test_a_convolution_is_a_product_and_its_bias_and_backward_two_and_a_sum():
    def step(x):
        conv = nn.Conv2d(2, 3, 3, device="cuda")
        conv(x).sum().backward()

    found = [what for what, *_ in noted_of(step, (1, 2, 8, 8)) if what.startswith("conv")]
    assert found == ["conv fprop", "conv bias", "conv wgrad", "conv bias"]
    product = next(flops for what, _, flops in noted_of(step, (1, 2, 8, 8)) if what == "conv fprop")
    assert product == 2 * 36 * 3 * 2 * 9


@pytest.mark.parametrize(
    ("sizes", "expected"), [([8] * 4, 1), ([8] * 65, 2), ([65536 * 321], 2), ([65536 * 320], 1)]
)
def test_multi_tensor_launches_follow_pytorchs_chunks(sizes, expected):
    def double(*tensors):
        torch._foreach_mul_(list(tensors), list(tensors))

    assert len(noted_of(double, *((n,) for n in sizes))) == expected


def test_nothing_is_computed_and_all_is_put_back():
    before = torch.Tensor.to, torch.autocast, torch.cuda.is_available
    launches.record("tiny-dcgan")
    assert (torch.Tensor.to, torch.autocast, torch.cuda.is_available) == before
    assert torch.ones(1).device.type == "cpu"
    x = torch.randn(4, 4)
    assert torch.equal(x + x, 2 * x)


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_kernels_are_compiled_for_a_target(target):
    kernels = launches.record("tiny-dcgan", target=target, compile=True)[1]
    text = launches.compiled(kernels, target)
    assert {"segment_forward_kernel", "adversarial_kernel"} <= {kernel.name for kernel in kernels}
    assert all(int(line.split()[2]) == 0 for line in text.splitlines()[1:]), text  # nothing spills
    assert all(f"{target}" in kernel.compiled.asm["ptx"] for kernel in kernels)


def test_command(tmp_path):
    path = tmp_path / "counts.json"
    done = CliRunner().invoke(
        command, ["--launches", "tiny-dcgan", "--json", str(path), "--gb-per-s", "1000"]
    )
    assert done.exit_code == 0, done.output
    assert "norm forward" in done.output
    assert "1000 GB/s" in done.output
    assert json.loads(path.read_text()) == {"tiny-dcgan": PINNED["tiny-dcgan"]}
    total = sum(sum(kinds.values()) for kinds in PINNED["tiny-dcgan"].values())
    assert str(total) in done.output.splitlines()[-1]


def test_refusals():
    with pytest.raises(FastganError, match="choose from"):
        launches.record("nothing")
    with pytest.raises(FastganError, match="unknown target"):
        launches.record("tiny-dcgan", target="sm_70")
