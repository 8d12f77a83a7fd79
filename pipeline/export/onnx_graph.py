"""ONNX models cut into one model per output, named by position so that equal graphs are equal bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from pipeline.errors import ExportError


def split(joint: bytes, count: int, output_name: str) -> list[bytes]:
    """Cut ``input_i`` to ``output_i`` out of a joint model, for every ``i`` below ``count``.

    Raises:
        ExportError: a piece is no valid model.
    """
    import onnx
    from onnx.utils import Extractor

    model = onnx.load_model_from_string(joint)
    extractor = Extractor(model)
    pieces = []
    for index in range(count):
        try:
            piece = extractor.extract_model([f"input_{index}"], [f"output_{index}"])
            tidy(piece, {f"input_{index}": "input", f"output_{index}": output_name})
            onnx.checker.check_model(piece)
        except (ValueError, onnx.checker.ValidationError) as error:
            raise ExportError("the exported ONNX graph cannot be used", why=str(error)) from error
        pieces.append(piece.SerializeToString(deterministic=True))
    return pieces


def integer_edges(quantised: bytes, output_name: str) -> bytes:
    """A quantised model without the QuantizeLinear of its input and the DequantizeLinear of its output.

    An edge that other operators use as floats stays as it is.

    Raises:
        ExportError: the result is no valid model.
    """
    import onnx
    from onnx.utils import Extractor

    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(quantised))
    graph = model.graph
    first, last = graph.input[0].name, graph.output[0].name
    users = [node for node in graph.node if first in node.input]
    if [node.op_type for node in users] == ["QuantizeLinear"]:
        first = users[0].output[0]
    for node in graph.node:
        if last in node.output and node.op_type == "DequantizeLinear":
            last = node.input[0]
    try:
        piece = Extractor(model).extract_model([first], [last])
        tidy(piece, {first: "input", last: output_name})
        onnx.checker.check_model(piece)
    except (ValueError, onnx.checker.ValidationError) as error:
        raise ExportError("the quantised ONNX graph cannot be used", why=str(error)) from error
    content: bytes = piece.SerializeToString(deterministic=True)
    return content


def with_names_by_position(model: Any) -> Any:
    """The model itself, tidied with its inputs and outputs under the names that they have.

    A model with control flow is left as it is.
    """
    edges = [each.name for each in (*model.graph.input, *model.graph.output)]
    with contextlib.suppress(ValueError):
        tidy(model, dict(zip(edges, edges, strict=True)))
    return model


def tidy(model: Any, edges: Mapping[str, str]) -> None:
    """Name values, weights and nodes by position, and drop the trail of source files that torch leaves.

    Args:
        model: changed in place.
        edges: new names of inputs and outputs.

    Raises:
        ValueError: an operator holds a graph of its own (control flow).
    """
    graph = model.graph
    if any(
        attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute
    ):
        raise ValueError("an operator holds a graph of its own")
    names = {**edges, "": ""}
    taken = set(edges.values())
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        for name in (*node.input, *node.output):
            if name in names:
                continue
            new = f"{'weight' if name in weights else 'value'}_{len(names)}"
            while new in taken:
                new += "_"
            taken.add(new)
            names[name] = new
    for position, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{position}"
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    kept = [weights[name] for name in names if name in weights]
    for thing in (*kept, *graph.input, *graph.output):
        thing.name = names[thing.name]
    # A plain copy: the old messages are freed with the field.
    copies = [type(weight).FromString(weight.SerializeToString()) for weight in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    del graph.value_info[:]
    graph.name = "lathe"
    model.producer_name, model.producer_version = "lathe", ""
    model.opset_import.sort(key=lambda opset: opset.domain)
    for thing in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        thing.doc_string = ""
        del thing.metadata_props[:]
