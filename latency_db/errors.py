"""Errors of the latency database."""

from __future__ import annotations

from devices.errors import LatheError

__all__ = ["EstimateError", "NoDatabaseError", "StoreError"]


class StoreError(LatheError):
    """A database that cannot be opened, read or written, or has another schema."""

    exit_code = 8


class NoDatabaseError(StoreError):
    """A database that must exist and does not."""


class EstimateError(LatheError):
    """An estimate that was asked for without the measurements it needs."""

    exit_code = 8
