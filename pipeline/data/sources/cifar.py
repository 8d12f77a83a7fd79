"""CIFAR-10 and CIFAR-100 as their site ships them: Python archives, read without trusting a pickle."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from devices.untrusted import Bounded, file_bytes
from pipeline.data.sources.arrays_only import StoredArray, load_arrays
from pipeline.data.sources.base import LabelledImages, Source, missing
from pipeline.errors import DataError

_TEN_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_MEMBERS = frozenset({*_TEN_TRAIN, "test_batch", "batches.meta", "train", "test", "meta"})
_FOLDERS = ("cifar-10-batches-py", "cifar-100-python")
_MOST_BYTES = 256 << 20
_MOST_MEMBERS = 1_000
_DAMAGED = (tarfile.TarError, zlib.error, lzma.LZMAError)
_EXPECTED = "cifar-10-python.tar.gz, cifar-100-python.tar.gz, or the unpacked folder"


def read(path: Path) -> Source:
    """Read the archive or the unpacked folder; CIFAR-100 by its 100 fine labels.

    Raises:
        DataError: files are missing or damaged, or hold anything but dictionaries, numbers and byte arrays.
    """
    members = _members(path)
    if "test_batch" in members:
        train, test, meta = _TEN_TRAIN, "test_batch", "batches.meta"
        label_key, names_key = b"labels", b"label_names"
    else:
        train, test, meta = ("train",), "test", "meta"
        label_key, names_key = b"fine_labels", b"fine_label_names"
    absent = [name for name in (*train, test, meta) if name not in members]
    if absent:
        raise DataError(
            f"'{path}' lacks {', '.join(absent)}",
            why=f"expected {_EXPECTED}",
            fix="download the archive again",
        )
    batches = {name: _unpickle(name, members[name]) for name in (*train, test, meta)}
    names = _entry(batches[meta], names_key, meta)

    def split(parts: tuple[str, ...], what: str) -> LabelledImages:
        planes = [_numbers(batches[part], b"data", part) for part in parts]
        labels = [_numbers(batches[part], label_key, part) for part in parts]
        for part, plane in zip(parts, planes, strict=True):
            if plane.dtype != np.uint8 or plane.ndim != 2 or plane.shape[1] != 3072:
                raise DataError(
                    f"'{part}' does not hold 32x32 colour images",
                    why=f"its data have type {plane.dtype} and shape {plane.shape}, expected uint8 (N, 3072)",
                    fix="download the archive again",
                )
        images = np.concatenate(planes).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return LabelledImages.of_arrays(images, np.concatenate(labels), what=what)

    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(f"'{meta}' does not list the names of classes", fix="download the archive again")
    classes = tuple(name.decode(errors="replace") if isinstance(name, bytes) else name for name in names)
    return Source(split(train, "train"), split((test,), "test"), classes)


def _members(path: Path) -> dict[str, bytes]:
    try:
        if path.is_dir():
            inner = [path / name for name in _FOLDERS if (path / name).is_dir()]
            files = [file for folder in (path, *inner[:1]) for file in sorted(folder.iterdir())]
            return {
                file.name: file_bytes(file, _MOST_BYTES)
                for file in files
                if file.name in _MEMBERS and file.is_file()
            }
        if not path.is_file():
            raise missing(path, _EXPECTED)
        with path.open("rb") as packed:
            unpacked = Bounded(_unpacked(packed), path.stat().st_size)
            with tarfile.open(fileobj=io.BufferedReader(unpacked, 1 << 16), mode="r|") as archive:
                return _read_members(archive)
    except (OSError, EOFError, ValueError, MemoryError, *_DAMAGED) as error:
        raise DataError(
            f"'{path}' cannot be read as a CIFAR archive", why=str(error), fix="download it again"
        ) from error


def _unpacked(packed: IO[bytes]) -> IO[bytes] | gzip.GzipFile:
    """The stream of a tar file, whatever packed it."""
    magic = packed.read(6)
    packed.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=packed)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(packed)
    return lzma.LZMAFile(packed) if magic == b"\xfd7zXZ\x00" else packed


def _read_members(archive: tarfile.TarFile) -> dict[str, bytes]:
    found = {}
    for number, member in enumerate(archive):
        if number == _MOST_MEMBERS:
            raise ValueError(f"it has more than {_MOST_MEMBERS} members")
        name = Path(member.name).name
        if not member.isfile() or name not in _MEMBERS:
            continue
        if member.size > _MOST_BYTES:
            raise ValueError(f"its member {name} has more than {_MOST_BYTES:,} bytes")
        content = archive.extractfile(member)
        assert content is not None
        found[name] = content.read()
    return found


def _unpickle(name: str, content: bytes) -> dict[Any, Any]:
    try:
        value = load_arrays(content)
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DataError(
            f"'{name}' is not a CIFAR batch, or is damaged",
            why=str(error)[:200] or type(error).__name__,
            fix="download the archive again from the site of its authors",
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"'{name}' is not a CIFAR batch", why=f"it holds a {type(value).__name__}")
    return value


def _entry(batch: dict[Any, Any], key: bytes, name: str) -> Any:
    if key not in batch:
        raise DataError(
            f"'{name}' has no entry {key.decode()!r}",
            why=f"it has {', '.join(sorted(map(repr, batch)))[:200] or 'none'}",
            fix="download the archive again",
        )
    return batch[key]


def _numbers(batch: dict[Any, Any], key: bytes, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """An entry that is an array, or a list of whole numbers, as an array."""
    value = _entry(batch, key, name)
    if isinstance(value, StoredArray):
        return value.array
    if isinstance(value, list) and all(type(number) is int for number in value):
        return np.array(value, np.int64)
    raise DataError(
        f"entry {key.decode()!r} of '{name}' is not a list of whole numbers",
        fix="download the archive again",
    )
