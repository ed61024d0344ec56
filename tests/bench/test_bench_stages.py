"""The GPU stages: a budget that several stages see, rows that are lost alone, decisions that stay
with the shapes they are of."""

import importlib
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from run_support import commands

pytest.importorskip("triton")

from fastgan import machine
from fastgan.bench import __main__ as front
from fastgan.bench.experiments import conv_edges, first_gpu_look
from fastgan.bench.stages import command_runs, parts, plan, proof, rehearsal
from fastgan.bench.store import Store
from fastgan.errors import FastganError
from fastgan.kernels import tuning
from fastgan.kernels.common import triton_minor
from fastgan.verify import registry, runner

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_long_stage_leaves_time_to_the_others():
    remaining, given = float(plan.BUDGET), []
    for last in (False, False, False, True):
        given.append(plan.share(remaining, last))
        remaining -= given[-1]
    assert remaining == 0
    assert min(given[:2]) >= plan.AT_LEAST
    assert plan.share(40.0, False) == 40.0


def test_the_plan_reaches_the_headline_whatever_its_parts_take():
    """Each part takes its seconds and the grace: the first iteration has its own in the first call
    all the same."""
    at, reached = 0.0, {}
    for group in parts.PLAN:
        reached.update({(part.stage, part.rows): at for part in group})
        at += max(part.seconds for part in group) + plan.GRACE
    headline = ("suites", "dcgan-64-b128$")
    assert reached[headline] + 85 + plan.GRACE <= plan.BUDGET
    assert list(reached).index(headline) < list(reached).index(("suites", "sngan-32-b64$"))


@pytest.mark.parametrize(
    "part",
    [part for group in parts.PLAN for part in group],
    ids=lambda part: f"{part.stage} {part.rows}",
)
def test_every_part_of_the_plan_names_rows_that_exist(part, monkeypatch):
    module = importlib.import_module(plan.STAGES[part.stage][0])
    types = {"verify": True}.get(part.stage)  # which types a device proves is asked of the device
    keys = (
        [row.key for row in module.rows(False)]
        if not types
        else [f"{op} bf16" for op in registry.load()]
    )
    assert [key for key in keys if re.match(part.rows, key)] or "fp(16|32)" in part.rows


def test_a_rehearsal_has_the_headline_in_the_first_call_and_is_what_the_page_says():
    """As `fastgan bench --rehearse` prints it."""
    for share in rehearsal.SHARES:
        found = rehearsal.rehearse(share, calls=1)
        assert found.headline is not None
        assert found.headline < plan.BUDGET
    page = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    assert rehearsal.table() in page, "fastgan bench --rehearse prints another table now"


def test_a_rehearsal_counts_no_row_that_the_clock_kills():
    part = parts.Part("norm", "", 20.0)
    found = rehearsal.Rehearsal(1.5)
    end = rehearsal.run_part(found, part, [("first", 10.0), ("second", 40.0)], 0.0)
    assert found.known == {"norm": {"first"}}
    assert end <= rehearsal.IMPORT + part.seconds + plan.GRACE


