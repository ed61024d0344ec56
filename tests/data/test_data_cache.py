"""The cache of decoded images survives kills, races, damage, changed sources and full disks."""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from io import BytesIO
from pathlib import Path

import filelock
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fastgan.data as data
from fastgan import files
from fastgan.data import building, cache
from fastgan.data.dataset import RowDigest
from fastgan.errors import FastganError


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    out = tmp_path / "mine"
    out.mkdir()
    for i, image in enumerate(pictures(40)):
        Image.fromarray(image).save(out / f"{i:03}.png")
    old = time.time() - 100
    for path in out.iterdir():
        os.utime(path, (old, old))
    return out


def pictures(count: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def forbid(monkeypatch, name: str) -> None:
    def fail(*_):
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(name, fail)


def run(code: str) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_images_are_decoded_once_and_a_moved_folder_is_recognised(
    folder, monkeypatch, tmp_path, store
):
    first = data.open(folder)
    forbid(monkeypatch, "fastgan.data.building.decode")
    assert np.array_equal(data.open(folder).array("image"), pictures(40))
    folder.rename(tmp_path / "moved")
    again = data.open(tmp_path / "moved")
    assert again.fingerprint == first.fingerprint
    assert again.array("image").filename == first.array("image").filename
    assert isinstance(again.array("image"), np.memmap)


def test_a_settled_folder_is_not_even_read_again(folder, monkeypatch):
    monkeypatch.setattr(
        "fastgan.data.listing._SETTLED_SECONDS", -1
    )  # else the links count from two seconds after the files
    first = data.open(folder)
    forbid(monkeypatch, "fastgan.data.listing.Folder.read")
    assert data.open(folder).fingerprint == first.fingerprint


def test_fresh_files_are_read_again_because_times_are_coarse(folder, store):
    data.open(folder)  # the files' ctime is now
    assert not list(store.glob("*.link"))
    time.sleep(2.1)
    data.open(folder)
    assert len(list(store.glob("*.link"))) == 1


@pytest.mark.parametrize("settled", [-1, 2])
def test_every_change_of_the_source_is_seen(folder, monkeypatch, settled):
    monkeypatch.setattr("fastgan.data.listing._SETTLED_SECONDS", settled)
    seen = {data.open(folder).fingerprint}
    path = folder / "004.png"
    before = path.stat()
    other = pictures(40)[4].copy()
    other[0, 0, 0] ^= 255
    Image.fromarray(other).save(path, compress_level=0)
    raw = path.read_bytes()
    Image.fromarray(pictures(40)[4]).save(path, compress_level=0)
    seen.add(data.open(folder).fingerprint)
    assert len(seen) == 1  # other bytes, the same pixels
    assert len(raw) == path.stat().st_size
    path.write_bytes(raw)  # the same name, size and modification time, other pixels
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    seen.add(data.open(folder).fingerprint)
    assert len(seen) == 2
    path.unlink()
    assert len(data.open(folder)) == 39
    shutil.copy(folder / "000.png", folder / "zzz.png")
    assert np.array_equal(data.open(folder).array("image")[-1], pictures(1)[0])


def test_size_and_channels_have_entries_of_their_own(folder, store):
    shapes = {
        data.open(folder, size=s, channels=c).fields["image"].shape
        for s in (None, 4)
        for c in (1, 3)
    }
    assert shapes == {(8, 8, 1), (8, 8, 3), (4, 4, 1), (4, 4, 3)}
    assert len(list(store.glob("*.fgdata"))) == 4


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_entry_is_detected(tmp_path_factory, place, bit, cut):
    directory = tmp_path_factory.mktemp("entry")
    writer = cache.Writer(
        directory, {"image": ("image", (4, 4, 3), np.uint8), "label": ("label", (), np.int64)}, 30
    )
    writer.append("image", pictures(20, 4))
    writer.append("label", np.arange(20))
    writer.finish({"skipped": []}, [f"{i}" for i in range(20)])
    writer.commit(directory / "x.fgdata")
    entry = cache.Entry(directory / "x.fgdata")
    assert np.array_equal(entry.arrays["image"], pictures(20, 4))
    assert entry.names() == [f"{i}" for i in range(20)]
    raw = bytearray((directory / "x.fgdata").read_bytes())
    at = int(place * len(raw))
    damaged = raw[:at] if cut else raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :]
    (directory / "x.fgdata").write_bytes(damaged)
    try:
        entry = cache.Entry(directory / "x.fgdata")
    except (ValueError, OSError, KeyError, TypeError):
        return
    # What may change unseen is the padding between fields, and the names, which are checked when
    # asked for.
    assert np.array_equal(entry.arrays["image"], pictures(20, 4))
    assert np.array_equal(entry.arrays["label"], np.arange(20))
    with contextlib.suppress(FastganError):
        assert entry.names() == [f"{i}" for i in range(20)]


def test_a_damaged_entry_is_built_again(folder, store):
    data.open(folder)
    entry = next(store.glob("*.fgdata"))
    size = entry.stat().st_size
    os.truncate(entry, size - 1)
    assert np.array_equal(data.open(folder).array("image"), pictures(40))
    with entry.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\0\1\2\3\4\5\6\7")
    assert np.array_equal(data.open(folder).array("image"), pictures(40))
    entry.write_bytes(b"")
    assert np.array_equal(data.open(folder).array("image"), pictures(40))


