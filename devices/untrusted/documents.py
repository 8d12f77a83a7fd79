"""JSON and TOML, up to a depth."""

from __future__ import annotations

import json
import tomllib
from typing import Any

MOST_DEPTH = 100
MOST_TOML_BYTES = 256 << 10
MOST_DOTS = 500


def json_from(content: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, or is nested more than ``MOST_DEPTH`` deep.
    """
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise _too_deep() from error
    brackets = (b"[", b"{") if isinstance(content, bytes) else ("[", "{")
    if sum(map(content.count, brackets)) > MOST_DEPTH:  # type: ignore[arg-type]
        _check_depth(value)
    return value


def toml_from(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        ValueError: it is no TOML; it is longer than ``MOST_TOML_BYTES``, nested more than ``MOST_DEPTH``
            deep, or has a line of more than ``MOST_DOTS`` dots, for which tomllib takes quadratic time.
    """
    if len(text) > MOST_TOML_BYTES:
        raise ValueError(f"it has more than {MOST_TOML_BYTES:,} characters")
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > MOST_DOTS:
            raise ValueError(f"line {number} has more than {MOST_DOTS} dots")
    try:
        document = tomllib.loads(text)
    except RecursionError as error:
        raise _too_deep() from error
    _check_depth(document)
    return document


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MOST_DEPTH} deep")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _too_deep()
