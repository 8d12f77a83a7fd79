"""The interpreter of LiteRT and of tflite-runtime, its forerunner, on the CPU with XNNPACK.

Inputs are written into the interpreter's own tensors beforehand, so that ``run`` is one inference from input
ready to output ready, without copies to or from numpy.
"""

from __future__ import annotations

from typing import Any

import numpy


class OnCpu:
    """A model with its tensors allocated and XNNPACK applied to what it takes.

    Args:
        interpreter: an ``Interpreter`` of either package; XNNPACK is its default.

    Raises:
        RuntimeError: the model needs operations or types that the interpreter lacks; they are named.
    """

    def __init__(self, interpreter: Any) -> None:
        interpreter.allocate_tensors()
        self._interpreter = interpreter
        self._inputs = interpreter.get_input_details()
        self._outputs = interpreter.get_output_details()
        self.names = [entry["name"] for entry in self._inputs]
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

    def placement(self) -> list[dict[str, Any]] | None:
        """What XNNPACK took, in how many partitions, and what the interpreter's own kernels (``cpu``) took.

        The interpreter lists the operations of the file, and behind them one DELEGATE for each partition,
        which covers the operations between its inputs and its outputs. None for versions without the list.
        """
        if not hasattr(self._interpreter, "_get_ops_details"):
            return None
        listed = self._interpreter._get_ops_details()
        delegates = [entry for entry in listed if entry["op_name"] == "DELEGATE"]
        operations = [entry for entry in listed if entry["op_name"] != "DELEGATE"]
        taken: set[int] = set()
        for delegate in delegates:
            taken |= covered(delegate, operations)
        parts = [
            {"where": "xnnpack", "nodes": len(taken), "partitions": len(delegates)},
            {
                "where": "cpu",
                "nodes": len(operations) - len(taken),
                "partitions": stretches([entry["index"] in taken for entry in operations]),
            },
        ]
        return [part for part in parts if part["nodes"]]


def covered(delegate: dict[str, Any], operations: list[dict[str, Any]]) -> set[int]:
    """The operations between the inputs and the outputs of a delegate, by index."""
    maker = {int(tensor): entry for entry in operations for tensor in entry["outputs"]}
    outside = {int(tensor) for tensor in delegate["inputs"]}
    found: set[int] = set()
    waiting = [int(tensor) for tensor in delegate["outputs"]]
    while waiting:
        entry = maker.get(waiting.pop())
        if entry is not None and entry["index"] not in found:
            found.add(entry["index"])
            waiting += [int(tensor) for tensor in entry["inputs"] if int(tensor) not in outside]
    return found


def stretches(taken: list[bool]) -> int:
    """How many stretches of operations, in the order of the file, were not taken."""
    return sum(not here and (index == 0 or taken[index - 1]) for index, here in enumerate(taken))
