"""The benchmark tells the truth: same maths in every row, a gate that refuses."""

import contextlib
import copy
import dataclasses
import json
import math

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from fastgan.bench import benchmark
from fastgan.bench.iterations import gate as gates
from fastgan.bench.iterations import measure, networks, pieces, rows, suites, work
from fastgan.bench.iterations.ours import Ours, inputs_at
from fastgan.bench.iterations.pieces import Options
from fastgan.bench.iterations.plain import Plain
from fastgan.cli.measuring.bench import command
from fastgan.errors import FastganError
from fastgan.graphs.backends import RecordedGraph

CPU = torch.device("cpu")
DCGAN, SNGAN, WGAN, PIX, R1 = suites.TINY


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def gate():
    made = gates.Gate(DCGAN, suites.arrays(DCGAN), CPU, steps=(0, 2))
    made.prepare()
    return made


@pytest.mark.parametrize("suite", suites.TINY, ids=lambda s: s.name)
def test_every_row_computes_the_same_gradients(suite) -> None:
    arrays = suites.arrays(suite)
    judge = gates.Gate(suite, arrays, CPU, steps=(1,))
    judge.prepare()
    for key in ("a", "f", "g", "i"):
        row = rows.BY_KEY[key].build(suite, arrays, CPU, dropout=False, graph=RecordedGraph)
        verdict = judge.judge(row)
        worst = max(error for nets in verdict.errors.values() for error in nets.values())
        assert worst < 1e-5, f"{key}: {verdict.line()}"  # so small that no activation flips
        row.step()
        row.close()


def test_gold_is_float64_and_row_c_is_not(gate) -> None:
    assert all(g.dtype == torch.float64 for grads in gate.gold[0].values() for g in grads)
    assert all(0 < error < 1e-5 for error in gate.reference[0].values())


def test_a_row_with_wrong_maths_does_not_count(gate) -> None:
    class Wrong(Plain):
        def g_terms(self, batch, fake):
            return 1.01 * super().g_terms(batch, fake)

    verdict = gate.judge(Wrong(DCGAN, Options(), gate.arrays, CPU))
    assert not verdict.passed
    assert verdict.where.startswith("G ")
    assert "not timed" in verdict.line()


def test_gate_leaves_a_row_as_it_was(gate) -> None:
    row = rows.BY_KEY["c"].build(DCGAN, gate.arrays, CPU)
    rates = [group["lr"] for o in row._optimizers.values() for group in o.param_groups]
    gate.judge(row)
    assert [group["lr"] for o in row._optimizers.values() for group in o.param_groups] == rates
    before = copy.deepcopy(row.state())
    row.step()
    assert any(not torch.equal(before["G"][k], v) for k, v in row.state()["G"].items())


def test_error_is_relative_and_infinite_for_nonsense() -> None:
    gold = [torch.tensor([3.0, 4.0], dtype=torch.float64)]
    assert gates.error([torch.tensor([3.0, 4.5])], gold) == pytest.approx(0.1)
    assert gates.error([torch.tensor([3.0, math.nan])], gold) == math.inf
    assert gates.error([torch.zeros(3)], gold) == math.inf
    assert gates.error([], gold) == math.inf
    zero = [torch.zeros(2, dtype=torch.float64)]
    assert gates.error([torch.zeros(2)], zero) == 0.0
    assert gates.error([torch.ones(2)], zero) > 0


def test_inputs_are_the_engine_s() -> None:
    arrays = suites.arrays(WGAN)
    row = Ours(WGAN, arrays, CPU)
    given = inputs_at(WGAN, 3, len(arrays["image"]), CPU)
    positions = row.active.runner.positions(3)
    for round_, position in enumerate(positions):
        batch = row.active.batch(position)["image"]
        mine = (
            torch.from_numpy(arrays["image"])[given[round_]["index"]].permute(0, 3, 1, 2).float()
            / 127.5
            - 1
        )
        assert torch.allclose(batch, mine, atol=1e-6)
    assert given[0]["epsilon"].shape == (WGAN.batch, 1, 1, 1)
    assert not torch.equal(given[0]["z"], given[1]["z"])
    row.close()


