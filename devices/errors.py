"""Errors that say what happened, why, and how to mend it; each kind has an exit code of its own."""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BrokenRuntimeError",
    "LatheError",
    "MeasurementError",
    "PassingMeasurementError",
    "PassingTargetError",
    "TargetError",
    "TemporaryFolderError",
]


class LatheError(Exception):
    """Base of every error that a user can mend.

    Args:
        what: what happened, one sentence.
        why: the cause, as far as it is known.
        fix: what the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        self.what = what
        self.why = why
        self.fix = fix
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"Why: {self.why}")
        if self.fix:
            parts.append(f"Fix: {self.fix}")
        return "\n".join(parts)


class TargetError(LatheError):
    """A target, device or runtime that is unknown, unreachable or not installed."""

    exit_code = 6


class BrokenRuntimeError(TargetError):
    """A runtime that is installed on a device, and cannot be loaded there."""


class PassingTargetError(TargetError):
    """A device that may be had another time: it cannot be reached now, or somebody else uses it."""


class MeasurementError(LatheError):
    """A model that could not be run or timed on its target."""

    exit_code = 7


class PassingMeasurementError(MeasurementError):
    """A model that may run another time: its device was too busy, too full, or somebody ended it."""


class TemporaryFolderError(LatheError):
    """A temporary folder that cannot be made, or whose disk is full."""

    exit_code = 9
