from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from devices.artifacts import OnnxNode, onnx_facts
from devices.requests import Operation
from pipeline.report.nodes import nodes_of

KINDS = ("Constant", "Conv", "Relu", "Conv", "Conv", "Add", "Relu", "Mul", "MatMul", "Add")
INPUTS = ("", "x", "1", "2", "2", "3 4", "5", "6 0", "7", "8")
"""A residual block; each node gives the tensor of its position."""


def block(*, named: bool) -> list[OnnxNode]:
    return [
        OnnxNode(f"n{at}" if named else "", kind, tuple(inputs.split()), (str(at),))
        for at, (kind, inputs) in enumerate(zip(KINDS, INPUTS, strict=True))
    ]


def found(named: bool, *operations: tuple[str, str]) -> list[int | None]:
    return nodes_of(block(named=named), [Operation(name, kind, "", (1,)) for name, kind in operations])


@pytest.mark.parametrize("named", [True, False])
def test_a_convolution_with_an_activation_is_no_activation(named: bool) -> None:
    """As ONNX Runtime tells: by what the activation gives, or the sum with another convolution."""
    told = [("2_nchwc", "Conv"), ("4_nchwc", "Conv"), ("3_nchwc", "Conv"), ("ReorderOutput", "ReorderOutput")]
    assert found(named, *told) == [1, 4, 3, None]
    # The one that is called by the sum is not the one that has an operation of its own.
    assert found(named, ("4_nchwc", "Conv"), ("6_nchwc", "FusedConv")) == [4, 3]


def test_nodes_without_a_name_are_counted_as_onnx_runtime_counts_them() -> None:
    assert found(False, ("Relu_1", "Relu"), ("Mul_6", "Mul"), ("MatMul_7", "MatMul")) == [2, 7, 8]
    assert found(True, ("Mul_6", "Mul")) == [None]


def test_products_find_their_matrix_whatever_they_are_joined_with() -> None:
    assert found(True, ("fused n8/MatMulAddFusion", "FusedGemm")) == [8]
    assert found(True, ("n9", "FullyConnected (brgemm)")) == [8]


def test_layers_of_tensorrt_are_all_their_nodes_in_one() -> None:
    told = [
        ("n1 + PWN(n2)", "CaskConvolution"),
        ("PWN(n6)", "PointWiseV2"),
        ("node_of_8 + n9", "MatrixMultiply"),
    ]
    assert found(True, *told) == [1, 6, 8]


def test_other_kinds_stay_where_their_name_is() -> None:
    assert found(True, ("n6", "Subgraph"), ("5", ""), ("n2", "Convert")) == [6, 5, 2]


@pytest.mark.parametrize("named", [True, False])
def test_every_operation_of_onnx_runtime_finds_the_node_of_its_kind(tmp_path: Path, named: bool) -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.full(shape, 0.1, np.float32), name)

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(
            kind, inputs, [output], name=f"{kind} {output}" if named else "", **attributes
        )

    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Constant", [], "half", value=numpy_helper.from_array(np.float32(0.5))),
        node("Conv", ["x", "w1"], "a", **same),
        node("Relu", ["a"], "b"),
        node("Conv", ["b", "w2"], "c", **same),
        node("Conv", ["b", "w3"], "d", **same),
        node("Add", ["c", "d"], "e"),
        node("Relu", ["e"], "f"),
        node("Mul", ["f", "half"], "g"),
        node("Sigmoid", ["g"], "y"),
    ]
    shape = [1, 16, 8, 8]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [weight(f"w{each}", 16, 16, 3, 3) for each in (1, 2, 3)],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros(shape, np.float32)})
    events = json.loads(Path(session.end_profiling()).read_text())
    told = [
        Operation(event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], "", (1,))
        for event in events
        if event["name"].endswith("_kernel_time") and "Reorder" not in event["name"]
    ]
    facts = onnx_facts(path)
    assert facts is not None
    positions = nodes_of(facts.nodes, told)
    assert None not in positions
    assert len(set(positions)) == len(positions)
    assert {facts.nodes[at].kind for at in positions if at is not None} >= {"Conv", "Mul", "Sigmoid"}
    assert all(
        facts.nodes[at].kind == each.kind.removeprefix("Fused")
        for at, each in zip(positions, told, strict=True)
        if at is not None
    )
