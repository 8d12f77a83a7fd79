"""Trainings whose loss is no number any more, and the error that tells the user so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from devices.errors import LatheError


class TrainingDiverged(Exception):
    """The loss became NaN or infinite."""


@contextmanager
def divergence_is(error: LatheError) -> Iterator[None]:
    """Raise ``error`` where a training inside diverges; its ``why`` then says what became of the loss.

    Raises:
        LatheError: the one that is given.
    """
    try:
        yield
    except TrainingDiverged as diverged:
        error.why = str(diverged)
        raise error from diverged
