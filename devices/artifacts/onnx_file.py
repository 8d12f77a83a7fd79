"""What an ONNX file says of itself, read without the package onnx and without its weights.

Sources: ``onnx.proto3`` of ONNX 1.20, for the numbers of fields; its page "External Data".
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from devices.artifacts.protobuf import Span, Walk

__all__ = ["OnnxFile", "OnnxNode", "OnnxTensor", "read_onnx"]

MOST_FIELDS = 20_000_000
MOST_DEPTH = 30
"""Graphs in graphs."""

MODEL_GRAPH, MODEL_FUNCTIONS, FUNCTION_NODES = 7, 25, 7
GRAPH_NODES, GRAPH_INITIALIZERS, GRAPH_INPUTS, GRAPH_OUTPUTS, GRAPH_SPARSE = 1, 5, 11, 12, 15
NODE_INPUTS, NODE_OUTPUTS, NODE_NAME, NODE_OP, NODE_ATTRIBUTES, NODE_DOMAIN = 1, 2, 3, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_INT = 1, 3
ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS, ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
VALUE_TYPE, TYPE_TENSOR, TENSOR_KIND, TENSOR_SHAPE, SHAPE_SIZES, SIZE_VALUE, SIZE_NAME = 2, 1, 1, 2, 1, 1, 2
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW, TENSOR_EXTERNAL, VALUE_NAME = 1, 2, 8, 9, 13, 1
FLOAT, FLOAT16 = 1, 10
MOST_SEARCHED = 1 << 26
"""Float weights that are looked through for subnormal numbers."""
ENTRY_KEY, ENTRY_VALUE = 1, 2
DTYPES = {
    **{1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool"},
    **{10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16"},
}
"""``TensorProto.DataType`` as numpy or ONNX calls it."""


@dataclass(frozen=True)
class OnnxTensor:
    """An input or output with its sizes, of which an open one is its name, or ``?``, and its type.

    The sizes are ``None`` where the file does not say even how many there are; the type is then empty, as it
    is where it has no name here.
    """

    sizes: tuple[int | str, ...] | None
    dtype: str


@dataclass(frozen=True)
class OnnxNode:
    """A node of the outer graph: its name, what it does, and the tensors that it takes and gives, by name."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Convolution:
    """A convolution with its groups and the sizes of its weights: outputs, inputs of a group, kernel."""

    name: str
    groups: int
    weights: tuple[int, ...]


@dataclass(frozen=True)
class OnnxFile:
    """Facts of an ONNX file.

    Attributes:
        external: files beside it that hold weights, with how many bytes each must have at least.
        operations: how often each kind is in it, those in subgraphs included.
        replaceable: initialisers that are also inputs, so that a runtime may take none of them for constant.
        types: how many initialisers have each number of ``TensorProto.DataType``.
        floats: float weights that were looked at: those in the file itself, up to a length.
        subnormal: how many of these are too small for a processor's fast path.
        convolutions: the outer graph's, whose weights are in the file.
        inputs: of the outer graph, by name in their order.
        outputs: likewise.
        nodes: of the outer graph, in their order.
    """

    external: dict[str, int]
    operations: Counter[str]
    replaceable: int
    types: Counter[int]
    floats: int
    subnormal: int
    convolutions: tuple[Convolution, ...]
    inputs: dict[str, OnnxTensor]
    outputs: dict[str, OnnxTensor]
    nodes: tuple[OnnxNode, ...]


