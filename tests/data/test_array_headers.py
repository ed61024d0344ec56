"""Array files whose headers lie, whose bytes changed, or whose values are no images: one line
each, before memory is taken."""

import gzip
import io
import math
import struct
import zipfile

import numpy as np
import pytest

import fastgan.data as data
from fastgan.errors import FastganError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTGAN_CACHE", str(tmp_path / "cache"))


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 6), np.uint8)
CONTENT = IMAGES.tobytes()


def idx(sizes, content=CONTENT, code=8):
    return struct.pack(f">BBBB{len(sizes)}I", 0, 0, code, len(sizes), *sizes) + content


def npy(header, content=CONTENT, version=1):
    text = header if isinstance(header, bytes) else header.encode("latin1")
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text + content


def like(shape="(12, 6, 6)", descr="'|u1'", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n"


def npz(member, compression=zipfile.ZIP_DEFLATED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive:
        archive.writestr("images.npy", member)
    return made.getvalue()


IDX = {
    "no axis": idx(()),
    "nothing in a row": idx((12, 0, 6), b""),
    "nothing in a column": idx((12, 2**27, 0), b""),
    "six axes": idx((12, 6, 3, 2, 1, 1)),
    "200 axes": idx((1,) * 200),
    "size overflow": idx((2**32 - 1,) * 4),
    "larger than the file": idx((2**31, 6, 6)),
    "one image more": idx((13, 6, 6)),
    "one image less": idx((11, 6, 6)),
    "strange type": idx((12, 6, 6), code=7),
    "cut": idx((12, 6, 6))[:-1],
    "longer": idx((12, 6, 6)) + b"\0",
    "header only": idx((12, 6, 6))[:9],
}
NPY = {
    "negative": npy(like("(-12, 6, 6)")),
    "nothing in a row": npy(like("(12, 0, 6)"), b""),
    "both negative": npy(like("(-12, -6, 6)")),
    "overflow": npy(like("(4611686018427387904, 6, 6)")),
    "digits": npy(like(f"({'9' * 5000}, 6, 6)")),
    "true": npy(like("(True, 12, 36)")),
    "float size": npy(like("(12., 6, 6)")),
    "six axes": npy(like("(12, 6, 3, 2, 1, 1)")),
    "huge": npy(like("(1000000, 1000, 1500)", order="True")),
    "huge items": npy(like("(12,)", descr="'|S2147483647'")),
    "objects": npy(like(descr="'|O'")),
    "dates": npy(like("(12, 6, 6)", descr="'<M8[ns]'"), b"\0" * 12 * 36 * 8),
    "complex": npy(like(descr="'<c16'"), b"\0" * 12 * 36 * 16),
    "records": npy(like(descr="[('a', '|u1')]")),
    "texts": npy(like(descr="'<U1'"), "x".encode("utf-32-le") * 12 * 36),
    "one axis": npy(like("(432,)")),
    "no axis": npy(like("()"), b"\0"),
    "brackets": npy("(" * 5000),
    "code": npy("__import__('os').abort()"),
    "bytes": npy(bytes(range(256))),
    "long header": npy(like() + " " * 20_000),
    "version": npy(like(), version=9),
    "longer": npy(like()) + b"\0",
    "shorter": npy(like())[:-1],
}
CASES = {
    **{f"idx {k}": ("x-idx3-ubyte", v) for k, v in IDX.items()},
    **{f"idx.gz {k}": ("x-idx3-ubyte.gz", gzip.compress(v)) for k, v in IDX.items()},
    **{f"npy {k}": ("x.npy", v) for k, v in NPY.items()},
    **{f"npz {k}": ("x.npz", npz(v)) for k, v in NPY.items()},
    **{f"stored {k}": ("x.npz", npz(v, zipfile.ZIP_STORED)) for k, v in NPY.items()},
}


@pytest.mark.parametrize("case", CASES)
def test_a_header_is_checked_before_it_is_believed(case, tmp_path):
    name, content = CASES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FastganError) as error:
        data.open(tmp_path / name)
    assert "\n" not in str(error.value)
    assert "allow_pickle" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("images", [IMAGES, np.asfortranarray(IMAGES), IMAGES / 255.0])
def test_what_is_sound_is_read(images, tmp_path):
    np.save(tmp_path / "x.npy", images)
    np.savez(tmp_path / "x.npz", images)
    np.savez_compressed(tmp_path / "y.npz", images)
    for name in ("x.npy", "x.npz", "y.npz"):
        assert np.array_equal(data.open(tmp_path / name).array("image")[..., 0], IMAGES)


@pytest.mark.parametrize("content", [CONTENT, bytes(432)], ids=["noisy", "smooth"])
@pytest.mark.parametrize("kind", ["idx.gz", "npz"])
def test_changed_bytes_never_become_other_pixels(kind, content, tmp_path):
    images = np.frombuffer(content, np.uint8).reshape(12, 6, 6)
    if kind == "npz":
        whole = npz(npy(like(), content))
    else:
        whole = gzip.compress(idx((12, 6, 6), content), mtime=0)
    path = tmp_path / f"x-idx3-ubyte.{kind.removeprefix('idx.')}"
    damaged = [whole[:-n] for n in (1, 4, 8, 30)] + [whole + b"x" * 9]
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
    refused = 0
    for changed in damaged:
        path.write_bytes(changed)
        try:
            found = data.open(path).array("image")
        except FastganError as error:
            refused += "\n" not in str(error)
        else:
            assert np.array_equal(found[..., 0], images)
    assert refused > len(damaged) / 2


def test_arrays_in_memory_hold_numbers_and_images():
    for array in (np.full((4, 8, 8), "x"), np.zeros((4, 8, 8), complex), np.zeros(9)):
        with pytest.raises(FastganError, match="give"):
            data.open(array)
    with pytest.raises(FastganError, match="give numbers"):
        data.open(np.zeros((4, 8, 8), "M8[s]"))
    assert math.prod(data.open(np.zeros((9, 2), np.float32)).fields["image"].shape) == 2
    for size in (True, "8", 8.0, (8,), None):
        if size is not None:
            with pytest.raises(FastganError, match="size must be"):
                data.open(IMAGES, size=size)


FOREIGN = {
    "x.tar": (bytes(257) + b"ustar\x0000" + bytes(300), "is a tar file: unpack it"),
    "x.tgz": (gzip.compress(bytes(257) + b"ustar\x0000" + bytes(300)), "a gzip file: unpack it"),
    "x.tar.gz": (gzip.compress(bytes(257) + b"ustar\x0000" + bytes(300)), "tar file: unpack it"),
    "x.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
    "x.avif": (b"\0\0\0\x20ftypavif" + bytes(99), "is an AVIF image"),
    "x.mp4": (b"\0\0\0\x20ftypisom" + bytes(99), "is a film: save its frames"),
    "x.pkl": (b"\x80\x04\x95" + bytes(99), "is a pickle, which is never loaded"),
    "x.idx": (b"<!DOCTYPE html><p>not found", "is a web page: the download has failed"),
    "x.zip": (b"version https://git-lfs.github.com/spec/v1\n", "fetch the file with git lfs pull"),
    "x.avi": (b"RIFF\0\0\0\0AVI LIST" + bytes(99), "is a film"),
    "x.wav": (b"RIFF\0\0\0\0WAVEfmt " + bytes(99), "is a sound"),
    "x.dcm": (bytes(128) + b"DICM" + bytes(99), "is a DICOM image"),
    "x.nii": (b"\x5c\x01" + bytes(342) + b"n+1\0" + bytes(99), "is a NIfTI file"),
    "x.mdb": (bytes(16) + b"\xde\xc0\xef\xbe" + bytes(99), "is an LMDB database"),
    "x.arrow": (b"ARROW1\0\0" + bytes(99), "is an Arrow file"),
    "x.safetensors": (b"\x02" + bytes(7) + b'{"x": 1}', "is a safetensors file"),
    "x.mat": (b"MATLAB 7.3 MAT-file" + bytes(99), "is a file of MATLAB"),
    "x.ico": (b"\0\0\1\0" + bytes(99), "is an icon"),
    "x.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "is a 7z file"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_format_is_named_alone_and_in_a_folder(name, tmp_path):
    content, words = FOREIGN[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(FastganError, match=words):
        data.open(folder / name)
    with pytest.raises(FastganError, match="no readable image") as error:
        data.open(folder)
    assert "not an image" not in str(error.value)
