"""Engine of ONNX Runtime on the CPU: ``.onnx`` and ``.ort`` files.

Inputs and outputs are bound to buffers that the runtime owns, so that ``run`` is one inference from input
ready to output ready, without copies to or from numpy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


def version() -> str:
    """Version of ONNX Runtime."""
    return str(onnxruntime.__version__)


def binaries() -> list[str]:
    """The native files of ONNX Runtime."""
    return [str(path) for path in Path(onnxruntime.__file__).parent.glob("capi/*") if ".so" in path.suffixes]


class Model:
    """A session with one thread pool, in sequential mode; inputs with open dimensions are taken as 1."""

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        self._names = [node.name for node in self._session.get_inputs()]
        self.inputs = [
            (tuple(size if isinstance(size, int) else 1 for size in node.shape), DTYPES[node.type])
            for node in self._session.get_inputs()
        ]
        for node in self._session.get_outputs():
            self._binding.bind_output(node.name, "cpu")

    def set_inputs(self, arrays: list[Any]) -> None:
        """Copy the arrays into the runtime's input buffers."""
        for name, array in zip(self._names, arrays):
            self._binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def run(self) -> None:
        """One inference on the inputs that were set."""
        self._session.run_with_iobinding(self._binding)

    def outputs(self) -> list[Any]:
        """Copies of the last outputs."""
        return list(self._binding.copy_outputs_to_cpu())
