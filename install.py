"""What `make setup` does, with the standard library alone: look for a GPU, choose PyTorch's build,
say what comes and how large it is, install it.

No probe can make it fail: what can't be found out is left to pip, as it is configured.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS = 3.0
"""How long that index may take to answer."""

CPU, CUDA = (600, 2000), (3100, 8000)
"""MB to download and on the disk, with the tests' packages: torch 2.13 for Linux and triton."""


def has_gpu(
    run: Callable[..., subprocess.CompletedProcess] = subprocess.run,
    driver: str = "/proc/driver/nvidia/gpus",
) -> bool:
    """Whether there is an NVIDIA GPU that its driver knows."""
    try:
        said = run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10)
        if said.returncode == 0 and "GPU" in said.stdout:
            return True
    except (OSError, ValueError, subprocess.SubprocessError):
        pass
    try:
        return bool(os.listdir(driver))
    except OSError:
        return False


def reachable(url: str = CPU_INDEX, seconds: float = SECONDS) -> bool:
    """Whether the index answers in time, for torch itself; looking up its name counts too."""
    answers = []

    def ask() -> None:
        # no network, a proxy's own answer, a certificate: each means "not from there"
        with contextlib.suppress(Exception), urllib.request.urlopen(f"{url}/torch/") as answer:
            answers.append(answer.status)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers == [200]


def choose(gpu: bool, system: str, answers: Callable[[], bool]) -> tuple[bool, str]:
    """(whether torch comes from PyTorch's CPU index, why)."""
    if gpu:
        return False, "an NVIDIA GPU is here: PyTorch's CUDA build"
    if system != "Linux":
        return False, f"no NVIDIA GPU here: {system}'s usual build of PyTorch"
    if answers():
        return True, "no NVIDIA GPU here: PyTorch's CPU build"
    return False, (
        "no NVIDIA GPU here, but PyTorch's CPU index does not answer: the build that pip is "
        "configured for"
    )


def announcement(gpu: bool, cpu: bool, system: str, why: str) -> str:
    """What comes, how large, how long."""
    (load, disk), minutes = (CPU, "2") if cpu or system != "Linux" else (CUDA, "9")
    size = f"about {load:,} MB to download and {disk:,} MB on the disk"
    if not (gpu or cpu) and system == "Linux":
        size = f"up to {CUDA[0]:,} MB to download (a CUDA build; {CPU[0]} MB if it has CPU builds)"
    return f"{why}\n  {size}: {minutes} minutes at 50 Mbit/s, none of it again next time"


def pins(text: str) -> dict[str, str]:
    """Versions by name in constraints.txt."""
    lines = (line.split("#")[0].partition(";")[0].strip() for line in text.splitlines())
    return {
        name: version for name, sign, version in (line.partition("==") for line in lines) if sign
    }


def own_settings(environment: Mapping[str, str], configured: str) -> bool:
    """Whether pip is told where to look for packages, which uv would not know."""
    words = ("index-url", "index_url", "find-links", "find_links", "no-index", "no_index")
    named = [name.lower() for name in environment if name.startswith("PIP_")]
    return any(word in line for line in (*named, *configured.splitlines()) for word in words)


def installers(python: str, uv: str | None, pip_configured: bool) -> list[list[str]]:
    """Commands to install with, the best first; a later one is for where the former fails."""
    pip = [python, "-m", "pip", "install", "--quiet"]
    if uv is None or pip_configured:
        return [pip]
    return [[uv, "pip", "install", "--quiet", "--python", python], pip]


def install(commands: list[list[str]], rest: list[str], call: Callable[..., int]) -> int:
    """The exit code of the first command that worked, or of the last."""
    code = 1
    for command in commands:
        code = call([*command, *rest])
        if code == 0:
            break
    return code


def said(command: list[str]) -> str:
    """What a command prints; nothing where it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


def main(venv: str, call: Callable[..., int] = subprocess.call) -> int:
    folder = Path(venv)
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    if not Path(python).exists() and call([sys.executable, "-m", "venv", str(folder)]):
        shutil.rmtree(folder, ignore_errors=True)  # half of one: without pip, for instance
        print("no virtual environment could be made: Debian's is python3-venv", file=sys.stderr)
        return 2
    here = Path(__file__).parent
    wanted = pins((here / "constraints.txt").read_text())["torch"]
    version = "import importlib.metadata as m; print(m.version('torch'))"
    uv = shutil.which("uv")
    configured = own_settings(os.environ, said([python, "-m", "pip", "config", "list"]))
    commands = installers(python, uv, configured)
    rest = ["--constraint", str(here / "constraints.txt")]
    if said([python, "-c", version]).partition("+")[0] == wanted:
        print(f"torch {wanted} is installed: looking after the rest", flush=True)
    else:
        gpu = has_gpu()
        cpu, why = choose(gpu, platform.system(), reachable)
        print(announcement(gpu, cpu, platform.system(), why), flush=True)
        print(f"  installing with {'uv' if len(commands) > 1 else 'pip'} into {venv}", flush=True)
        if cpu and install(commands, ["--index-url", CPU_INDEX, f"torch=={wanted}"], call):
            print("  PyTorch's CPU index failed: going on as pip is configured", flush=True)
    return install(commands, [*rest, "--editable", f"{here}[dev]"], call)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
