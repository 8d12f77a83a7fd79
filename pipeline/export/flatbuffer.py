"""LiteRT flatbuffers: read, cut into one model per output, written with equal bytes for equal graphs."""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from devices.installing import how_to_install
from pipeline.errors import ExportError

_IDENTIFIER = b"TFL3"
_BUFFER_ALIGNMENT = 16
_NO_TENSOR = -1


def read(data: bytes) -> Any:
    """The object tree (``ModelT``) of a flatbuffer, with the constants that stand behind it in the file.

    Raises:
        ExportError: LiteRT is not installed, or the bytes are no LiteRT model.
    """
    if data[4:8] != _IDENTIFIER:
        raise ExportError("the file is not a LiteRT model", why="its file identifier is missing")
    try:
        model = _schema().ModelT.InitFromPackedBuf(data, 0)
        for buffer in model.buffers:
            # Offset and size of bytes outside of the flatbuffer proper; 0 and 1 say that there are none.
            if buffer.offset > 1:
                buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        return model
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise ExportError("the file is not a whole LiteRT model", why=str(error)) from error


def split(joint: bytes, count: int, output_name: str) -> list[bytes]:
    """Cut ``args_i`` to ``output_i`` out of a joint model, for every ``i`` below ``count``.

    Raises:
        ExportError: the model has control flow, so that it cannot be cut.
    """
    model = read(joint)
    signature = model.signatureDefs[0]
    inputs = {entry.name.decode(): entry.tensorIndex for entry in signature.inputs}
    outputs = {entry.name.decode(): entry.tensorIndex for entry in signature.outputs}
    return [
        write(cut(model, {inputs[f"args_{index}"]: "input"}, {outputs[f"output_{index}"]: output_name}))
        for index in range(count)
    ]


def tidied(content: bytes, output_name: str) -> bytes:
    """A model of one input and one output with names by position, and without what no operator uses.

    Raises:
        ExportError: the model has control flow.
    """
    model = read(content)
    graph = model.subgraphs[0]
    return write(cut(model, {graph.inputs[0]: "input"}, {graph.outputs[0]: output_name}))


def cut(model: Any, inputs: dict[int, str], outputs: dict[int, str]) -> Any:
    """The part of a model from some tensors to others, as a model of its own.

    Operators keep their order; tensors, buffers and operator codes come in the order of their first use.
    Metadata is left out. The signature is ``serving_default``.

    Args:
        model: as read.
        inputs: names by tensor, in their order.
        outputs: likewise.

    Raises:
        ExportError: the model has several subgraphs.
    """
    if len(model.subgraphs) != 1:
        raise ExportError("the LiteRT model cannot be cut", why="it has several subgraphs (control flow)")
    schema, graph = _schema(), model.subgraphs[0]
    operators = _operators_before(graph, outputs)
    tensors = _Renumbered(inputs)
    buffers, codes = _Renumbered([0]), _Renumbered()
    piece = copy.copy(model)
    part = copy.copy(graph)
    part.name = "main"
    part.operators = []
    for operator in operators:
        moved = copy.copy(operator)
        moved.opcodeIndex = codes.number(operator.opcodeIndex)
        moved.inputs = [tensors.number(index) for index in operator.inputs]
        moved.outputs = [tensors.number(index) for index in operator.outputs]
        part.operators.append(moved)
    part.inputs = [tensors.number(index) for index in inputs]
    part.outputs = [tensors.number(index) for index in outputs]
    part.tensors = []
    for new, old in enumerate(tensors.order):
        tensor = copy.copy(graph.tensors[old])
        tensor.name = f"tensor_{new}"
        # Buffer 0 is the empty one, for all tensors that are computed.
        constant = model.buffers[tensor.buffer].data is not None
        tensor.buffer = buffers.number(tensor.buffer) if constant else 0
        part.tensors.append(tensor)
    for index, name in (inputs | outputs).items():
        part.tensors[tensors.number(index)].name = name
    piece.subgraphs = [part]
    piece.buffers = [schema.BufferT(), *(model.buffers[old] for old in buffers.order[1:])]
    piece.operatorCodes = [model.operatorCodes[old] for old in codes.order]
    piece.description = "lathe"
    piece.metadata = piece.metadataBuffer = None
    piece.signatureDefs = [_signature(schema, part)]
    return piece


def write(model: Any) -> bytes:
    """The bytes of an object tree, constants aligned as the schema demands."""
    import flatbuffers

    class AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
        """The generated code ignores ``force_align``, which the schema sets on buffers' bytes."""

        def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:
            alignment = _BUFFER_ALIGNMENT if elemSize == 1 else alignment
            return int(super().StartVector(elemSize, numElems, alignment))

    builder = AlignedBuilder(1024)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def operator_names(model: Any) -> list[str]:
    """The kind of every operator of the first graph, as the schema names it; of a custom one its own name."""
    kinds = {value: name for name, value in vars(_schema().BuiltinOperator).items() if name.isupper()}
    found = []
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode), "unknown")
        custom = code.customCode.decode() if isinstance(code.customCode, bytes) else code.customCode
        found.append(str(custom) if kind == "CUSTOM" and custom else kind)
    return found


class _Renumbered:
    """Old numbers to new ones, in the order of first use."""

    def __init__(self, first: Iterable[int] = ()) -> None:
        self._new: dict[int, int] = {}
        for old in first:
            self.number(old)

    def number(self, old: int) -> int:
        if old == _NO_TENSOR:
            return _NO_TENSOR
        return self._new.setdefault(int(old), len(self._new))

    @property
    def order(self) -> list[int]:
        return list(self._new)


def _operators_before(graph: Any, outputs: Iterable[int]) -> list[Any]:
    """The operators that the outputs need, in their order."""
    producer = {int(tensor): n for n, op in enumerate(graph.operators) for tensor in op.outputs}
    needed, waiting = set[int](), [int(each) for each in outputs]
    while waiting:
        position = producer.get(waiting.pop())
        if position is not None and position not in needed:
            needed.add(position)
            waiting += map(int, graph.operators[position].inputs)
    return [graph.operators[position] for position in sorted(needed)]


def _signature(schema: Any, graph: Any) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.subgraphIndex = 0
    signature.inputs = [schema.TensorMapT(graph.tensors[each].name, each) for each in graph.inputs]
    signature.outputs = [schema.TensorMapT(graph.tensors[each].name, each) for each in graph.outputs]
    return signature


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise ExportError(
            "LiteRT models cannot be read", why=str(error), fix=how_to_install("litert")
        ) from error
    return schema_py_generated
