"""Files that belong to a model file: an ONNX file may keep its weights in others beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from devices.artifacts.onnx_file import OnnxFile, read_onnx
from devices.digests import file_digest, value_digest
from devices.errors import MeasurementError

_LONGEST_NAME = 255
"""Bytes that file systems take for the name of a file."""

__all__ = ["artifact_digest", "companions", "onnx_facts", "refuse_incomplete"]


def companions(artifact: Path) -> Mapping[str, Path]:
    """The files beside a model that it cannot do without, by their names as the model has them.

    There are none of a file that is damaged: whoever loads it says so.
    """
    return {name: artifact.parent / name for name in _external(artifact)}


def refuse_incomplete(artifact: Path) -> None:
    """Refuse a model whose weights are not beside it.

    Raises:
        MeasurementError: naming the file that is missing, too short, or in another folder.
    """
    for name, least_bytes in _external(artifact).items():
        if not _may_be_beside(name):
            raise MeasurementError(
                f"the weights of {str(artifact)!r} are not looked for in {name!r}",
                why="a model's files lie in its folder",
                fix="save the model again, with its weights beside it",
            )
        path = artifact.parent / name
        if not path.is_file():
            raise MeasurementError(
                f"{str(artifact)!r} is only a part of a model: its weights are missing",
                why=f"they are in {name!r}, and there is no such file in {str(artifact.parent)!r}",
                fix="copy that file too, into the same folder",
            )
        if path.stat().st_size < least_bytes:
            raise MeasurementError(
                f"the weights of {str(artifact)!r} are cut",
                why=f"{name!r} has {path.stat().st_size:,} bytes, and the model needs {least_bytes:,}",
                fix="copy that file again",
            )


def _may_be_beside(name: str) -> bool:
    place = PurePosixPath(name)
    too_long = any(len(part.encode("utf-8", "replace")) > _LONGEST_NAME for part in place.parts)
    return not (place.is_absolute() or ".." in place.parts or "\0" in name or too_long)


def artifact_digest(artifact: Path) -> str:
    """SHA-256 of a model: of its file's bytes, or of those and all that belong to it.

    Raises:
        MeasurementError: a part of it is missing.
    """
    digest = file_digest(artifact)
    beside = companions(artifact)
    if not beside:
        return digest
    refuse_incomplete(artifact)
    return value_digest(
        {"model": digest, "beside": {name: file_digest(path) for name, path in beside.items()}}
    )


def onnx_facts(artifact: Path) -> OnnxFile | None:
    """Facts of an ONNX file; ``None`` for other files, and for damaged ones."""
    if artifact.suffix.lower() != ".onnx":
        return None
    try:
        seen = artifact.stat()
        return _read(artifact.absolute(), seen.st_size, seen.st_mtime_ns)
    except (OSError, ValueError):
        return None


def _external(artifact: Path) -> dict[str, int]:
    found = onnx_facts(artifact)
    return {} if found is None else found.external


@functools.lru_cache(maxsize=64)
def _read(artifact: Path, size: int, changed_ns: int) -> OnnxFile:
    """A file as it was at a time: it is asked for before every launch."""
    return read_onnx(artifact)
