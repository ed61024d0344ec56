"""Operator rows of the benchmark: everything registered appears, nothing wrong is timed, PyTorch's
side is what users write."""

import dataclasses
import json
import shutil

import pytest
import torch
from click.testing import CliRunner

from fastgan.bench import (
    baselines,
    benchmark,
    operator_calls,
    operators,
    readme_tables,
    result_files,
    tables,
)
from fastgan.cli.measuring.bench import command
from fastgan.errors import FastganError
from fastgan.verify import registry
from fastgan.verify.registry import Op

CPU = torch.device("cpu")
SAMPLES = list(operator_calls.samples(CPU))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sample(op: str, direction: str = "forward") -> operator_calls.Sample:
    return next(s for s in SAMPLES if s.op.name == op and s.direction == direction)


def test_every_registered_op_appears_in_each_direction_it_has() -> None:
    for op in registry.ops():
        mine = {s.direction for s in SAMPLES if s.op.name == op.name}
        assert mine == ({"forward", "both"} if "backward" in op.directions else {"forward"}), (
            op.name
        )


def test_layers_are_a_gpu_s_shapes_in_bf16_where_the_op_has_it() -> None:
    layers = list(operator_calls.samples(CPU, layers=True))
    assert {s.op.name for s in layers} == {op.name for op in registry.ops()}
    assert all(s.type_name == ("bf16" if "bf16" in s.op.dtypes else "fp32") for s in layers)
    assert sum(s.op.name == "batch_norm" for s in layers) == 2 * sum(
        "layer" in c.tags for c in registry.ops("batch_norm")[0].cases
    )
    assert len(list(operator_calls.samples(CPU, layers=True, first=True))) == len(SAMPLES)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_each_op_is_timed_against_eager(sample) -> None:
    entry = operators.run(sample, CPU, ("eager", *operator_calls.ENGINES), repeats=3, until=0.0)
    if "reference" not in sample.op.engines:
        assert not entry["rows"]
        assert entry["missing"] == dict.fromkeys(sample.op.engines, "needs a GPU")
        return
    rows = {r["provider"]: r for r in entry["rows"]}
    assert set(rows) == {"eager", "reference"}
    assert all(r["status"] == "ok" and r["ms"][1] > 0 for r in rows.values())
    assert entry["auto"] == "reference"
    kernels = sample.op.engines != ("reference",)
    assert set(entry["missing"].values()) == ({"needs a GPU"} if kernels else set())
    assert tables.headline(entry)["best"] == "eager"
    json.dumps(entry)


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="torch.compile needs a C++ compiler on a CPU",
)
def test_the_compiler_is_a_rival() -> None:
    entry = operators.run(
        sample("affine_act", "both"), CPU, ("eager", "compile", "auto"), repeats=3, until=0.0
    )
    rows = {r["provider"]: r for r in entry["rows"]}
    assert rows["compile"]["disagreement"] < 1e-5
    assert rows["reference"]["best"] == min(("eager", "compile"), key=lambda p: rows[p]["ms"][1])


def wrong(op: Op, **replaced) -> operator_calls.Sample:
    return dataclasses.replace(sample(op.name, "both"), op=dataclasses.replace(op, **replaced))


def test_an_engine_with_wrong_outputs_or_gradients_is_not_timed() -> None:
    (op,) = registry.ops("moments")

    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return 1.01 * g

    outputs = lambda **kwargs: tuple(1.001 * t for t in op.fn(**kwargs))
    gradients = lambda input, **kwargs: op.fn(Off.apply(input), **kwargs)
    for fn in (outputs, gradients):
        entry = operators.run(
            wrong(op, fn=fn), CPU, ("eager", *operator_calls.ENGINES), repeats=3, until=0.0
        )
        row = next(r for r in entry["rows"] if r["ours"])
        assert row["agrees"] is False
        assert "not timed" in row["error"]
        assert "ms" not in row
        assert tables.headline(entry) is None
        assert "not timed" in "\n".join(tables.kernel_table([entry]))


