"""What variants for TensorRT write, against what its documentation says that it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices.target import Target
from pipeline.compile import CompileTask, find_variant

IMAGES = np.random.default_rng(0).standard_normal((8, 3, 8, 8), dtype=np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A convolution with a bias, and a relu."""
    generator = np.random.default_rng(1)
    weight = generator.standard_normal((4, 3, 3, 3), dtype=np.float32)
    bias = generator.standard_normal(4, dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def outputs(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"input": row[None]})[0] for row in IMAGES])


@pytest.mark.slow
def test_an_int8_model_has_signed_symmetric_integers_and_biases_in_float(model, tmp_path):
    path = tmp_path / "made.onnx"
    task = CompileTask(model, Target("host", "tensorrt", "int8"), {"input": IMAGES})
    find_variant("tensorrt:int8-minmax").make(task, path)
    made = onnx.load(path)
    constants = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    quantisers = [node for node in made.graph.node if node.op_type.lower().endswith("quantizelinear")]
    zeros = [constants[node.input[2]] for node in quantisers]
    assert zeros
    assert {each.dtype for each in zeros} == {np.dtype(np.int8)}
    assert all((each == 0).all() for each in zeros)
    (convolution,) = [node for node in made.graph.node if node.op_type == "Conv"]
    assert constants[convolution.input[2]].dtype == np.float32
    assert len(next(constants[node.input[1]] for node in quantisers if constants[node.input[1]].ndim)) == 4
    expected = outputs(model)
    assert np.abs(outputs(path) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.slow
def test_the_converted_fp16_model_computes_in_fp16_and_keeps_its_inputs_and_outputs(model, tmp_path):
    path = tmp_path / "made.onnx"
    find_variant("tensorrt:fp16-converted").make(CompileTask(model, Target("host", "tensorrt", "fp16")), path)
    made = onnx.load(path)
    weight = next(each for each in made.graph.initializer if len(each.dims) == 4)
    assert weight.data_type == TensorProto.FLOAT16
    assert made.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    expected = outputs(model)
    assert np.abs(outputs(path) - expected).max() < 0.01 * np.abs(expected).max()