def test_the_command_names_every_stage_and_starts_those_asked_for(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(plan, "run", lambda *arguments: given.append(arguments) or 0)
    for name in ("BUDGET", "OUT"):
        monkeypatch.delenv(name, raising=False)
    assert front.main(["--stages"]) == 0
    assert front.main(["--stages", "look,kernels", "--budget", "60", "--out", "x", "--toy"]) == 0
    assert front.main(["--stages", "--op", "spectral"]) == 0
    assert given == [
        ([], plan.BUDGET, None, False, []),
        (["look", "kernels"], 60.0, "x", True, []),
        ([], plan.BUDGET, None, False, ["spectral_sigma"]),
    ]
    assert " ".join(plan.STAGES) in " ".join(front.parser().format_help().split())
    for arguments in (["--stages", "--quick"], ["--toy"], ["--suite", "same", "--rows", "a"]):
        assert front.main(arguments) == 2
    assert len(given) == 3


def test_stages_of_an_operator_are_its_rows_alone():
    groups = plan.groups([], False, ["moments"])
    assert [part.stage for group in groups for part in group] == list(plan.OPS)
    for (part,) in groups:
        module = importlib.import_module(plan.STAGES[part.stage][0])
        keys = [row.key for row in module.rows(True) if re.match(part.rows, row.key)]
        assert keys
        assert all(key.startswith("moments ") for key in keys)
    for arguments in ((["nonesuch"], 60.0), (["suites"], 60.0, None, True, ["moments"])):
        with pytest.raises(FastganError, match=arguments[0][0]):
            plan.run(*arguments)


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("partial", [True, False])
def test_a_row_the_clock_killed_is_told_from_one_that_took_the_process_down(
    killed, partial, tmp_path, monkeypatch
):
    monkeypatch.setenv("FASTGAN_BENCH_RUN", "1")

    class Child:
        pid = 0

        def __init__(self, command, **kwargs):
            state = Path(json.loads(command[-1])["state"])
            state.with_suffix(".running").write_text(
                json.dumps({"stage": "look", "key": "row", "ours": True})
            )
            if partial:
                Store(str(tmp_path)).add("look", "row", True, {"ms": 1.0, "partial": True})

        def wait(self, timeout=None):
            if killed and timeout is not None:
                raise subprocess.TimeoutExpired("stage", timeout)
            return -9

    monkeypatch.setattr(
        plan, "subprocess", SimpleNamespace(Popen=Child, TimeoutExpired=subprocess.TimeoutExpired)
    )
    monkeypatch.setattr(plan.os, "killpg", lambda *args: None)
    assert plan.supervise(parts.Part("look", "", 1.0), str(tmp_path), True) == [
        "look : not finished"
    ]
    store = Store(str(tmp_path))
    if partial:
        assert [row["ms"] for row in store.stage("look")] == [1.0]
        assert store.find("look", "row", True) is None  # the next run measures it whole
    else:
        assert store.rows[-1]["failed"].startswith("timed out" if killed else "the process died")


def test_a_failure_hides_what_an_older_run_measured(tmp_path):
    store = Store(str(tmp_path))
    store.add("conv", "a", True, {"ms": 1.0})
    store.add("conv", "b", True, {"ms": 1.0})
    store.add("conv", "a", True, {"failed": "no configuration is right"})
    assert [r["key"] for r in store.stage("conv")] == ["b"]


@pytest.mark.parametrize("level", ["quick", "full"])
def test_rows_of_the_proof_are_small_and_leave_no_check_out(level):
    before = "" if level == "quick" else "full: "
    found = [r for r in proof.rows(False) if r.key.startswith("full: ") == bool(before)]
    rows = {r.key.removeprefix(before): r for r in found}
    for op in registry.load().values():
        jobs, _ = runner.plan([op], level, CPU)
        keys = {proof.key_of(job, level) for job in jobs}
        assert keys <= rows.keys()
        assert all(rows[k].seconds == (120 if op.uses_dot else 20) for k in keys)
    known = {op.name for op in registry.load().values()}
    assert {key.split(" ")[0] for key in rows} == known


def test_a_row_of_the_proof_has_its_own_type_alone():
    found = proof.prove("affine_act", "quick", "affine_act fp32")
    assert found["outputs"]
    assert not found["failures"]
    assert all(" fp32 " in key for key in found["errors"])


def test_geometry_of_a_folded_block_is_what_the_tables_are_asked_with():
    ((name, shape),) = conv_edges.layers("SNGAN up batch 128")
    assert (name, shape["k"], shape["stride"], shape["rows"]) == (
        "conv_transpose2d",
        4,
        2,
        128 * 16 * 16,
    )


def test_a_winner_does_not_reach_a_neighbour_where_it_lost():
    found = {
        "G L2-L3 batch 128": {"eager": 1.0, "separate | auto": 1.0, "moments | triton": 0.5},
        "G L3-L4 batch 128": {"eager": 1.0, "separate | auto": 0.4, "moments | triton": 0.5},
        "D last batch 128": {"separate | auto": 0.5, "separate | triton": 0.4},
    }
    gpu_facts = tuning.Device("A GPU", "sm_90", 1 << 17)
    table = tuning.Table(
        gpu_facts.gpu, gpu_facts.capability, triton_minor(), tuple(conv_edges.decisions(found))
    )
    shape = lambda rows, ci, co, stride=2: (
        ("rows", rows),
        ("ci", ci),
        ("co", co),
        ("k", 4),
        ("stride", stride),
    )
    find = lambda op, *sizes: tuning.find(op, "bf16", shape(*sizes), gpu_facts, (table,))
    assert find("conv_edge", 2048, 512, 256).engine == "moments"
    # L3 is second in a pair that the epilogue's moments won, and opens one that they lost: it goes
    # by the latter
    assert find("conv_edge", 8192, 256, 128).engine == "separate"
    assert find("conv_transpose2d", 8192, 256, 128).engine == "cudnn"
    assert find("conv2d", 2048, 512, 1, 1).engine == "triton"


def test_writing_without_a_gpu_is_one_line(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    monkeypatch.setattr("sys.argv", ["conv_experiment", "--write"])
    with pytest.raises(SystemExit, match="no GPU here"):
        conv_edges.main()


def test_one_configuration_that_fails_does_not_cost_the_layer(monkeypatch):
    class OutOfResources(Exception):  # Triton's derive from Exception alone
        pass

    def calls(layer):
        right = layer.gold("forward").to(layer.dtype)

        def call(i, config):
            if config:
                raise OutOfResources("shared memory")
            return right

        return {"forward": ("conv_forward", call)}

    monkeypatch.setattr(first_gpu_look, "DEVICE", "cpu")
    monkeypatch.setattr(first_gpu_look.Layer, "fused", calls)
    monkeypatch.setattr(first_gpu_look, "time_sets", lambda sets, call: 1.0)
    monkeypatch.setitem(first_gpu_look.LAYERS, "small", (True, 12, 18, 4))
    row = first_gpu_look.fused_row("small", 1, "forward", False)
    assert row["ms"] == {"forward": 1.0}
    assert any("OutOfResources" in tried.get("failed", "") for tried in row["tried"])


def test_a_copy_without_git_takes_its_commit_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "fastgan" / "machine.py"))
    monkeypatch.delenv("FASTGAN_COMMIT", raising=False)
    assert machine.commit() == ""
    monkeypatch.setenv("FASTGAN_COMMIT", "abc1234")
    assert machine.commit() == "abc1234"


