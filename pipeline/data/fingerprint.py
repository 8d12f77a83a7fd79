"""Tells whether a data source has changed, without decoding it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from devices.digests import file_digest, value_digest
from pipeline.data.config import DataConfig


def fingerprint(config: DataConfig) -> str:
    """Digest of a source's content: of a file's bytes, or of a folder's names, sizes and change times.

    A source that is missing has a fingerprint too; reading it will say what is wrong.
    """
    path = config.path
    if path is None:
        try:
            return value_digest(["scikit-learn", version("scikit-learn")])
        except PackageNotFoundError:
            return "missing"
    if path.is_file():
        return file_digest(path)
    if not path.is_dir():
        return "missing"
    entries = []
    for entry in sorted(path.rglob("*")):
        if entry.is_file():
            stat = entry.stat()
            entries.append([entry.relative_to(path).as_posix(), stat.st_size, stat.st_mtime_ns])
    return value_digest(entries)
