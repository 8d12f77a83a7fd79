"""How a model gets to a device: with all that belongs to it."""

from __future__ import annotations

from pathlib import Path

from devices.artifacts.companions import companions, refuse_incomplete
from devices.connections import Connection

__all__ = ["push_artifact"]


def push_artifact(connection: Connection, artifact: Path) -> str:
    """Make a model readable on a device; its path there.

    Raises:
        MeasurementError: there is no such file, or one that belongs to it is missing.
        TargetError: as ``Connection.push``.
    """
    beside = companions(artifact)
    if not beside:
        return connection.push(artifact)
    refuse_incomplete(artifact)
    return connection.push_together(artifact, beside)
