"""Errors of the pipeline. Exit codes of all packages are listed in docs/exit-codes/index.md."""

from __future__ import annotations

from devices.errors import LatheError


class UsageError(LatheError):
    """A command line that cannot be understood."""

    exit_code = 2


class RecipeError(LatheError):
    """A recipe that cannot be understood."""

    exit_code = 2


class DataError(LatheError):
    """Data that is missing, unreadable or inconsistent."""

    exit_code = 3


class TeacherError(LatheError):
    """A teacher that cannot be loaded or does not fit the data."""

    exit_code = 4


class BudgetError(LatheError):
    """A budget that no member of the space can keep."""

    exit_code = 5


class WorkFolderError(LatheError):
    """A work folder that is in use, unwritable or full, or holds what a changed recipe began."""

    exit_code = 9


class ExportError(LatheError):
    """A module that cannot be exported or compiled, or an exporter that is not installed."""

    exit_code = 10


class PassingExportError(ExportError):
    """An export that may succeed another time: it lacked time or memory, or somebody else ended it.

    Attributes:
        code: one of ``devices.measurement.PASSING_CODES``.
    """

    def __init__(self, code: str, what: str, *, why: str) -> None:
        super().__init__(
            what, why=why, fix="run the same command again; leave more memory free if it was short"
        )
        self.code = code


class ParityError(LatheError):
    """An exported model whose outputs differ from torch beyond the tolerance."""

    exit_code = 10


class VerificationError(LatheError):
    """No candidate kept its budget when measured, or a bundle that does not verify."""

    exit_code = 11


class GateError(LatheError):
    """A bundle that was measured and does not keep the limits of a gate."""

    exit_code = 13


class UnsignedError(LatheError):
    """A bundle whose signature was asked for, and which has none."""

    exit_code = 14


class SignatureError(LatheError):
    """A bundle that was not signed with the key that was asked for."""

    exit_code = 15


class NotMeasuredError(LatheError):
    """A network of which nothing is known: its measurement on a target stayed invalid or too wide."""

    exit_code = 12


class ExecutorError(LatheError):
    """Other processes or machines that are to evaluate candidates, and cannot be used."""

    exit_code = 16
