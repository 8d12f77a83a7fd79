"""The inputs and outputs of a manifest, held against what its artifact itself says, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.artifacts import onnx_facts
from devices.measurement import Measurement
from pipeline.bundle.manifest import Quantisation, TargetEntry, TensorDescription
from pipeline.errors import ExportError

_LITERT_TYPES = {
    **{0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16"},
    **{9: "int8", 10: "float64"},
}
"""``TensorType`` of LiteRT's schema."""


@dataclass(frozen=True)
class Edge:
    """An input or output as a file has it.

    Attributes:
        names: that it goes by; of LiteRT that of the signature and that of the tensor.
        sizes: ``None`` for an open one; ``None`` for all where the file tells none.
        dtype: empty where it has no name here.
        scale, zero_point: of an integer with one scale above 0, which may be infinite in a foreign file.
    """

    names: tuple[str, ...]
    sizes: tuple[int | None, ...] | None
    dtype: str
    scale: float | None = None
    zero_point: int = 0

    @property
    def quantisation(self) -> Quantisation | None:
        """Which real numbers an integer stands for, where that can be said."""
        if self.scale is None or math.isinf(self.scale):
            return None
        return Quantisation(scale=self.scale, zero_point=self.zero_point)


def edges_of(artifact: Path) -> tuple[tuple[Edge, ...], tuple[Edge, ...]] | None:
    """Inputs and outputs in the order of the file; ``None`` for formats that do not tell, and damaged files.

    LiteRT files are read where its package is installed.
    """
    if (found := onnx_facts(artifact)) is not None:
        inputs, outputs = (
            tuple(
                Edge((name,), None if each.sizes is None else tuple(map(_fixed, each.sizes)), each.dtype)
                for name, each in tensors.items()
            )
            for tensors in (found.inputs, found.outputs)
        )
        return inputs, outputs
    return _litert_edges(artifact) if artifact.suffix == ".tflite" else None


def description_differences(artifact: Path, entry: TargetEntry, measurement: Measurement) -> Iterator[str]:
    """What a manifest says of inputs and outputs other than the file and the measurement do, in words.

    Args:
        artifact: the file.
        entry: of the target.
        measurement: of that file.
    """
    if (edges := edges_of(artifact)) is not None:
        yield from _differences("input", entry.inputs, edges[0], "the artifact")
        yield from _differences("output", entry.outputs, edges[1], "the artifact")
    if used := measurement.inputs:
        # By which names a runtime was asked differs from runtime to runtime.
        measured = [Edge((), each.shape, each.dtype) for each in used]
        yield from _differences("input", entry.inputs, measured, "what was measured")


def _differences(
    kind: str, claimed: Sequence[TensorDescription], found: Sequence[Edge], where: str
) -> Iterator[str]:
    if len(claimed) != len(found):
        yield f"it describes {len(claimed)} {kind}s, and {where} has {len(found)}"
        return
    for said, edge in zip(claimed, found, strict=True):
        about = f"the {kind} '{said.name}'"
        if edge.names and said.name not in edge.names:
            yield f"{about} is called '{edge.names[0]}' in {where}"
        if edge.dtype and said.dtype != edge.dtype:
            yield f"{about} is of {said.dtype}, and {where} has {edge.dtype}"
        if edge.scale is not None and math.isinf(edge.scale):
            yield f"{about} has an infinite scale in {where}"
        if edge.names and said.quantisation != edge.quantisation and said.quantisation is not None:
            yield f"{about} has another scale or zero point in {where}"
        if edge.sizes is not None and not _fits(said.shape, edge.sizes):
            sizes = "x".join("?" if size is None else str(size) for size in edge.sizes)
            yield f"{about} is {'x'.join(map(str, said.shape))}, and {where} has {sizes}"


def _fits(shape: Sequence[int], sizes: Sequence[int | None]) -> bool:
    if len(shape) != len(sizes):
        return False
    return all(size is None or size == said for said, size in zip(shape, sizes, strict=True))


def _fixed(size: int | str) -> int | None:
    return size if isinstance(size, int) and size > 0 else None


def _litert_edges(artifact: Path) -> tuple[tuple[Edge, ...], tuple[Edge, ...]] | None:
    from pipeline.export import flatbuffer

    try:
        model = flatbuffer.read(artifact.read_bytes())
        graph = model.subgraphs[0]
        signature = next(iter(model.signatureDefs or []), None)
        inputs, outputs = (
            tuple(_litert_edge(graph.tensors[number], number, named) for number in numbers)
            for numbers, named in (
                (graph.inputs, [] if signature is None else signature.inputs),
                (graph.outputs, [] if signature is None else signature.outputs),
            )
        )
    except (ExportError, OSError, LookupError, AttributeError, TypeError):
        return None
    return inputs, outputs


def _litert_edge(tensor: Any, number: int, named: Sequence[Any]) -> Edge:
    names = [each.name for each in named if each.tensorIndex == number] + [tensor.name]
    shape = () if tensor.shape is None else tensor.shape
    signature = shape if tensor.shapeSignature is None else tensor.shapeSignature
    return Edge(
        tuple(name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in names),
        tuple(None if size < 0 else int(size) for size in signature),
        _LITERT_TYPES.get(tensor.type, ""),
        *_scale(tensor),
    )


def _scale(tensor: Any) -> tuple[float | None, int]:
    """Scale and zero point of a tensor of integers with one scale, above 0."""
    about = tensor.quantization
    if about is None or about.scale is None or about.zeroPoint is None:
        return None, 0
    if len(about.scale) != 1 or len(about.zeroPoint) != 1 or not about.scale[0] > 0:
        return None, 0
    return float(about.scale[0]), int(about.zeroPoint[0])
