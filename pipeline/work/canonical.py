"""Values as JSON that says everything of them which decides a result: what keys of stages are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import singledispatch
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from devices.digests import canonical_json, file_digest

_KEY = "key"


def by_digest(default: Any = MISSING) -> Any:
    """A field whose value counts by its ``digest`` alone: all that is read of the value follows from that."""
    return field(default=default, metadata={_KEY: "digest"})


def without_influence(default: Any = None) -> Any:
    """A field that decides nothing."""
    return field(default=default, metadata={_KEY: "none"})


@dataclass(frozen=True)
class StoredFile:
    """A file that a stage made; it counts by its content.

    Attributes:
        stage: name of the stage's folder.
        path: within that folder, with ``/``.
        digest: SHA-256 of its bytes.
    """

    stage: str
    path: str
    digest: str

    @property
    def suffix(self) -> str:
        """With its dot; it may say how the file is to be read."""
        return PurePath(self.path).suffix


@dataclass(frozen=True)
class OutsideFile:
    """A file or folder of the user's own; it counts by its name and content, wherever it lies."""

    path: Path
    digest: str

    @classmethod
    def of(cls, path: Path | None) -> OutsideFile | None:
        """A file as it is now; one that is missing has a digest too, and whoever reads it will complain."""
        if path is None:
            return None
        return cls(path, file_digest(path) if path.is_file() else "missing")


@singledispatch
def canonical(value: Any) -> Any:
    """The JSON of a value: dataclasses and models with the name of their class, and every field they have.

    Raises:
        TypeError: the value holds something whose content cannot be told, such as a path, a function or an
            open data set. ``StoredFile``, ``OutsideFile`` and ``by_digest`` are for these.
    """
    if is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: _part(each, getattr(value, each.name)) for each in fields(value) if _counts(each)}
        return {"class": type(value).__name__, **parts}
    raise TypeError(f"a {type(value).__name__} has no canonical form, so it cannot be part of a key")


@canonical.register(type(None))
@canonical.register(int)
@canonical.register(str)
def _of_json(value: Any) -> Any:
    return value


@canonical.register
def _of_float(value: float) -> Any:
    return value if math.isfinite(value) else {"float": str(value)}


@canonical.register
def _of_enum(value: Enum) -> Any:
    return canonical(value.value)


@canonical.register
def _of_stored_file(value: StoredFile) -> Any:
    return {"file": value.digest, "suffix": value.suffix}


@canonical.register
def _of_outside_file(value: OutsideFile) -> Any:
    return {"file": value.digest, "name": value.path.name}


@canonical.register
def _of_model(value: BaseModel) -> Any:
    content = {name: canonical(getattr(value, name)) for name in type(value).model_fields}
    return {"class": type(value).__name__, **content}


@canonical.register
def _of_mapping(value: Mapping) -> Any:  # type: ignore[type-arg]
    return {_name(key): canonical(each) for key, each in value.items()}


@canonical.register
def _of_set(value: Set) -> Any:  # type: ignore[type-arg]
    return sorted(map(canonical, value), key=canonical_json)


@canonical.register(tuple)
@canonical.register(list)
def _of_sequence(value: Any) -> Any:
    return [canonical(each) for each in value]


def _counts(part: Field[Any]) -> bool:
    return part.metadata.get(_KEY) != "none"


def _part(part: Field[Any], value: Any) -> Any:
    if part.metadata.get(_KEY) == "digest" and value is not None:
        return {"digest": value.digest}
    return canonical(value)


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a mapping in a key has names that are text, not {type(key).__name__}")
    return str(key)
