"""Nothing is lost or half-written by a fault at any file operation."""

import hashlib
import shutil

import pytest
from file_faults import FULL, STEPS, Faults, trainer
from run_support import assert_same_run, in_a_hurry, leftovers

import fastgan
from fastgan.monitor import pictures


def left_by_a_kill(out):
    """A run with a checkpoint of step 2 that was killed in step 3: rows and pictures of steps to
    come, a torn row, torn files."""
    with trainer(out) as t:
        t.fit(2)
        kept = shutil.copytree(out / "checkpoints", out.with_name("kept"))
        t.fit(3)
    shutil.rmtree(out / "checkpoints")
    shutil.move(kept, out / "checkpoints")
    with open(out / "metrics.jsonl", "a") as f:
        f.write('{"step": 4, "ima')
    (out / "checkpoints" / ".partial-1-step-00000003").mkdir()
    (out / "checkpoints" / ".partial-1-step-00000003" / "nets.safetensors").write_bytes(b"torn")
    (out / "checkpoints" / "step-00000002").rename(out / "checkpoints" / ".replaced-step-00000002")
    (out / "samples" / ".partial-1-00000003.png").write_bytes(b"torn")


@pytest.mark.slow
@pytest.mark.parametrize(
    "lasting", [False, pytest.param(True, marks=pytest.mark.long)], ids=["one-fault", "full-disk"]
)
@pytest.mark.parametrize("begin", ["new", "after-a-kill"])
def test_a_fault_at_every_file_operation(begin, lasting, tmp_path, monkeypatch, capsys):
    in_a_hurry(monkeypatch)
    digest = lambda shown: hashlib.sha256(shown.numpy().tobytes()).digest()
    monkeypatch.setattr(
        pictures, "save_grid", lambda f, shown, *rest, **options: f.write(digest(shown))
    )
    run, killed = tmp_path / "run", tmp_path / "killed"
    with trainer(tmp_path / "straight") as t:
        t.fit(STEPS)
    resume = begin != "new"
    if resume:
        left_by_a_kill(killed)
    faults = Faults(monkeypatch, run)

    def attempt(at=None):
        """Begin from the same folder each time, with operation number `at` failing; what was said
        of it."""
        faults.reset()
        shutil.rmtree(run, ignore_errors=True)
        if resume:
            shutil.copytree(killed, run)
        faults.reset(at, lasting)
        capsys.readouterr()
        try:
            with trainer(run, resume) as t:
                t.fit(STEPS)
        except fastgan.FastganError as error:
            return str(error)
        return capsys.readouterr().err.replace("fastgan: ", "").strip().replace("\n", " | ") or None

    assert attempt() is None
    total, where = faults.count, {}
    assert_same_run(tmp_path / "straight", run)
    for at in range(1, total + 1, 2 if lasting else 1):
        error = attempt(at)
        assert faults.failed, at
        where.setdefault(faults.failed[0], []).append(error)
        assert error is None or (
            "\n" not in error and str(run) in error and error.startswith("can't ")
        ), error
        faults.reset()
        begun = run.exists()
        assert begun or not resume
        if begun and not resume:  # a run that began has a checkpoint that loads at once
            fastgan.load(run)
        with trainer(run, begun) as t:
            assert leftovers(run) == []
            t.fit(STEPS)
        assert_same_run(tmp_path / "straight", run)
        assert leftovers(run) == []
    assert lasting or set(where) >= {
        "mkdir",
        "open",
        "write",
        "fsync",
        "replace",
        "unlink",
        "rmdir",
    }
    for what in set(FULL) & set(where):
        assert None not in where[what], f"a failing {what} was passed over in silence"
    print(f"{total} operations: {', '.join(f'{len(v)} {k}' for k, v in sorted(where.items()))}")
