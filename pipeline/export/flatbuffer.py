"""LiteRT flatbuffers: read, cut into one model per output, written with equal bytes for equal graphs."""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np

from devices.installing import how_to_install
from pipeline.errors import ExportError

_IDENTIFIER = b"TFL3"
_BUFFER_ALIGNMENT = 16
_NO_TENSOR = -1
_REFERRED_BYTES = 8
"""Of the smallest table or text: the offset that leads there, and what it begins with."""
_UNIONS = {
    "ArrayIndices": "SparseIndexVector",
    "ArraySegments": "SparseIndexVector",
    "BuiltinOptions": "BuiltinOptions",
    "BuiltinOptions2": "BuiltinOptions2",
    "Details": "QuantizationDetails",
}
"""The schema's name for what a field holds one of."""
MOST_TABLES = 500_000
"""Tables that are unpacked, each as often as something refers to it: networks have tens of thousands."""


def read(data: bytes) -> Any:
    """The object tree (``ModelT``) of a flatbuffer, with the constants that stand behind it in the file.

    Raises:
        ExportError: LiteRT is not installed, the bytes are no LiteRT model, or they unpack to more than they
            can have, see ``MOST_TABLES``.
    """
    if data[4:8] != _IDENTIFIER:
        raise ExportError("the file is not a LiteRT model", why="its file identifier is missing")
    try:
        root = _schema().Model.GetRootAs(data)
        _Unpacked(len(data)).add(root)
        model = _schema().ModelT.InitFromObj(root)
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


class _Unpacked:
    """How much a file unpacks to, counted before it is: offsets may all lead to one table, vector or text, of
    which the object tree has a copy for each.

    Args:
        size: of the file in bytes.
    """

    def __init__(self, size: int) -> None:
        self._tables_left = MOST_TABLES
        self._bytes_left = size

    def add(self, value: Any) -> None:
        """Count a table or a text, and all that it refers to.

        Raises:
            ValueError: that is more than a file of this size has where nothing is referred to twice.
        """
        self._take(_REFERRED_BYTES)
        if isinstance(value, bytes):
            self._take(len(value))
            return
        self._tables_left -= 1
        if self._tables_left < 0:
            raise ValueError(f"it unpacks to more than {MOST_TABLES:,} tables")
        of = _accessors(value.__class__)
        for name in of.numbers:
            self._take(getattr(value, f"{name}Length")())
        for name in of.vectors:
            for place in range(getattr(value, f"{name}Length")()):
                self.add(getattr(value, name)(place))
        for name in of.fields:
            if (inner := getattr(value, name)()) is not None:
                self.add(inner)
        for name in of.unions:
            inner, kind = getattr(value, name)(), _member(name, getattr(value, f"{name}Type")())
            if inner is not None and kind is not None:
                member = kind()
                member.Init(inner.Bytes, inner.Pos)
                self.add(member)

    def _take(self, count: int) -> None:
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise ValueError(
                "its offsets lead to the same bytes so often that it unpacks to more than it has"
            )


@dataclass(frozen=True)
class _Accessors:
    """Names of a generated class for what takes room.

    Attributes:
        numbers: vectors of numbers.
        vectors: of tables or texts, which take a place.
        fields: a table or a text.
        unions: a table of one of several kinds.
    """

    numbers: tuple[str, ...]
    vectors: tuple[str, ...]
    fields: tuple[str, ...]
    unions: tuple[str, ...]


@cache
def _accessors(kind: type) -> _Accessors:
    calls = {
        name: each.__code__.co_names for name, each in vars(kind).items() if isinstance(each, FunctionType)
    }
    numbers = tuple(name.removesuffix("AsNumpy") for name in calls if name.endswith("AsNumpy"))
    vectors = tuple(name for name in calls if f"{name}IsNone" in calls and name not in numbers)
    fields = tuple(
        name for name, used in calls.items() if name not in vectors and {"String", "Indirect"} & set(used)
    )
    return _Accessors(
        numbers, vectors, fields, tuple(name for name, used in calls.items() if "Union" in used)
    )


@cache
def _member(field: str, number: int) -> Any:
    """The class of what a union has; ``None`` for nothing, and for what is unknown, which is not unpacked."""
    schema = _schema()
    kinds = {value: name for name, value in vars(getattr(schema, _UNIONS[field])).items() if name[0] != "_"}
    return getattr(schema, kinds.get(number, ""), None)


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
