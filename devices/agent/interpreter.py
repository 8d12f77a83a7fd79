"""The interpreter of LiteRT and of tflite-runtime, its forerunner, on the CPU with XNNPACK.

Inputs are written into the interpreter's own tensors beforehand, so that ``run`` is one inference from input
ready to output ready, without copies to or from numpy.
"""

from __future__ import annotations

import re
from typing import Any

import numpy

from .inputs import BadInputError, shapes_of

STATE = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")
"""Operations of resource variables, by which a model keeps state from one inference to the next."""
COMPILED = "DISPATCH_OP"
"""The operator that stands for a part which was compiled for an NPU; its code is in the file."""

PRECISIONS: dict[str, set[Any]] = {"fp16": {numpy.float16}, "int8": {numpy.int8, numpy.uint8}}
"""Types of which a file with a precision has some."""
VALUES_DECIDE = (
    "IF",
    "NON_MAX_SUPPRESSION_V4",
    "NON_MAX_SUPPRESSION_V5",
    "TFLite_Detection_PostProcess",
    "UNIQUE",
    "WHERE",
    "WHILE",
)
"""Operations whose time, or that of what follows them, depends on the values of the inputs."""


class OnCpu:
    """A model with its tensors allocated and XNNPACK applied to what it takes.

    Each signature of a file is a graph of its own; without a chosen one the first graph is taken. The Python
    interface of both packages reaches other graphs by ``SignatureRunner`` only, which copies inputs and
    outputs in every call; so this calls what lies under it.

    Args:
        interpreter: an ``Interpreter`` of either package; XNNPACK is its default.
        settings: of the job.

    Raises:
        ValueError: a signature or a shape that is given does not fit.
        RuntimeError: the model needs operations or types that the interpreter lacks; they are named.
    """

    def __init__(self, interpreter: Any, settings: dict[str, Any]) -> None:
        self._interpreter = interpreter
        self._precision = settings["precision"]
        signatures = interpreter._get_full_signature_list()
        self.signature, self._graph = chosen_signature(
            {key: self._wrapped.GetSubgraphIndexFromSignature(key) for key in signatures},
            settings.get("signature", ""),
        )
        self._signatures = list(signatures)
        signature = signatures.get(self.signature)
        if signature is None:
            inputs = {str(entry["name"]): int(entry["index"]) for entry in interpreter.get_input_details()}
            self._outputs = [int(entry["index"]) for entry in interpreter.get_output_details()]
        else:
            inputs, self._outputs = signature["inputs"], list(signature["outputs"].values())
            if self._graph == 0:  # in the order of the graph, by the names of the signature
                names = {index: name for name, index in inputs.items()}
                inputs = {names.get(int(index), str(index)): index for index in self._wrapped.InputIndices()}
                self._outputs = list(self._wrapped.OutputIndices())
        self._inputs = [int(index) for index in inputs.values()]
        details = [interpreter._get_tensor_details(index, self._graph) for index in self._inputs]
        self.names = [str(entry["name"]) for entry in details]
        for entry in details:
            if numpy.dtype(entry["dtype"]).kind not in "biufc":
                raise ValueError(
                    f"input '{entry['name']}' is no tensor of numbers, which is not measurable: it cannot be "
                    "filled"
                )
        self.described = [(name, _declared(entry)) for name, entry in zip(inputs, details)]
        least = [[int(size) for size in entry["shape"]] for entry in details]
        shapes = shapes_of(self.described, settings, least)
        for index, shape, stored in zip(self._inputs, shapes, least):
            if list(shape) != stored:
                self._wrapped.ResizeInputTensor(
                    index, numpy.array(shape, dtype=numpy.int32), False, self._graph
                )
        try:
            interpreter.allocate_tensors()  # applies XNNPACK, to all graphs
            if self._graph:
                self._wrapped.AllocateTensors(self._graph)
        except RuntimeError as error:
            raise RuntimeError(_with_way_out(str(error))) from error
        self.inputs = [(shape, numpy.dtype(entry["dtype"]).name) for shape, entry in zip(shapes, details)]

    @property
    def _wrapped(self) -> Any:
        """What lies under the interpreter, which refuses to allocate while anything else holds it."""
        return self._interpreter._interpreter

    def set_inputs(self, arrays: list[Any]) -> None:
        """Copy the arrays into the interpreter's input tensors, which an inference leaves unchanged."""
        for index, array in zip(self._inputs, arrays):
            self._wrapped.SetTensor(index, array, self._graph)

    def run(self) -> None:
        """One inference on the inputs that were set."""
        self._wrapped.Invoke(self._graph)

    def outputs(self) -> list[Any]:
        """Copies of the last outputs."""
        return [self._wrapped.GetTensor(index, self._graph) for index in self._outputs]

    def warnings(self) -> list[dict[str, str]]:
        """Other signatures that were not measured, and state that lasts from one inference to the next."""
        found = []
        if len(self._signatures) > 1:
            others = ", ".join(f"'{key}'" for key in self._signatures if key != self.signature)
            detail = (
                f"the file has {len(self._signatures)} signatures, and '{self.signature}' was measured; "
                f"choose another one, {others}, with --signature"
            )
            found.append({"code": "signatures", "detail": detail})
        wanted = PRECISIONS.get(self._precision)
        if wanted is not None and not wanted & {entry["dtype"] for entry in self._tensors()}:
            detail = (
                f"nothing in the file is of {self._precision}, in whose types the interpreter computes: the "
                "latency is that of the file's own types, whatever the target says"
            )
            found.append({"code": "precision-is-a-label", "detail": detail})
        kinds = {entry["op_name"] for entry in self._listed() or ()} if self._graph == 0 else set()
        deciding = sorted(kinds & set(VALUES_DECIDE))
        if deciding:
            detail = f"the values of the inputs decide the time of {', '.join(deciding)}"
            found.append({"code": "values-decide", "detail": detail})
        if kinds & set(STATE):
            detail = "the model keeps state in variables: each inference goes on where the last one ended"
            found.append({"code": "keeps-state", "detail": detail})
        return found

    def _tensors(self) -> list[dict[str, Any]]:
        """All tensors of the graph."""
        indices = range(self._wrapped.NumTensors(self._graph))
        return [self._interpreter._get_tensor_details(index, self._graph) for index in indices]

    def _listed(self) -> list[dict[str, Any]] | None:
        """The operations of the first graph; None where the package does not list them."""
        if not hasattr(self._interpreter, "_get_ops_details"):
            return None
        return list(self._interpreter._get_ops_details())

    def placement(self) -> list[dict[str, Any]] | None:
        """What XNNPACK took, in how many partitions, and what the interpreter's own kernels (``cpu``) took.

        The interpreter lists the operations of the file, and behind them one DELEGATE for each partition,
        which covers the operations between its inputs and its outputs. None for versions without the list,
        and for graphs but the first, of which there is none.
        """
        listed = self._listed()
        if listed is None or self._graph:
            return None
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


