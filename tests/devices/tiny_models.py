"""Tiny real models: one network, relu(W x + b), as ONNX, LiteRT and exported torch files, and odd ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np

INPUTS, OUTPUTS = 8, 4
_GENERATOR = np.random.default_rng(7)
WEIGHT = _GENERATOR.standard_normal((OUTPUTS, INPUTS), dtype=np.float32)
BIAS = _GENERATOR.standard_normal(OUTPUTS, dtype=np.float32)


def tiny_reference(inputs: np.ndarray) -> np.ndarray:
    """What the files compute: ``(N, 8)`` to ``(N, 4)``."""
    return np.maximum(inputs @ WEIGHT.T + BIAS, 0)


def write_tiny_onnx(path: Path) -> Path:
    """An ONNX file of one Gemm and one Relu."""
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    weights = [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")]
    return _write_onnx(path, nodes, weights)


def write_branching_onnx(path: Path) -> Path:
    """An ONNX file of a ReduceSum, a Less, and an If with a Gemm and a Relu in one of its branches."""
    from onnx import TensorProto, helper, numpy_helper

    def branch(name, *nodes):
        made = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, OUTPUTS])
        return helper.make_graph(list(nodes), name, [], [made])

    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["a"], transB=1)
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Less", ["sum", "huge"], ["always"]),
        helper.make_node(
            "If",
            ["always"],
            ["y"],
            then_branch=branch("then", gemm, helper.make_node("Relu", ["a"], ["then_y"])),
            else_branch=branch("else", helper.make_node("Gemm", ["x", "w", "b"], ["else_y"], transB=1)),
        ),
    ]
    weights = [
        numpy_helper.from_array(WEIGHT, "w"),
        numpy_helper.from_array(BIAS, "b"),
        numpy_helper.from_array(np.float32(1e30), "huge"),
    ]
    return _write_onnx(path, nodes, weights)


def write_identity_onnx(path: Path, dtype: str) -> Path:
    """An ONNX file that gives its input back, which has an open first dimension."""
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = [helper.make_tensor_value_info(name, kind, ["batch", INPUTS]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def write_quantised_onnx(path: Path) -> Path:
    """The tiny network with quantisers before the product: uint8 for inputs within 1, int8 for weights."""
    from onnx import helper, numpy_helper

    scale = np.float32(np.abs(WEIGHT).max() / 127)
    constants = {
        "x_scale": np.float32(1 / 127),
        "x_zero": np.uint8(128),
        "w_scale": scale,
        "w_zero": np.int8(0),
        "w8": np.round(WEIGHT / scale).astype(np.int8),
        "b": BIAS,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "x_scale", "x_zero"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w8", "w_scale", "w_zero"], ["wf"]),
        helper.make_node("Gemm", ["xf", "wf", "b"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return _write_onnx(path, nodes, weights)


def write_unsupported_onnx(path: Path) -> Path:
    """An ONNX file with an operation that no runtime knows: ``NoSuchOperation``."""
    from onnx import helper

    return _write_onnx(path, [helper.make_node("NoSuchOperation", ["x"], ["y"], domain="nowhere")], [])


def _write_onnx(path: Path, nodes: list, weights: list) -> Path:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, OUTPUTS])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nowhere", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


def write_tiny_tflite(path: Path) -> Path:
    """A LiteRT flatbuffer of one fully connected operation with a fused relu."""
    tensors = [("x", [1, INPUTS], None), ("w", None, WEIGHT), ("b", None, BIAS), ("y", [1, OUTPUTS], None)]
    return _write_tflite(path, tensors, [("FULLY_CONNECTED", [0, 1, 2], [3])])


def write_mixed_tflite(path: Path) -> Path:
    """Fully connected, cumulative sum, fully connected: XNNPACK takes the outer two, in two partitions."""
    tensors = [
        ("x", [1, INPUTS], None),
        ("w", None, WEIGHT),
        ("b", None, BIAS),
        ("a", [1, OUTPUTS], None),
        ("axis", None, np.int32([1])),
        ("sum", [1, OUTPUTS], None),
        ("square", None, np.eye(OUTPUTS, dtype=np.float32)),
        ("y", [1, OUTPUTS], None),
    ]
    operators = [
        ("FULLY_CONNECTED", [0, 1, 2], [3]),
        ("CUMSUM", [3, 4], [5]),
        ("FULLY_CONNECTED", [5, 6, 2], [7]),
    ]
    return _write_tflite(path, tensors, operators)


def write_unsupported_tflite(path: Path) -> Path:
    """A LiteRT flatbuffer with a custom operation that no runtime knows: ``NoSuchOperation``."""
    return _write_tflite(
        path, [("x", [1, INPUTS], None), ("y", [1, INPUTS], None)], [("NoSuchOperation", [0], [1])]
    )


def write_wrong_type_tflite(path: Path) -> Path:
    """A cumulative sum of truth values, for which LiteRT's kernel has no code."""
    tensors = [("x", [1, 4], None), ("axis", None, np.int32([1])), ("y", [1, 4], None)]
    return _write_tflite(path, tensors, [("CUMSUM", [0, 1], [2])], dtype=np.bool_)


