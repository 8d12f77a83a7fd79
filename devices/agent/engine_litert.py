"""Engine of LiteRT on the CPU with its default XNNPACK delegate: ``.tflite`` files.

Inputs are written into the interpreter's own tensors beforehand, so that ``run`` is one inference from input
ready to output ready, without copies to or from numpy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy
from ai_edge_litert.interpreter import Interpreter


def version() -> str:
    """Version of LiteRT."""
    return str(ai_edge_litert.__version__)


def binaries() -> list[str]:
    """The native files that an interpreter uses."""
    folder = Path(ai_edge_litert.__file__).parent
    return [
        str(path)
        for pattern in ("libpywrap_*.so", "_pywrap_*interpreter_wrapper*.so")
        for path in folder.glob(pattern)
    ]


class Model:
    """An interpreter with its tensors allocated."""

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        self._interpreter = Interpreter(model_path=path, num_threads=settings["threads"])
        self._interpreter.allocate_tensors()
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.inputs = [
            (tuple(int(size) for size in entry["shape"]), numpy.dtype(entry["dtype"]).name)
            for entry in self._inputs
        ]

    def set_inputs(self, arrays: list[Any]) -> None:
        """Copy the arrays into the interpreter's input tensors, which an inference leaves unchanged."""
        for entry, array in zip(self._inputs, arrays):
            self._interpreter.set_tensor(entry["index"], array)

    def run(self) -> None:
        """One inference on the inputs that were set."""
        self._interpreter.invoke()

    def outputs(self) -> list[Any]:
        """Copies of the last outputs."""
        return [self._interpreter.get_tensor(entry["index"]) for entry in self._outputs]
