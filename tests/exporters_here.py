"""Exporters in the process of the tests, which imports them once: for tests of what is done with exports."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar
from unittest.mock import patch

from pipeline.errors import ExportError
from pipeline.export import worker
from pipeline.export.process import _ENVIRONMENT, Worker

P = ParamSpec("P")
T = TypeVar("T")


def _untraced(function: Callable[P, T]) -> Callable[P, T]:
    """Under coverage, torch and its exporters take half as long again, and no line of theirs counts."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        # In this very frame: the tracer counts calls and returns.
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*args, **kwargs)
        finally:
            sys.settrace(tracer)

    return call


def _do(its_own: Worker, step: Literal["convert", "quantise"], folder: Path) -> None:
    from pipeline.export.conversion import _TRACING

    # Formats are exported side by side, and exporters use state of the process.
    with _TRACING, patch.dict(os.environ, _ENVIRONMENT):
        try:
            {"convert": worker.convert, "quantise": worker.quantise}[step](its_own._runtime, folder)
        except Exception as error:
            raise ExportError(f"{step} failed", why=worker.first_line(error)) from error


def export_here(setattr: Callable[[object, str, object], None]) -> None:
    """Do what a worker does, without one."""
    from pipeline.export import conversion

    setattr(Worker, "do", _do)
    for module, name in ((conversion, "_trace"), (worker, "to_onnx"), (worker, "to_litert")):
        setattr(module, name, _untraced(getattr(module, name)))