def test_functional_adam_is_adam() -> None:
    torch.manual_seed(0)
    a, b = nn.Linear(5, 3), nn.Linear(5, 3)
    b.load_state_dict(a.state_dict())
    theirs = torch.optim.Adam(a.parameters(), lr=0.01, betas=(0.5, 0.9))
    mine = pieces.FunctionalAdam(b, 0.01, (0.5, 0.9))
    for _ in range(4):
        x = torch.randn(7, 5)
        a.zero_grad()
        a(x).square().sum().backward()
        theirs.step()
        mine.step(torch.autograd.grad(b(x).square().sum(), mine.parameters))
    for p, q in zip(a.parameters(), b.parameters()):
        assert torch.allclose(p, q, rtol=1e-5, atol=1e-7)


def test_row_a_reads_the_device_and_row_c_does_not(gate, monkeypatch) -> None:
    from fastgan.graphs.host_reads import HostRead, NoHostReads

    c = rows.BY_KEY["c"].build(DCGAN, gate.arrays, CPU)
    a = rows.BY_KEY["a"].build(DCGAN, gate.arrays, CPU)
    with NoHostReads():
        c._eager()
        with pytest.raises(HostRead):
            a._tutorial()


def test_d_is_frozen_only_where_the_row_says(gate) -> None:
    a, c = (rows.BY_KEY[key].build(DCGAN, gate.arrays, CPU) for key in "ac")
    for row, untouched in ((a, False), (c, True)):
        row.recorded = {}
        row.step()
        after = [p.grad for p in row.nets["D"].parameters()]
        assert all(torch.equal(x, y) for x, y in zip(after, row.recorded["D"])) is untouched


def test_work_is_what_the_derivation_says() -> None:
    least = work.work(suites.SUITES["dcgan-64-b128"])
    assert least.flops == pytest.approx(
        128 * 2 * 1137.3e6, rel=1e-3
    )  # research: 1137.3 M multiply-adds an image
    assert least.bytes == pytest.approx(1.33e9, rel=0.01)  # 33 S and Adam
    assert work.work(suites.SUITES["sngan-32-b64"]).flops == pytest.approx(2.75e12, rel=0.01)
    assert least.floor({"matmul_tflops": 798.0, "copy_gbs": 3000.0}) == pytest.approx(
        0.444, rel=0.01
    )


def test_penalties_cost_second_order_work() -> None:
    with_penalty, without = work.work(R1), work.work(dataclasses.replace(R1, r1=0.0))
    assert with_penalty.flops > 1.2 * without.flops
    assert with_penalty.bytes > without.bytes


class Fake:
    """A row whose steps take as long as a script says."""

    nets: dict = {}

    def __init__(self, log, name, fails_at=None):
        self.log, self.name, self.fails_at, self.count = log, name, fails_at, 0

    def flags(self):
        return contextlib.nullcontext()

    def step(self):
        self.count += 1
        if self.fails_at is not None and self.count >= self.fails_at:
            raise RuntimeError("illegal memory access\nwith details")
        self.log.append(self.name)


def test_rows_take_turns_and_a_failing_one_is_dropped() -> None:
    log, told = [], []
    alive = {"x": Fake(log, "x"), "y": Fake(log, "y", fails_at=4), "z": Fake(log, "z")}
    samples = measure.interleave(
        alive,
        CPU,
        repeats=4,
        sample_s=0.0,
        until=math.inf,
        failed=lambda key, e: told.append((key, str(e))),
    )
    assert set(samples) == {"x", "z"}
    assert all(len(s) == 4 for s in samples.values())
    assert told == [("y", "illegal memory access\nwith details")]
    after_warm_up = log[6:]
    assert after_warm_up[:3] == ["x", "y", "z"]
    assert after_warm_up[3:5] == ["z", "x"]  # the order turns round


def test_interleave_keeps_three_repeats_when_time_is_over() -> None:
    log = []
    samples = measure.interleave(
        {"x": Fake(log, "x")}, CPU, repeats=50, sample_s=0.0, until=0.0, failed=lambda *a: None
    )
    assert len(samples["x"]) == 3


def test_saved_activations_counts_each_storage_once_and_no_parameters() -> None:
    net = nn.Sequential(
        nn.Linear(100, 1000, bias=False), nn.ReLU(), nn.Linear(1000, 1000, bias=False), nn.ReLU()
    )
    x = torch.randn(32, 100)
    with measure.SavedActivations({"net": net}) as saved:
        loss = net(x).sum()
        held = saved.now
        loss.backward()
    del loss
    # the input, and each ReLU's output (which is the next layer's input too, and is counted once)
    assert held == 4 * (32 * 100 + 2 * 32 * 1000)
    assert saved.peak == held
    assert saved.now == 0


def test_quantiles() -> None:
    assert measure.quantiles([3.0]) == [3.0, 3.0, 3.0]
    assert measure.quantiles([1, 2, 3, 4, 5, 6]) == pytest.approx([2.0, 3.5, 5.0])