def test_a_provider_that_raises_is_shown_and_the_others_count() -> None:
    (op,) = registry.ops("affine_act")

    def broken(**kwargs):
        raise RuntimeError("no such memory format\nhere")

    entry = operators.run(
        wrong(op, eager=broken), CPU, ("eager", *operator_calls.ENGINES), repeats=3, until=0.0
    )
    rows = {r["provider"]: r for r in entry["rows"]}
    assert rows["eager"]["error"] == "RuntimeError: no such memory format here"
    assert "ms" in rows["reference"]


@pytest.mark.parametrize("decoupled", [False, True])
def test_both_rivals_of_adam_are_adam_with_average_and_copy(decoupled) -> None:
    (op,) = registry.ops("adam_ema")
    case = next(c for c in op.cases if c.name.startswith("AdamW step 7"))
    rival = baselines.rival(op)
    ends = []
    for fn in (op.reference, rival.eager, rival.source):
        kwargs = case.make(torch.float16, CPU, torch.Generator().manual_seed(0)) | {
            "decoupled": decoupled,
            "found_inf": None,
        }
        kwargs = rival.given(kwargs)
        fn(**(kwargs if fn is op.reference else rival.own(kwargs)))
        ends.append([kwargs[name] for name in op.mutates])
    for mine in ends[1:]:
        for a, b in zip(mine, ends[0]):
            # fp16 copies may round to either side
            assert torch.allclose(
                a.double(), b.double(), rtol=2e-3 if a.dtype == torch.float16 else 1e-6, atol=1e-9
            )


def test_augmenting_rival_moves_and_cuts_as_published() -> None:
    images = torch.ones(64, 1, 16, 16)
    cut = baselines._augment(images, "cutout")
    assert set(cut.unique().tolist()) == {0.0, 1.0}
    assert cut.flatten(1).eq(0).sum(1).max() == 64  # half the size each way, where it lies inside
    moved = baselines._augment(
        torch.arange(1.0, 257).reshape(1, 1, 16, 16).repeat(64, 1, 1, 1), "translation"
    )
    shifts = {int(m[0, 8, 8]) - (8 * 16 + 8 + 1) for m in moved}
    assert shifts <= {16 * y + x for y in range(-2, 3) for x in range(-2, 3)}
    assert len(shifts) > 10
    assert torch.equal(moved[0].ne(0).sum(), moved[0].unique().ne(0).sum())


def entries() -> list:
    row = lambda provider, us: {
        "provider": provider,
        "ours": provider not in operator_calls.PYTORCH,
        "status": "ok",
        "samples_ms": [us / 1e3] * 3,
        "ms": [us / 1e3] * 3,
        "roofline": 10 / us,
    }
    made = []
    for case, mine in (("a", 20.0), ("b", 80.0)):
        rows = [
            row("eager", 40.0),
            row("compile", 50.0),
            row("reference", 60.0),
            row("triton", mine),
        ]
        made.append(
            {
                "op": "batch_norm",
                "case": case,
                "type": "bf16",
                "direction": "both",
                "device": "cuda",
                "auto": "triton",
                "missing": {"cudnn": "needs a GPU"},
                "rows": rows,
            }
        )
        operators.compare(made[-1])
    return made


def result(found: list, device: str = "NVIDIA") -> dict:
    about = dict.fromkeys(("driver", "cuda", "python", "torch", "triton", "commit", "date"), "x")
    return {
        "machine": about | {"device": device, "threads": 2, "cores": 2},
        "quick": False,
        "suites": [],
        "kernels": found,
    }


