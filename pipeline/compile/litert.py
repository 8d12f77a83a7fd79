"""LiteRT: the flatbuffer with channel-last input is the compiled form; it is checked and tidied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devices.target import Target
from pipeline.errors import ExportError
from pipeline.export import flatbuffer
from pipeline.work.disk import write_atomically

# TensorType.FLOAT32 of the schema.
_FLOAT32 = 0


def finish(exported: Path, target: Target, path: Path) -> Mapping[str, str]:
    """Write ``path``: the exported graph alone, without metadata and without what no operator uses.

    Raises:
        ExportError: not a LiteRT model of one graph with one float32 input ``(1, H, W, C)`` and one float32
            output ``(1, classes)``.
    """
    model = flatbuffer.read(exported.read_bytes())
    if len(model.subgraphs) != 1:
        raise ExportError(f"{exported.name} cannot be compiled for {target}", why="it has several subgraphs")
    graph = model.subgraphs[0]
    _check(exported, "input", graph, graph.inputs, rank=4)
    _check(exported, "output", graph, graph.outputs, rank=2)
    write_atomically(
        path, flatbuffer.write(flatbuffer.cut(model, graph.inputs[0], graph.outputs[0], "logits"))
    )
    return {"layout": "NHWC", "schema": f"TFL{model.version}"}


def _check(exported: Path, what: str, graph: Any, tensors: Any, *, rank: int) -> None:
    found = [([int(size) for size in graph.tensors[n].shape], graph.tensors[n].type) for n in tensors]
    match found:
        case [([1, *rest], type_code)] if len(rest) == rank - 1 and type_code == _FLOAT32:
            return
    raise ExportError(
        f"the {what} of {exported.name} is not one float32 tensor of rank {rank} and batch 1",
        why=f"found (shape, type code): {found}",
        fix="export it with pipeline.export.network.export_network",
    )