def test_peak_memory_of_a_child_counts_what_it_used() -> None:
    measure.reset_peak()
    before = measure.resident("VmHWM")
    if not before:
        pytest.skip("the system does not tell resident memory")
    block = torch.ones(16 * 2**20)
    assert measure.resident("VmHWM") - before > 50
    del block
    measure.reset_peak()
    assert measure.resident("VmHWM") - before < 40


@pytest.mark.slow
def test_start_up_and_memory_are_of_a_process_of_their_own() -> None:
    facts = measure.child_facts("tiny-dcgan", "i", threads=1, steps=2)
    assert 0.5 < facts["startup_s"] < 120  # imports alone take longer than half a second
    assert 0 <= facts["peak_MiB"] < 1000
    with pytest.raises(RuntimeError, match="KeyError"):
        measure.child_facts("no such suite", "i", threads=1)


def test_one_suite_from_end_to_end() -> None:
    lines = []
    bench = benchmark.Bench(
        CPU, quick=True, say=lines.append, children=False, repeats=3, steps=(0,)
    )
    specs = [rows.BY_KEY[key] for key in ("a", "b", "c", "f", "i")]
    result = bench.run([DCGAN], specs)
    entries = {e["row"]: e for e in result["suites"][0]["rows"]}
    assert {key for key, e in entries.items() if "ms" in e} == {"a", "c", "i"}
    assert "needs a GPU" in entries["f"]["error"]
    assert "row a" in entries["b"]["error"]
    assert entries["i"]["best"] in ("a", "c")
    assert entries["i"]["gradient"]["passed"]
    assert entries["c"]["saved_MiB"] > 0
    assert 0 < entries["i"]["roofline"] < 1
    json.dumps(result)
    assert lines


def test_graph_rows_of_ours_say_when_nothing_was_captured(gate) -> None:
    class Broken(RecordedGraph):
        def capture(self, function):
            raise RuntimeError("capture failed")

    row = rows.BY_KEY["i"].build(DCGAN, gate.arrays, CPU, graph=Broken)
    with pytest.raises(FastganError, match="capture failed"):
        row.step()


def test_a_spent_budget_skips_rows_and_says_so() -> None:
    bench = benchmark.Bench(CPU, quick=True, budget=1e-3, children=False, repeats=3, steps=(0,))
    result = bench.run([DCGAN], [rows.BY_KEY["c"], rows.BY_KEY["d"]])
    entries = {e["row"]: e for e in result["suites"][0]["rows"]}
    assert entries["d"]["status"] == "skipped"
    assert "budget" in entries["d"]["error"]


def test_command_names_what_is_unknown() -> None:
    for arguments, message in (
        (["--suite", "cgan"], "no suite 'cgan'"),
        (["--rows", "a,z"], "no row 'z'"),
    ):
        result = CliRunner().invoke(command, arguments)
        assert isinstance(result.exception, FastganError)
        assert message in str(result.exception)


@pytest.mark.slow
def test_command_writes_its_files(tmp_path) -> None:
    paths = [str(tmp_path / name) for name in ("r.json", "r.csv")]
    arguments = [
        "--quick",
        "--suite",
        "tiny-dcgan",
        "--rows",
        "c,i",
        "--json",
        paths[0],
        "--csv",
        paths[1],
    ]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "r.json").read_text())["suites"][0]["suite"] == "tiny-dcgan"
    assert "against the best of a to f2" in result.output


def test_u_net_s_skips_carry_activated_values() -> None:
    torch.manual_seed(0)
    level = networks.UNetLevel(3, 4, None)
    x = torch.randn(2, 3, 8, 8)
    given = x.clone()
    out = level(given)
    assert torch.equal(out[:, :3], nn.functional.leaky_relu(x, 0.2))
    assert networks.UNet(3, 5, 8)(torch.randn(2, 3, 32, 32)).shape == (2, 3, 32, 32)


def test_parameter_counts_are_the_published_ones() -> None:
    nets = suites.SUITES["pix2pix-256-b1"].networks(0.5)
    count = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    assert count["G"] == pytest.approx(54.4e6, rel=2e-3)
    assert count["D"] == pytest.approx(2.77e6, rel=2e-3)
    nets = suites.SUITES["dcgan-64-b128"].networks(0.0)
    assert [sum(p.numel() for p in net.parameters()) for net in nets.values()] == [
        3_576_704,
        2_765_568,
    ]
