"""What other installed distributions add to Lathe, by entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from devices.errors import LatheError

__all__ = ["added", "loaded", "owner_of"]


def added(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group; none of them is loaded."""
    return tuple(entry_points(group=group))


def loaded(entry: EntryPoint, kind: type, unusable: LatheError) -> Any:
    """What an entry point names.

    Args:
        entry: of a group.
        kind: what it must be.
        unusable: the error to raise otherwise; its ``why`` then says what is wrong.

    Raises:
        LatheError: it cannot be loaded, or is something else. A distribution is somebody's own, and may raise
            anything or end Python.
    """
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:
        unusable.why = f"{type(error).__name__}: {error}"
        raise unusable from error
    if not isinstance(found, kind):
        unusable.why = f"it is a {type(found).__name__}, not a {kind.__name__}"
        raise unusable
    return found


def owner_of(entry: EntryPoint) -> str:
    """Name and version of the distribution that an entry point belongs to, as far as that is known."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "a distribution"
