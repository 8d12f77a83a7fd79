"""The same tiny network, relu(W x + b), as real ONNX and LiteRT files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

INPUTS, OUTPUTS = 8, 4
_GENERATOR = np.random.default_rng(7)
WEIGHT = _GENERATOR.standard_normal((OUTPUTS, INPUTS), dtype=np.float32)
BIAS = _GENERATOR.standard_normal(OUTPUTS, dtype=np.float32)


def tiny_reference(inputs: np.ndarray) -> np.ndarray:
    """What both files compute: ``(N, 8)`` to ``(N, 4)``."""
    return np.maximum(inputs @ WEIGHT.T + BIAS, 0)


def write_tiny_onnx(path: Path) -> Path:
    """An ONNX file of one Gemm and one Relu."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["a"], transB=1), helper.make_node("Relu", ["a"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, OUTPUTS])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def write_tiny_tflite(path: Path) -> Path:
    """A LiteRT flatbuffer of one fully connected operation with a fused relu."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version = 3
    operator_code = schema.OperatorCodeT()
    operator_code.builtinCode = operator_code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    model.operatorCodes = [operator_code]
    model.buffers = [_buffer(schema, None), _buffer(schema, WEIGHT), _buffer(schema, BIAS)]
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor(schema, b"x", [1, INPUTS], 0),
        _tensor(schema, b"w", [OUTPUTS, INPUTS], 1),
        _tensor(schema, b"b", [OUTPUTS], 2),
        _tensor(schema, b"y", [1, OUTPUTS], 0),
    ]
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = options
    graph.operators, graph.inputs, graph.outputs = [operator], [0], [3]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _buffer(schema, values):
    buffer = schema.BufferT()
    if values is not None:
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    return buffer


def _tensor(schema, name, shape, buffer):
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer, tensor.type = name, shape, buffer, schema.TensorType.FLOAT32
    return tensor
