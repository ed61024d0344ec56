"""Locks and atomic writes, which runs and caches share."""

import errno
import os
import signal
import threading

import filelock
import pytest
from run_support import leftovers, tiny

from fastgan import files
from fastgan.errors import FastganError
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
