"""What ships: a compiled file, known by its digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devices.digests import file_digest
from devices.target import Target
from pipeline.export.base import Format


@dataclass(frozen=True)
class Artifact:
    """A compiled file for one target.

    Attributes:
        path: the file.
        digest: SHA-256 of its bytes.
        target: where it runs.
        format: what it is.
        notes: how it was compiled, and what to mind when it is loaded.
    """

    path: Path
    digest: str
    target: Target
    format: Format
    notes: Mapping[str, str]

    @classmethod
    def of(cls, path: Path, target: Target, fmt: Format, notes: Mapping[str, str]) -> Artifact:
        """The artifact in an existing file."""
        return cls(path, file_digest(path), target, fmt, dict(notes))
