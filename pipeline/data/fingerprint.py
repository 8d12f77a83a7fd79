"""Tells whether a data source has changed, without decoding it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from devices.digests import file_digest, value_digest
from pipeline.data.config import DataConfig


def fingerprint(config: DataConfig) -> str:
    """Digest of a source's content: of a file's bytes, or of a folder's names, sizes and change times.

    Of a table, both: the folder is that which it lies in.

    A source that is missing has a fingerprint too; reading it will say what is wrong.
    """
    path = config.path
    if path is None:
        try:
            return value_digest(["scikit-learn", version("scikit-learn")])
        except PackageNotFoundError:
            return "missing"
    if config.kind == "table" and path.is_file():
        return value_digest([file_digest(path), _entries(path.parent)])
    if path.is_file():
        return file_digest(path)
    return value_digest(_entries(path)) if path.is_dir() else "missing"


def _entries(folder: Path) -> list[list[str | int]]:
    """Name, size and change time of every file, also below folders that are links."""
    found = sorted(_files(folder, frozenset()))
    return [
        [entry.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns]
        for entry, stat in zip(found, (entry.stat() for entry in found), strict=True)
    ]


def _files(folder: Path, around: frozenset[Path]) -> Iterator[Path]:
    """Files below a folder; a link to one of the folders around it leads nowhere new."""
    place = folder.resolve()
    if place in around or not os.access(folder, os.R_OK | os.X_OK):
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, around | {place})
        elif entry.is_file():
            yield entry
