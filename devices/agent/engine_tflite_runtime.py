"""Engine of tflite-runtime, the forerunner of LiteRT, for old boards: ``.tflite`` files, on the CPU.

Its wheels need numpy below 2. Source: the module ``interpreter`` of tflite-runtime 2.14.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tflite_runtime
from tflite_runtime.interpreter import Interpreter

from .interpreter import OnCpu


def version() -> str:
    """Version of tflite-runtime."""
    return str(tflite_runtime.__version__)


def binaries() -> list[str]:
    """The native files of tflite-runtime."""
    return [str(path) for path in Path(tflite_runtime.__file__).parent.glob("*.so")]


def Model(path: str, settings: dict[str, Any]) -> OnCpu:
    """A loaded model.

    Raises:
        ValueError: the file is no model.
        RuntimeError: the model needs operations or types that tflite-runtime lacks; they are named.
    """
    return OnCpu(Interpreter(model_path=path, num_threads=settings["threads"]), settings)
