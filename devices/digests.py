"""Content digests: of files, and of values through their canonical JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["canonical_json", "file_digest", "value_digest"]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text.

    Raises:
        ValueError: the value holds a NaN or an infinity, which JSON cannot carry.
        TypeError: the value holds something that is not a JSON type.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical text, in hexadecimal."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