def write_open_tflite(path: Path) -> Path:
    """The tiny network with an open first dimension, which is stored as 1."""

    def change(model, schema):
        model.subgraphs[0].tensors[0].shapeSignature = np.int32([-1, INPUTS])

    return _change_tflite(write_tiny_tflite(path), change)


def write_two_signatures_tflite(path: Path) -> Path:
    """The tiny network as ``decode``, of one row, and as ``encode``, of three."""

    def change(model, schema):
        second = copy.deepcopy(model.subgraphs[0])
        second.tensors[0].shape, second.tensors[-1].shape = np.int32([3, INPUTS]), np.int32([3, OUTPUTS])
        model.subgraphs.append(second)
        model.signatureDefs = []
        for number, key in enumerate(("decode", "encode")):
            signature, graph = schema.SignatureDefT(), model.subgraphs[number]
            signature.signatureKey, signature.subgraphIndex = key.encode(), number
            signature.inputs, signature.outputs = [schema.TensorMapT()], [schema.TensorMapT()]
            for ends, name, tensor in (
                (signature.inputs, b"rows", graph.inputs[0]),
                (signature.outputs, b"sums", graph.outputs[0]),
            ):
                ends[0].name, ends[0].tensorIndex = name, tensor
            model.signatureDefs.append(signature)

    return _change_tflite(write_tiny_tflite(path), change)


def _change_tflite(path: Path, change) -> Path:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(path.read_bytes()), 0))
    change(model, schema)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


Tensors = Sequence[tuple[str, list[int] | None, np.ndarray | None]]
"""Name, shape and, for constants, values; the first is the input of the network, the last its output."""


def _write_tflite(
    path: Path,
    tensors: Tensors,
    operators: Sequence[tuple[str, list[int], list[int]]],
    dtype: type = np.float32,
) -> Path:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    types = {
        np.dtype(np.float32): schema.TensorType.FLOAT32,
        np.dtype(np.int32): schema.TensorType.INT32,
        np.dtype(np.bool_): schema.TensorType.BOOL,
    }
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    model.buffers, model.operatorCodes = [schema.BufferT()], []
    graph.tensors, graph.operators = [], []
    graph.inputs, graph.outputs = [0], [len(tensors) - 1]
    for name, shape, values in tensors:
        tensor = schema.TensorT()
        tensor.name, tensor.buffer = name.encode(), 0
        tensor.shape = list(values.shape) if values is not None else shape
        tensor.type = types[np.dtype(dtype if values is None else values.dtype)]
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(tensor)
    for name, inputs, outputs in operators:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        number = getattr(schema.BuiltinOperator, name, schema.BuiltinOperator.CUSTOM)
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
        if number == schema.BuiltinOperator.CUSTOM:
            code.customCode = name.encode()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(model.operatorCodes), inputs, outputs
        if name == "FULLY_CONNECTED":
            operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
            operator.builtinOptions = schema.FullyConnectedOptionsT()
            operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU
        elif name == "CUMSUM":
            operator.builtinOptionsType = schema.BuiltinOptions.CumsumOptions
            operator.builtinOptions = schema.CumsumOptionsT()
        model.operatorCodes.append(code)
        graph.operators.append(operator)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def tiny_module():
    """The network as a torch module."""
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(INPUTS, OUTPUTS), torch.nn.ReLU()).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.from_numpy(WEIGHT))
        module[0].bias.copy_(torch.from_numpy(BIAS))
    return module


def write_tiny_pt2(path: Path) -> Path:
    """An exported program of one linear and one relu."""
    import torch

    torch.export.save(torch.export.export(tiny_module(), (torch.zeros(1, INPUTS),)), path)
    return path


def write_tiny_pte(path: Path) -> Path:
    """An ExecuTorch program that XNNPACK takes as a whole."""
    import torch

    return write_pte(path, tiny_module(), (torch.zeros(1, INPUTS),))


def write_mixed_pte(path: Path) -> Path:
    """Linear, cumulative sum, linear: XNNPACK takes the outer two, in two partitions."""
    import torch

    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = tiny_module(), torch.nn.Linear(OUTPUTS, OUTPUTS)

        def forward(self, x):
            return self.last(self.first(x).cumsum(1))

    return write_pte(path, Mixed().eval(), (torch.zeros(1, INPUTS),))


def write_pte(path: Path, module, inputs: tuple) -> Path:
    """A module as an ExecuTorch program for XNNPACK."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(
        torch.export.export(module, inputs), partitioner=[XnnpackPartitioner()]
    )
    path.write_bytes(lowered.to_executorch().buffer)
    return path
