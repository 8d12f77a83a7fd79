"""CIFAR-10 and CIFAR-100 as their site ships them: Python archives, read without trusting a pickle."""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.sources.base import LabelledImages, Source, missing
from pipeline.errors import DataError

_TEN_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_MEMBERS = frozenset({*_TEN_TRAIN, "test_batch", "batches.meta", "train", "test", "meta"})
_FOLDERS = ("cifar-10-batches-py", "cifar-100-python")
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
        planes = [np.asarray(_entry(batches[part], b"data", part)) for part in parts]
        labels = [np.asarray(_entry(batches[part], label_key, part)) for part in parts]
        for part, plane in zip(parts, planes, strict=True):
            if plane.dtype != np.uint8 or plane.ndim != 2 or plane.shape[1] != 3072:
                raise DataError(
                    f"'{part}' does not hold 32x32 colour images",
                    why=f"its data have type {plane.dtype} and shape {plane.shape}, expected uint8 (N, 3072)",
                    fix="download the archive again",
                )
        images = np.concatenate(planes).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return LabelledImages.of_arrays(images, np.concatenate(labels), what=what)

    classes = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    return Source(split(train, "train"), split((test,), "test"), classes)


def _members(path: Path) -> dict[str, bytes]:
    try:
        if path.is_dir():
            inner = [path / name for name in _FOLDERS if (path / name).is_dir()]
            files = [file for folder in (path, *inner[:1]) for file in sorted(folder.iterdir())]
            return {
                file.name: file.read_bytes() for file in files if file.name in _MEMBERS and file.is_file()
            }
        if not path.is_file():
            raise missing(path, _EXPECTED)
        with tarfile.open(path, "r:*") as archive:
            return {
                Path(member.name).name: content.read()
                for member in archive
                if member.isfile()
                and Path(member.name).name in _MEMBERS
                and (content := archive.extractfile(member)) is not None
            }
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"'{path}' cannot be read as a CIFAR archive", why=str(error), fix="download it again"
        ) from error


def _unpickle(name: str, content: bytes) -> dict[Any, Any]:
    try:
        value = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise DataError(
            f"'{name}' is not a CIFAR batch, or is damaged",
            why=str(error) or type(error).__name__,
            fix="download the archive again from the site of its authors",
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"'{name}' is not a CIFAR batch", why=f"it holds a {type(value).__name__}")
    return value


def _entry(batch: dict[Any, Any], key: bytes, name: str) -> Any:
    if key not in batch:
        raise DataError(
            f"'{name}' has no entry {key.decode()!r}",
            why=f"it has {', '.join(sorted(map(repr, batch)))}",
            fix="download the archive again",
        )
    return batch[key]


class _ArraysOnly(pickle.Unpickler):
    """Admits the three names by which a pickle rebuilds a NumPy array, and nothing else."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)  # type: ignore[no-any-return]
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _reconstruct
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which a CIFAR batch never does")


def _reconstruct(kind: Any, shape: Any, dtype: Any) -> Any:
    if kind is not np.ndarray:
        raise pickle.UnpicklingError("the file asks for an array of an unknown class")
    return np.ndarray(shape, dtype)
