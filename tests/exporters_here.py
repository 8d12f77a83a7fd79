"""Exporters in the process of the tests, which imports them once: for tests of what is done with exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pipeline.errors import ExportError
from pipeline.export import worker
from pipeline.export.process import Worker


def _do(its_own: Worker, step: Literal["convert", "quantise"], folder: Path) -> None:
    try:
        {"convert": worker.convert, "quantise": worker.quantise}[step](its_own._runtime, folder)
    except Exception as error:
        raise ExportError(f"{step} failed", why=worker.first_line(error)) from error


def export_here(patch: Callable[[object, str, object], None]) -> None:
    """Do what a worker does, without one."""
    patch(Worker, "do", _do)