SLOW = """
    import sys, time
    from fastgan.data import building
    import fastgan.data as data
    real = building.decode
    def slow(*args):
        time.sleep({delay})
        print("x", end="", flush=True)
        return real(*args)
    building.decode = slow
    print(data.open({folder!r}, workers=1).fingerprint)
"""


def test_a_killed_build_leaves_nothing_wrong(folder, store):
    for stop in (1, 5, 20, 39):
        process = run(SLOW.format(folder=str(folder), delay=0.004))
        assert process.stdout.read(stop) == "x" * stop
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        process.stderr.close()
        assert not list(store.glob("*.fgdata"))
    assert list(store.glob("*.part"))  # at least one kill came in the midst of writing
    assert np.array_equal(data.open(folder).array("image"), pictures(40))
    assert not list(store.glob("*.part"))
    assert not list(store.glob("*.lock"))


def being_written(store):
    for part in store.glob("*.part"):
        with contextlib.suppress(FileNotFoundError), contextlib.closing(files.Lock(part, 0)) as one:
            if one.held is False:
                return True
    return False


def test_two_processes_build_one_entry_and_cleaning_spares_the_living(folder, store):
    builders = [run(SLOW.format(folder=str(folder), delay=0.06)) for _ in range(2)]
    deadline = time.time() + 60
    while not being_written(store) and time.time() < deadline:
        time.sleep(0.005)
    cache.clean(store)
    assert list(store.glob("*.part"))  # the live builder's
    results = [builder.communicate(timeout=60) for builder in builders]
    outs, errors = [r[0] for r in results], [r[1] for r in results]
    assert {out.strip("x\n") for out in outs} == {data.open(folder).fingerprint}
    assert sorted(out.count("x") > 0 for out in outs) == [False, True], (
        errors
    )  # the second waited for the first
    assert len(list(store.glob("*.fgdata"))) == 1
    assert not list(store.glob("*.part"))


def test_a_cleaner_between_making_and_locking_takes_nothing(store, monkeypatch):
    real, taken = files._lock_descriptor, []

    def second(descriptor):
        if taken:
            return real(descriptor)
        taken.extend(store.glob("*.part"))
        with open(taken[0], "rb") as cleaner:
            assert real(cleaner.fileno())
            held = real(descriptor)
            taken[0].unlink()
        return held

    monkeypatch.setattr(files, "_lock_descriptor", second)
    writer = cache.Writer(store, {"image": ("image", (2,), "uint8")}, 1)
    assert taken
    assert writer.path not in taken
    cache.clean(store)
    assert writer.path.exists()


def test_without_locks_two_builders_still_end_with_a_right_entry(folder, store, monkeypatch):
    def unsupported(handle, **_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock, "lock_descriptor", unsupported)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: data.open(folder), range(4)))
    assert len({d.fingerprint for d in opened}) == 1
    assert all(np.array_equal(d.array("image"), pictures(40)) for d in opened)


def test_an_interrupted_build_removes_its_file(folder, store, monkeypatch):
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return pictures(1)[0]

    monkeypatch.setattr(building, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.open(folder, workers=1)
    assert list(store.iterdir()) == []


def test_unwritable_and_full_disks_are_one_line_with_the_remedy(folder, tmp_path, store):
    (tmp_path / "file").write_text("")
    with pytest.raises(FastganError, match=r"cannot write the image cache in .*set FASTGAN_CACHE"):
        data.open(folder, cache_dir=tmp_path / "file" / "cache")
    process = run(
        f"""
        import resource, signal
        import fastgan.data as data
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        try:
            data.open({str(folder)!r})
        except Exception as error:
            print(type(error).__name__, error)
        """
    )
    out, _ = process.communicate(timeout=60)
    assert out.startswith("FastganError cannot write the image cache in")
    assert "MiB are needed); set FASTGAN_CACHE" in out
    assert out.count("\n") == 1
    assert list(store.iterdir()) == []


@given(cuts=st.lists(st.integers(0, 50), max_size=6))
@settings(deadline=None)
def test_digests_do_not_depend_on_how_rows_arrive(cuts):
    rows = pictures(50, 4)
    whole = RowDigest((4, 4, 3), rows.dtype)
    whole.rows = 7
    whole.update(rows)
    parts = RowDigest((4, 4, 3), rows.dtype)
    parts.rows = 7
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 50], strict=True):
        parts.update(rows[start:end])
    assert parts.hexdigest() == whole.hexdigest()
    assert len(whole.all_chunks()) == 8


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="reads the peak of resident memory from the Linux kernel"
)
def test_memory_does_not_grow_with_the_data(tmp_path):
    def peak(count: int) -> float:
        with zipfile.ZipFile(tmp_path / f"{count}.zip", "w") as out:
            for i in range(64):
                data_ = BytesIO()
                Image.fromarray(pictures(64, 64)[i]).save(data_, "PNG", compress_level=0)
                for k in range(i, count, 64):
                    out.writestr(f"{k:06}.png", data_.getvalue())
        process = run(
            f"""
            import fastgan.data as data, re
            dataset = data.open({str(tmp_path / f"{count}.zip")!r})
            assert len(dataset) == {count}
            status = open("/proc/self/status").read()
            print(re.search(r"VmHWM:\\s+(\\d+)", status)[1])
            """
        )
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        return int(out) / 1024

    small, large = peak(2_000), peak(20_000)
    # 18,000 more images are 211 MiB. What may grow is their names (1 kB each, generously) and what
    # is checked of the entry.
    assert large - small < 18 + 64, (small, large)