def test_a_stopped_run_is_held_against_a_whole_one_and_a_repeated_one(monkeypatch, capsys):
    """In this process; on a CPU all three are the same to the bit."""
    call = commands(capsys)
    typed = []

    def here(*words):
        typed.append(words)
        code, out, err = call(*words, *(["--device=cpu"] if "--recipe" in words else []))
        assert code == 0, err
        return out

    monkeypatch.setattr(command_runs, "command", here)
    monkeypatch.setattr(command_runs, "RESUMED", ("gan",))
    first = next(iter(command_runs.rows(True)))
    found = first.run()
    assert [words[1] for words in typed] == ["--recipe", "--recipe", "--recipe", "--resume"]
    assert found["resumed"]["differ"] == found["again"]["differ"] == 0
    assert found["resumed"]["tensors"] > 8
    assert "2 steps: resumed the same bits" in found["shown"]


def test_a_command_that_fails_is_its_last_line():
    with pytest.raises(FastganError, match=r"sample ended with 2: .*no-such-run is not a run"):
        command_runs.command("sample", "no-such-run")


def test_tensors_of_two_checkpoints_are_compared_by_path():
    one = {"nets": {"G": {"w": torch.ones(4)}}, "more": [torch.zeros(2)]}
    assert {name for name, _ in command_runs.tensors(one)} == {"/nets/G/w", "/more/0"}
    assert command_runs.distance(torch.full((4,), 1.5), torch.ones(4)) == 0.5