@dataclass
class _Found:
    walk: Walk
    external: dict[str, int] = field(default_factory=dict)
    operations: Counter[str] = field(default_factory=Counter)
    replaceable: int = 0
    types: Counter[int] = field(default_factory=Counter)
    floats: int = 0
    subnormal: int = 0
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    convolutions: list[tuple[str, int, str]] = field(default_factory=list)
    inputs: dict[str, OnnxTensor] = field(default_factory=dict)
    outputs: dict[str, OnnxTensor] = field(default_factory=dict)
    nodes: list[OnnxNode] = field(default_factory=list)

    def model(self, span: Span) -> None:
        for number, value in self.walk.fields(span):
            if number == MODEL_GRAPH:
                self.graph(_bytes(value), 0)
            elif number == MODEL_FUNCTIONS:
                for each, node in self.walk.fields(_bytes(value)):
                    if each == FUNCTION_NODES:
                        self.node(_bytes(node), 1)

    def graph(self, span: Span, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise ValueError(f"graphs are nested more than {MOST_DEPTH} deep")
        initializers, inputs = set(), set()
        for number, value in self.walk.fields(span):
            if number == GRAPH_NODES:
                self.node(_bytes(value), depth)
            elif number == GRAPH_INITIALIZERS:
                initializers.add(self.tensor(_bytes(value)))
            elif number == GRAPH_INPUTS:
                name, tensor = self.value(_bytes(value))
                inputs.add(name)
                if depth == 0:
                    self.inputs[name] = tensor
            elif number == GRAPH_OUTPUTS and depth == 0:
                name, tensor = self.value(_bytes(value))
                self.outputs[name] = tensor
            elif number == GRAPH_SPARSE:
                self.sparse(_bytes(value))
        self.replaceable += len(initializers & inputs)
        for name in initializers if depth == 0 else ():
            self.inputs.pop(name, None)

    def node(self, span: Span, depth: int) -> None:
        kind, domain, name, groups = "", "", "", 1
        inputs: list[str] = []
        outputs: list[str] = []
        for number, value in self.walk.fields(span):
            if number == NODE_INPUTS:
                inputs.append(self.walk.text(_bytes(value)))
            elif number == NODE_OUTPUTS:
                outputs.append(self.walk.text(_bytes(value)))
            elif number == NODE_NAME:
                name = self.walk.text(_bytes(value))
            elif number == NODE_OP:
                kind = self.walk.text(_bytes(value))
            elif number == NODE_DOMAIN:
                domain = self.walk.text(_bytes(value))
            elif number == NODE_ATTRIBUTES:
                groups = self.attribute(_bytes(value), depth) or groups
        if depth == 0:
            self.nodes.append(OnnxNode(name, kind, tuple(inputs), tuple(outputs)))
        if kind == "Conv" and depth == 0 and len(inputs) > 1:
            self.convolutions.append((name, groups, inputs[1]))
        self.operations[f"{domain}.{kind}" if domain not in ("", "ai.onnx") else kind] += 1

    def attribute(self, span: Span, depth: int) -> int | None:
        """Look into an attribute; its number if it is called ``group``."""
        name, count = "", None
        for number, value in self.walk.fields(span):
            if number == ATTRIBUTE_NAME:
                name = self.walk.text(_bytes(value))
            elif number == ATTRIBUTE_INT and isinstance(value, int):
                count = value
            elif number in ATTRIBUTE_TENSORS:
                self.tensor(_bytes(value))
            elif number in ATTRIBUTE_GRAPHS:
                self.graph(_bytes(value), depth + 1)
            elif number in ATTRIBUTE_SPARSE:
                self.sparse(_bytes(value))
        return count if name == "group" else None

    def sparse(self, span: Span) -> None:
        for number, value in self.walk.fields(span):
            if number in (1, 2):
                self.tensor(_bytes(value))

    def tensor(self, span: Span) -> str:
        """Note where a tensor's bytes are; its name."""
        name, kind, raw, entries = "", 0, (0, 0), {}
        sizes: list[int] = []
        for number, value in self.walk.fields(span):
            if number == TENSOR_DIMS:
                sizes += [value] if isinstance(value, int) else self.walk.numbers(value)
            elif number == TENSOR_TYPE and isinstance(value, int):
                kind = value
            elif number == TENSOR_RAW:
                raw = _bytes(value)
            elif number == TENSOR_NAME:
                name = self.walk.text(_bytes(value))
            elif number == TENSOR_EXTERNAL:
                pair = dict(self.walk.fields(_bytes(value)))
                key, text = (
                    self.walk.text(_bytes(pair.get(each, (0, 0)))) for each in (ENTRY_KEY, ENTRY_VALUE)
                )
                entries[key] = text
        if location := entries.get("location"):
            ends = [int(entries.get(key) or 0) for key in ("offset", "length")]
            self.external[location] = max(self.external.get(location, 0), sum(ends))
        self.types[kind] += 1
        self.sizes[name] = tuple(sizes)
        if kind == FLOAT:
            self.subnormal += self.subnormals(raw)
        return name

    def subnormals(self, raw: Span) -> int:
        """How many numbers of float32 among some bytes are subnormal; 0 once enough was looked through."""
        count = (raw[1] - raw[0]) // 4
        if self.floats + count > MOST_SEARCHED:
            return 0
        self.floats += count
        bits = np.frombuffer(self.walk.bytes((raw[0], raw[0] + 4 * count)), "<u4") & 0x7FFFFFFF
        return int(np.count_nonzero((bits > 0) & (bits < 0x00800000)))

    def value(self, span: Span) -> tuple[str, OnnxTensor]:
        """Name, sizes and type of an input or output; no sizes of what is no tensor."""
        name = "".join(self.walk.text(_bytes(each)) for each in self.each(span, VALUE_NAME))
        tensors = self.inner(self.inner([span], VALUE_TYPE), TYPE_TENSOR)
        kinds = [kind for tensor in tensors for kind in self.each(tensor, TENSOR_KIND)]
        shapes = self.inner(tensors, TENSOR_SHAPE)
        sizes: list[int | str] = []
        for size in self.inner(shapes, SHAPE_SIZES):
            found = dict(self.walk.fields(size))
            named = found.get(SIZE_NAME)
            value = found.get(SIZE_VALUE)
            sizes.append(value if isinstance(value, int) else self.walk.text(_bytes(named)) if named else "?")
        dtype = DTYPES.get(kinds[-1], "") if kinds and isinstance(kinds[-1], int) else ""
        return name, OnnxTensor(tuple(sizes) if shapes else None, dtype)

    def inner(self, spans: list[Span], wanted: int) -> list[Span]:
        """The messages that stand in others under a number."""
        return [_bytes(inner) for outer in spans for inner in self.each(outer, wanted)]

    def each(self, span: Span, wanted: int) -> Iterator[int | Span]:
        return (value for number, value in self.walk.fields(span) if number == wanted)


def _bytes(value: int | Span) -> Span:
    if isinstance(value, int):
        raise ValueError("a message is a number")
    return value


def read_onnx(path: Path) -> OnnxFile:
    """Read an ONNX file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no ONNX file, or damaged.
    """
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            raise ValueError("it is empty")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _Found(Walk(content, MOST_FIELDS))
            found.model((0, len(content)))
    convolutions = tuple(
        Convolution(name, groups, found.sizes[weights])
        for name, groups, weights in found.convolutions
        if weights in found.sizes
    )
    return OnnxFile(
        found.external,
        found.operations,
        found.replaceable,
        found.types,
        found.floats,
        found.subnormal,
        convolutions,
        found.inputs,
        found.outputs,
        tuple(found.nodes),
    )
