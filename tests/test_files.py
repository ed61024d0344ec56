"""Locks and atomic writes, which runs and caches share."""

import ast
import errno
import os
import signal
import threading
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image
from run_support import leftovers, tiny

import fastgan
from fastgan import files
from fastgan.cli.main import group, main
from fastgan.errors import FastganError, printable
from fastgan.runs.run_folder import RunFolder


def test_a_lock_is_held_by_one_and_names_it(tmp_path):
    first = files.Lock(tmp_path / "lock")
    first.sign()
    second = files.Lock(tmp_path / "lock")
    assert (first.held, second.held, second.holder()) == (True, False, os.getpid())
    first.close()
    assert files.Lock(tmp_path / "lock").held


def test_a_lock_ends_with_its_process(tmp_path):
    ready, child = os.pipe(), os.fork()
    if child == 0:
        lock = files.Lock(tmp_path / "lock")
        lock.sign()
        os.write(ready[1], b"x")
        signal.pause()
    os.read(ready[0], 1)
    with pytest.raises(FastganError, match=rf"process {child}\)"):
        refused(tmp_path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert files.Lock(tmp_path / "lock").held


def refused(folder):
    (folder / "lock").rename(folder / "run.lock")
    try:
        RunFolder(folder).create()
    finally:
        (folder / "run.lock").rename(folder / "lock")


def test_a_lock_changes_no_file_and_follows_no_link(tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "notes.txt")
    with pytest.raises(OSError, match="it is a link"):
        files.Lock(tmp_path / "lock")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        files.Lock(tmp_path / "pipe")
    files.Lock(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "precious"
    with pytest.raises(FileNotFoundError):
        files.Lock(tmp_path / "none", 0)


def test_a_run_goes_on_where_the_file_system_has_no_locks(tmp_path, monkeypatch):
    def unsupported(handle, **_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock, "lock_descriptor", unsupported)
    tiny(tmp_path / "run").close()
    tiny(tmp_path / "run", resume=True).close()


def test_writers_of_one_file_at_once_leave_one_of_them_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    contents, failed = [bytes([i]) * 100_000 for i in range(8)], []

    def write(data):
        try:
            for _ in range(20):
                files.write_atomically(tmp_path / "file", data)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert (tmp_path / "file").read_bytes() in contents
    assert leftovers(tmp_path) == []


LOOK_UPS = {"exists", "is_file", "is_dir", "is_symlink", "is_mount", "expanduser"}
OWN_METHODS = {
    "self",
    "self.folder",
    "RunFolder(folder)",
    "RunFolder(out)",
    "info",
    "entry",
}  # of no Path
ROOMS = (
    *("cli", "cpu", "data", "distributed", "export", "graphs", "judges", "latent", "metrics"),
    *("models", "monitor", "objectives", "recipes", "reports", "runs", "trainer", "ui"),
)


def test_all_paths_are_looked_up_in_one_place():
    """Path.exists() and its like raise for another user's folder and for a name that is too long
    (Python 3.11); `expanduser` for a user who is not there. files.kind and files.path_of do not."""
    product = Path(files.__file__).parent
    found = []
    for source in sorted(p for room in ROOMS for p in (product / room).rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LOOK_UPS
                and ast.unparse(node.func.value) not in OWN_METHODS
            ):
                found.append(f"{source.relative_to(product)}:{node.lineno} {ast.unparse(node)}")
    assert found == []


BAD_PATHS = {
    "x" * 300: "File name too long",
    "private/inside": "Permission denied",
    "a/\0b": "null byte",
    "~nobody-has-this-name/x": "no such user",
    "": "empty",
    "\ud800": "no name that a file can have",
}


def refusing(real):
    def call(path, *args, **kwargs):
        if str(path).startswith("private/"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *args, **kwargs)

    return call


@pytest.mark.parametrize("bad", BAD_PATHS, ids=lambda bad: ascii(bad)[:12])
def test_a_path_that_cannot_be_looked_at_is_one_line(bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("stat", "lstat", "open"):  # root, who may look everywhere, runs this as well
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    tries = {
        "data": lambda: fastgan.data.open(bad),
        "labels": lambda: fastgan.data.open(np.zeros((2, 8, 8), np.uint8), labels=bad),
        "cache": lambda: (
            fastgan.data.open(tmp_path, cache_dir=bad) if bad in ("", *TILDE) else no()
        ),
        "load": lambda: fastgan.load(bad),
        "sample": lambda: fastgan.sample(bad, 1),
        "out": lambda: RunFolder(bad).create(),
        "open": lambda: RunFolder(bad).open(),
        **{
            " ".join(args[:1]): lambda args=args: group.main(args=args, standalone_mode=False)
            for args in (
                ["data", bad],
                ["train", "--data", bad, "--steps", "1"],
                ["train", "--out", bad, "--steps", "1"],
                ["train", "--resume", bad, "--steps", "1"],
                ["train", "--config", bad, "--steps", "1"],
                ["sample", bad],
                ["evaluate", bad],
                ["report", bad],
                ["timelapse", bad],
                ["compare", bad, bad],
                ["interpolate", bad],
                ["directions", bad],
                ["invert", bad, "x.png"],
                ["export", bad, "--out", "x"],
                ["ui", bad],
                ["demo", "--out", bad, "--steps", "1"],
            )
        },
    }
    for name, attempt in tries.items():
        with pytest.raises(FastganError, match=BAD_PATHS[bad]) as caught:
            attempt()
        assert "\n" not in str(caught.value), name
    assert os.listdir(tmp_path) == []


TILDE = [bad for bad in BAD_PATHS if bad.startswith("~")]


def no():
    raise FastganError("; ".join(BAD_PATHS.values()))


def test_what_is_no_file_is_not_replaced_by_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for there in ("pipe", ".", "..", "/", "/dev/null", str(tmp_path)):
        with pytest.raises(
            FastganError, match=r"can't write .*: a (folder|pipe or device) is there"
        ):
            files.replace(Path(there), b"x")
    assert os.listdir(tmp_path) == ["pipe"]
    assert not (tmp_path / "pipe").is_file()


def test_text_files_of_windows_are_read():
    for coding in ("utf-8", "utf-8-sig", "utf-16"):
        assert files.text("steps = 2  # ü\r\n".encode(coding)) == "steps = 2  # ü\r\n"


HOSTILE = [
    "\x1b[31mred",
    "two\nlines",
    "\r\x08back",
    "\u202egnp.exe",
    "\u200bhidden",
    "\udc80",
    "\x9b1m",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_names_from_outside_are_printed_as_what_they_are(name, tmp_path, monkeypatch, capfd):
    """Whatever leaves the program shows no control character and keeps to its line."""
    monkeypatch.chdir(tmp_path)
    folder = Path(f"data {name}")
    for kind in (f"a {name}", f"b {name}"):
        (folder / kind).mkdir(parents=True)
        (folder / kind / f"broken {name}.png").write_bytes(b"\x89PNG")
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / kind / "x.png")
    for args, code in ((["data", str(folder)], 0), (["data", f"none {name}"], 2)):
        with pytest.raises(SystemExit) as done:
            main(args)
        assert done.value.code == code
    said = "".join(capfd.readouterr())
    assert all(line.isprintable() for line in said.splitlines())
    assert said.count("\n") == 8  # the set, decoded, a note, two classes, two left out; no data
    assert printable(name) in said
