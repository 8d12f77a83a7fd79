"""Words in messages: counts with the right number, lists, and causes without the marks of Python."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["cause_of", "count_of", "listed", "nearest"]

_PLURALS = {
    "copy": "copies",
    "entry": "entries",
    "launch": "launches",
    "batch": "batches",
    "class": "classes",
}
_TUPLE = re.compile(r"\(((?:'[^']*'(?:, )?,?)+)\)")
_NAME = re.compile(r"'([^']*)'")


def count_of(count: int, noun: str) -> str:
    """``1 whole network``, ``2 whole networks``; the last word of the noun decides."""
    first, space, last = noun.rpartition(" ")
    plural = first + space + _PLURALS.get(last, f"{last}s")
    return f"{count:,} {noun if count == 1 else plural}"


def listed(parts: Iterable[object], word: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *others, last = [str(part) for part in parts] or [""]
    return f"{', '.join(others)} {word} {last}" if others else last


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'board'?``, if one of those that are known is like the name; else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def cause_of(error: BaseException) -> str:
    """What an error says, without error numbers, and with the names of TOML tables as TOML writes them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return _TUPLE.sub(lambda found: f"[{'.'.join(_NAME.findall(found[1]))}]", str(error))
