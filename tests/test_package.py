"""The package as others get it: what a wheel holds, what it exports, how fast it starts."""

import importlib
import inspect
import json
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SIGNATURES = Path(__file__).parent / "fixtures" / "signatures.json"


def signatures() -> dict[str, str]:
    """name -> signature of everything public."""
    import fastgan

    found = {}
    for module in ("fastgan", "fastgan.objectives", "fastgan.data"):
        for name in sorted(importlib.import_module(module).__all__):
            thing = getattr(importlib.import_module(module), name)
            if inspect.isclass(thing) and not issubclass(thing, Exception):
                found[f"{module}.{name}"] = str(inspect.signature(thing))
                for method, value in inspect.getmembers(thing, inspect.isfunction):
                    if value.__module__.startswith("fastgan.") and not method.startswith("_"):
                        found[f"{module}.{name}.{method}"] = str(inspect.signature(value))
            elif inspect.isfunction(thing):
                found[f"{module}.{name}"] = str(inspect.signature(thing))
    assert fastgan.__version__
    return found


def test_public_signatures_are_pinned():
    """A change here is a change for users: note it in CHANGELOG.md, then run: python
    tests/test_package.py"""
    assert signatures() == json.loads(SIGNATURES.read_text())


def test_kernels_and_bench_are_packages_of_fastgan():
    for name in ("kernels", "bench"):
        assert importlib.import_module(f"fastgan.{name}").__name__ == f"fastgan.{name}"
        assert (ROOT / "fastgan" / name).is_symlink()


def test_dependencies_are_bounded_and_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    explained = (ROOT / "docs" / "dependencies.md").read_text()
    for requirement in project["dependencies"]:
        name = requirement.split(">")[0]
        assert "<" in requirement, requirement
        assert f"| {name} >=" in explained, name


@pytest.mark.slow
def test_wheel_holds_the_package_and_leaks_nothing(tmp_path):
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    done = subprocess.run(build, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"fastgan"}
    for needed in (
        "kernels/__init__.py",
        "kernels/common.py",
        "py.typed",
        "data/assets/fashion-mnist/t10k-images-idx3-ubyte.gz",
    ):
        assert f"fastgan/{needed}" in names
    python = {str(p.relative_to(ROOT)) for p in (ROOT / "fastgan").rglob("*.py")} | {
        f"fastgan/{p.relative_to(ROOT)}" for p in (ROOT / "kernels").rglob("*.py")
    }
    assert python <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_command_is_there():
    from fastgan.cli.main import COMMANDS, group

    for name in COMMANDS:
        assert group.get_command(None, name).name


def best_of(count: int, *arguments: str) -> float:
    """Least seconds of a few runs: on a busy machine the least is nearest to the truth."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "fastgan", *arguments], check=True, capture_output=True
        )
        times.append(time.perf_counter() - start)
    return min(times)


def test_help_is_fast():
    assert best_of(5, "--help") < 0.3
    assert best_of(2, "train", "--help") < 2


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom fastgan.cli.main import main\ntry: main(['train', '--help'])\nexcept "
        "SystemExit: pass\n"
    )
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


if __name__ == "__main__":
    SIGNATURES.write_text(json.dumps(signatures(), indent=1) + "\n")
