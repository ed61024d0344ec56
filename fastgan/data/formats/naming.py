"""The name of a file's format by its first bytes, for messages about what is not read."""

from __future__ import annotations

HEAD = 512
"""Bytes that tell every format here: those of tar stand at 257."""

_UNPACK, _CONVERT = "unpack it, and give the folder", "save as PNG, JPEG or WebP"
_FORMATS: tuple[tuple[int, bytes, str, str], ...] = (
    (257, b"ustar", "a tar file", _UNPACK),
    (0, b"\x1f\x8b", "a gzip file", _UNPACK),
    (0, b"BZh", "a bzip2 file", _UNPACK),
    (0, b"\xfd7zXZ\0", "an xz file", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z file", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR file", _UNPACK),
    (0, b"PK\x03\x04", "a zip file", _UNPACK),
    (0, b"PK\x05\x06", "an empty zip file", "put images into it"),
    (0, b"\x93NUMPY", "an array of numpy", "give the file itself"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "save its arrays with numpy.savez"),
    (0, b"MATLAB 5.0", "a file of MATLAB", "save its arrays with numpy.savez"),
    (0, b"MATLAB 7.3", "a file of MATLAB", "save its arrays with numpy.savez"),
    (128, b"DICM", "a DICOM image", _CONVERT),
    (344, b"n+1\0", "a NIfTI file", "save its arrays with numpy.save"),
    (16, b"\xde\xc0\xef\xbe", "an LMDB database", "write its images into a folder"),
    (0, b"ARROW1", "an Arrow file", "write its images into a folder"),
    (0, b"\0\0\1\0", "an icon", _CONVERT),
    (8, b"AVI ", "a film", "save its frames as images"),
    (8, b"WAVE", "a sound", "give images, or learn sounds with --recipe voice"),
    (8, b'{"', "a safetensors file", "save its arrays with numpy.savez"),
    (0, b"PAR1", "a Parquet file", "write its images into a folder"),
    (0, b"SQLite format 3\0", "an SQLite file", "write its images into a folder"),
    (0, b"%PDF", "a PDF", _CONVERT),
    (0, b"8BPS", "a Photoshop file", _CONVERT),
    (0, b"qoif", "a QOI image", _CONVERT),
    (0, b"SIMPLE  =", "a FITS file", "save its arrays with numpy.save"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image", _CONVERT),
    (0, b"\xff\x0a", "a JPEG XL image", _CONVERT),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image", _CONVERT),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image", _CONVERT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image", _CONVERT),
    (4, b"ftypavif", "an AVIF image", _CONVERT),
    (4, b"ftypavis", "an AVIF image", _CONVERT),
    (4, b"ftyphei", "a HEIC image", _CONVERT),
    (4, b"ftypmif1", "a HEIC image", _CONVERT),
    (4, b"ftyp", "a film", "save its frames as images"),
    (0, b"\x1aE\xdf\xa3", "a film", "save its frames as images"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "fetch the file with git lfs pull"),
    (0, b"\x80\x02", "a pickle, which is never loaded", "save its arrays with numpy.savez"),
    (0, b"\x80\x03", "a pickle, which is never loaded", "save its arrays with numpy.savez"),
    (0, b"\x80\x04", "a pickle, which is never loaded", "save its arrays with numpy.savez"),
    (0, b"\x80\x05", "a pickle, which is never loaded", "save its arrays with numpy.savez"),
    (0, b"\x7fELF", "a program", "give images"),
    (0, b"MZ", "a program", "give images"),
)
_MARKUP = (
    (b"<!doctype html", "a web page", "the download has failed: fetch the file itself"),
    (b"<html", "a web page", "the download has failed: fetch the file itself"),
    (b"<svg", "an SVG drawing", _CONVERT),
    (b"<?xml", "an XML file", "give images"),
    (b"{", "a JSON file", "give the images it belongs to"),
)


def named(head: bytes) -> str | None:
    """ "a tar file: unpack it, and give the folder", from up to HEAD first bytes of a file; None
    for formats that are not known by them."""
    for place, magic, name, remedy in _FORMATS:
        if head[place : place + len(magic)] == magic:
            return f"{name}: {remedy}"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:32].lower()
    for magic, name, remedy in _MARKUP:
        if start.startswith(magic):
            return f"{name}: {remedy}"
    return None