def test_losses_are_in_the_table_the_csv_and_the_readme(tmp_path) -> None:
    found = entries()
    assert [tables.headline(e)["speedup"][1] for e in found] == [2.0, 0.5]
    late = found[0] | {"rows": [], "error": "not run within the budget", "missing": {}}
    text = tables.table(result([*found, late]))
    assert "80.0*" in text
    assert "0.50x" in text
    assert text.count("engine cudnn: needs a GPU") == 1
    assert "1 of 3 calls: not run within the budget" in text
    result_files.write_csv(result(found), tmp_path / "k.csv")
    lines = (tmp_path / "k.csv").read_text().splitlines()
    assert len(lines) == 9
    assert lines[-1].startswith("batch_norm: b,kernel both,cuda,bf16,,triton")
    readme = readme_tables.markdown([result(found)])
    assert (
        "| batch_norm | forward and backward | 2 | 1.00x | 0.50x (b, bf16; eager) | 12 to 50 % |"
        in readme
    )


def test_a_cpu_s_tiny_shapes_are_not_quoted() -> None:
    found = [e | {"device": "cpu"} for e in entries()]
    assert "batch_norm" not in readme_tables.markdown([result(found, "CPU: some")])
    assert "CPU, smallest shapes" in tables.table(result(found, "CPU: some"))


def test_two_stored_rows_of_a_call_become_one() -> None:
    whole = entries()[0]
    without = whole | {"rows": [r for r in whole["rows"] if r["provider"] != "compile"]}
    later = whole | {
        "rows": [
            dict(r, later=True)
            for r in whole["rows"]
            if r["provider"] in ("eager", "compile", "triton")
        ]
    }
    merged = {r["provider"]: r for r in operators.merge(without, later)["rows"]}
    assert set(merged) == {"eager", "compile", "reference", "triton"}
    assert {p for p, r in merged.items() if r.get("later")} == {"eager", "compile", "triton"}


def test_plot_of_operators(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    from fastgan.bench import plots

    assert [p.name for p in plots.draw(result(entries()), tmp_path)] == ["kernels.png"]


def test_a_spent_budget_leaves_operators_out_and_says_so(monkeypatch) -> None:
    monkeypatch.setattr(operator_calls, "samples", lambda *a, **k: iter(SAMPLES[:2]))
    bench = benchmark.Bench(CPU, budget=1e-3, repeats=3)
    found = bench.run([], [], ops=True)["kernels"]
    assert [e["error"] for e in found] == ["not run within the budget"] * 2


def test_command_times_a_family_by_its_one_name(monkeypatch, tmp_path) -> None:
    run = lambda sample, device, providers, **how: operators.blank(sample, device)
    monkeypatch.setattr(operators, "run", run)
    path = tmp_path / "r.json"
    for asked in ("norm", "spectral,batch_norm"):
        done = CliRunner().invoke(command, ["--op", asked, "--quick", "--json", str(path)])
        assert done.exit_code == 0, done.output
        written = json.loads(path.read_text())
        assert written["suites"] == []
        names = {op.name for op in registry.ops(*asked.split(","))}
        assert {entry["op"] for entry in written["kernels"]} == names
        assert "batch_norm" in names
        assert "conv2d" not in names
    refused = CliRunner().invoke(command, ["--op", "nonesuch"])
    assert isinstance(refused.exception, FastganError)
    assert "norm" in str(refused.exception)


def test_command_runs_operators_alone_and_fails_on_a_wrong_one(monkeypatch, tmp_path) -> None:
    (op,) = registry.ops("moments")
    bad = wrong(op, fn=lambda **kwargs: tuple(1.001 * t for t in op.fn(**kwargs)))
    for chosen, code in ((sample("moments", "both"), 0), (bad, 1)):
        monkeypatch.setattr(
            operator_calls, "samples", lambda *a, chosen=chosen, **k: iter([chosen])
        )
        done = CliRunner().invoke(
            command, ["--suite", "kernels", "--quick", "--json", str(tmp_path / "r.json")]
        )
        assert done.exit_code == code, done.output
        written = json.loads((tmp_path / "r.json").read_text())
        assert written["suites"] == []
        assert written["kernels"][0]["op"] == "moments"