def _with_way_out(said: str) -> str:
    """What the interpreter says of operators that it lacks, and what can be done."""
    if "Select TensorFlow op" in said:
        found = ", ".join(sorted(set(re.findall(r"\((Flex\w+)\)", said)))) or "some"
        return (
            f"the operators {found} are TensorFlow's, which this interpreter lacks: convert the model with "
            "built-in operators alone, or measure it where benchmark_model is built with Flex ('+native')"
        )
    custom = re.search(r"unresolved custom op: (\S+?)\.", said)
    if custom and custom[1] == COMPILED:
        return (
            f"the operator '{COMPILED}' stands for a part of the model that was compiled for an NPU: measure "
            "the file where that NPU is, with LiteRT and '+npu', or give the model that it was compiled from"
        )
    if custom:
        return (
            f"the operator '{custom[1]}' is its maker's own, and this interpreter lacks it: replace it, or "
            "measure the model where benchmark_model has it ('+native')"
        )
    return said


def chosen_signature(graphs: dict[str, int], wanted: str) -> tuple[str, int]:
    """Key and graph of the signature that is measured; an empty key where the file has none.

    Raises:
        BadInputError: there is no such signature.
    """
    if wanted and wanted not in graphs:
        have = ", ".join(f"'{key}'" for key in graphs) or "none"
        raise BadInputError(f"the model has no signature '{wanted}'; it has {have}")
    key = wanted or next((key for key, graph in graphs.items() if graph == 0), "")
    return key, graphs.get(key, 0)


def _declared(entry: dict[str, Any]) -> tuple[int | str, ...]:
    """The sizes of an input, with ``?`` for an open one."""
    signature = entry["shape_signature"] if len(entry["shape_signature"]) else entry["shape"]
    return tuple(int(size) if size >= 0 else "?" for size in signature)


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
