"""Graphs named by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.export.onnx_graph import with_names_by_position
from tests.pipeline.compile.finished_models import save

EDGES = [("x", "y"), ("value_4", "value_4_"), ("weight_3", "value_5"), ("x", "value_4")]


@pytest.mark.parametrize("edges", EDGES)
def test_no_two_values_get_one_name_whatever_the_inputs_and_outputs_are_called(
    edges: tuple[str, str], tmp_path: Path
) -> None:
    first, last = edges
    nodes = [
        helper.make_node("Mul", [first, "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["c"]),
        helper.make_node("Add", ["c", "a"], [last]),
    ]
    entry, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in edges)
    path = save(tmp_path / "net.onnx", nodes, [entry], [result], {"w": np.ones((1, 4), np.float32)})
    model = with_names_by_position(onnx.load(path))
    onnx.checker.check_model(model)
    made = [name for node in model.graph.node for name in node.output]
    names = [first, *(weight.name for weight in model.graph.initializer), *made]
    assert len(set(names)) == len(names) == 6
    assert [each.name for each in (*model.graph.input, *model.graph.output)] == [first, last]
