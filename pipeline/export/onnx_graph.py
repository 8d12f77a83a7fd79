"""ONNX models cut into one model per output, named by position so that equal graphs are equal bytes."""

from __future__ import annotations

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
            tidy(piece, output_name)
            onnx.checker.check_model(piece)
        except (ValueError, onnx.checker.ValidationError) as error:
            raise ExportError("the exported ONNX graph cannot be used", why=str(error)) from error
        pieces.append(piece.SerializeToString(deterministic=True))
    return pieces


def tidy(model: Any, output_name: str) -> None:
    """Name values, weights and nodes by position, and drop the trail of source files that torch leaves.

    Raises:
        ValueError: an operator holds a graph of its own (control flow).
    """
    graph = model.graph
    names = {graph.input[0].name: "input", graph.output[0].name: output_name, "": ""}
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ValueError(f"{node.op_type} holds a graph of its own")
        for name in (*node.input, *node.output):
            kind = "weight" if name in weights else "value"
            names.setdefault(name, f"{kind}_{len(names)}")
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
