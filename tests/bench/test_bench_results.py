"""What the benchmark shows: tables, the README's figures, files, plots."""

import copy

import pytest
from click.testing import CliRunner

from fastgan.bench import benchmark, readme_tables, result_files, tables
from fastgan.cli.measuring.bench import command
from fastgan.errors import FastganError


def test_best_of_the_others_is_the_rival_and_losses_show() -> None:
    entries = [
        {"row": "a", "ours": False, "ms": [9, 10, 11], "samples_ms": [10.0, 10.0, 10.0]},
        {"row": "c", "ours": False, "ms": [4, 5, 6], "samples_ms": [5.0, 4.0, 6.0]},
        {"row": "e", "ours": False, "status": "failed", "error": "RuntimeError: no"},
        {"row": "i", "ours": True, "ms": [7, 8, 9], "samples_ms": [10.0, 8.0, 12.0]},
    ]
    benchmark.compare(entries)
    assert entries[3]["best"] == "c"
    assert entries[3]["speedup"] == [0.5, 0.5, 0.5]
    assert entries[3]["vs_a"][1] == pytest.approx(1.0)
    assert "speedup" not in entries[2]


def example(device: str = "CPU: some") -> dict:
    entries = [
        {
            "row": "a",
            "label": "tutorial",
            "ours": False,
            "status": "ok",
            "ms": [9.0, 10.0, 11.0],
            "samples_ms": [10.0] * 3,
            "images_per_s": 100.0,
        },
        {
            "row": "d",
            "label": "compiled",
            "ours": False,
            "status": "failed",
            "error": "RuntimeError: no double backward",
        },
        {
            "row": "i",
            "label": "fastgan",
            "ours": True,
            "status": "ok",
            "ms": [11.0, 12.5, 13.0],
            "samples_ms": [12.5] * 3,
            "images_per_s": 80.0,
            "saved_MiB": 12.0,
            "roofline": 0.25,
        },
    ]
    benchmark.compare(entries)
    about = dict.fromkeys(("driver", "cuda", "python"), "") | {
        "device": device,
        "threads": 2,
        "cores": 2,
        "torch": "2.13",
        "triton": "3.7",
        "commit": "abc",
        "date": "2026-01-01",
    }
    suite = {
        "suite": "dcgan-32-b64",
        "kind": "rows",
        "what": "DCGAN",
        "batch": 64,
        "images_per_step": 64,
        "device": "cpu" if device.startswith("CPU") else "cuda",
        "compute": "fp32",
        "gate_steps": [0],
        "rows": entries,
        "work": {
            "gflop": 20.0,
            "gbytes": 1.0,
            "floor_ms": 1.0,
            "copy_gbs": 10.0,
            "matmul_tflops": 0.1,
        },
    }
    return {"machine": about, "quick": False, "suites": [suite]}


def test_table_shows_losses_errors_and_the_machine() -> None:
    text = tables.table(example())
    assert "no double backward" in text
    assert "a loss: 0.80" in text
    assert "[CPU, fp32; gradients judged at steps 0]" in text
    assert "25 %" in text
    assert "busy" not in text
    loaded = example()
    loaded["machine"]["load"] = 7.0
    assert "do not quote it" in tables.table(loaded)


def test_readme_is_filled_between_its_markers_and_says_what_is_not_measured() -> None:
    filled = readme_tables.fill(
        f"top\n{readme_tables.BEGIN}\nold\n{readme_tables.END}\nend\n",
        readme_tables.markdown([example()]),
    )
    assert "old" not in filled
    assert filled.startswith("top\n")
    assert filled.endswith("end\n")
    assert "GPU figures: not measured yet." in filled
    assert "0.80x (0.80 to 0.80)" in filled
    assert "not measured" not in readme_tables.markdown([example("NVIDIA")])
    assert readme_tables.NOT_MEASURED in readme_tables.markdown([])
    with pytest.raises(FastganError, match="bench:begin"):
        readme_tables.fill("no markers", "x")


def test_readme_shows_a_figure_drawn_from_the_committed_result(tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{readme_tables.BEGIN}\n{readme_tables.END}\nbelow\n")
    CliRunner().invoke(command, ["--readme", str(readme)], catch_exceptions=False)
    text = readme.read_text()
    assert text.startswith("above")
    assert text.endswith("below\n")
    assert "(docs/images/speedup.png)" in text
    assert [p.name for p in (tmp_path / "docs/images").iterdir()] == ["speedup.png"]


def test_readme_takes_the_stronger_rival_where_a_suite_ran_in_two_parts() -> None:
    two = example()
    other = copy.deepcopy(two["suites"][0])
    other["rows"][0] |= {"row": "c", "ms": [4.0, 5.0, 6.0], "samples_ms": [5.0] * 3}
    benchmark.compare(other["rows"])
    two["suites"].append(other)
    text = readme_tables.markdown([two])
    assert "0.40x" in text
    assert "0.80x" not in text


def test_json_and_csv_hold_every_row(tmp_path) -> None:
    result_files.write_json(example(), tmp_path / "bench-x.json")
    assert result_files.read(tmp_path)[0]["suites"][0]["rows"][1]["error"].startswith(
        "RuntimeError"
    )
    result_files.write_csv(example(), tmp_path / "x.csv")
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("suite,")
    assert "no double backward" in lines[2]


def test_plots(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    from fastgan.bench import plots

    result = example()
    larger = copy.deepcopy(result["suites"][0])
    larger |= {"suite": "dcgan-32-b128", "batch": 128}
    result["suites"].append(larger)
    assert [p.name for p in plots.draw(result, tmp_path)] == [
        "speedup.png",
        "roofline.png",
        "batch.png",
    ]


def test_ablation_adds_to_the_row_before() -> None:
    entries = [
        {"row": str(i), "ours": False, "ms": [m, m, m], "samples_ms": [m] * 3}
        for i, m in enumerate((8.0, 4.0, 2.0))
    ]
    benchmark.compare(entries, "ablation")
    assert [e["speedup"][1] for e in entries] == [1.0, 2.0, 4.0]
    assert [e["step"][1] for e in entries] == [1.0, 2.0, 2.0]
    shown = example()
    shown["suites"][0] |= {
        "kind": "ablation",
        "rows": [e | {"label": "", "images_per_s": 1.0} for e in entries],
    }
    text = tables.table(shown)
    assert "vs first  vs before" in text
    assert "4.00x      2.00x" in text
