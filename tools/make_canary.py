"""Writes canary.onnx, canary.tflite and canary.pte into devices/canary: one small convolutional network.

Old operator versions on purpose, so that old runtimes load them: ONNX opset 11, IR 6; LiteRT CONV_2D 1.
"""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).parent.parent / "devices" / "canary"
SIZE, CHANNELS, LAYERS = 32, 24, 3


def weights() -> list[tuple[np.ndarray, np.ndarray]]:
    """Per layer ``(out, in, 3, 3)`` and ``(out,)`` float32; outputs keep the scale of the inputs."""
    generator = np.random.default_rng(0)
    layers, inputs = [], 3
    for _ in range(LAYERS):
        weight = generator.standard_normal((CHANNELS, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
        layers.append((weight.astype(np.float32), np.zeros(CHANNELS, np.float32)))
        inputs = CHANNELS
    return layers


def write_onnx(path: Path) -> None:
    nodes, initializers, name = [], [], "x"
    for index, (weight, bias) in enumerate(weights()):
        initializers += [
            numpy_helper.from_array(weight, f"w{index}"),
            numpy_helper.from_array(bias, f"b{index}"),
        ]
        inputs = [name, f"w{index}", f"b{index}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{index}"], pads=[1, 1, 1, 1]))
        name = f"r{index}"
        nodes.append(helper.make_node("Relu", [f"c{index}"], [name]))
    shapes = {"x": [1, 3, SIZE, SIZE], name: [1, CHANNELS, SIZE, SIZE]}
    values = [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in shapes.items()]
    graph = helper.make_graph(nodes, "canary", values[:1], values[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_tflite(path: Path) -> None:
    model = schema.ModelT()
    model.version = 3
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 1
    model.operatorCodes = [code]
    graph = schema.SubGraphT()
    model.buffers, graph.tensors, graph.operators = [schema.BufferT()], [], []

    def tensor(name: str, shape: tuple[int, ...], values: np.ndarray | None = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = (
            name.encode(),
            list(shape),
            schema.TensorType.FLOAT32,
            0,
        )
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    current = tensor("x", (1, SIZE, SIZE, 3))
    graph.inputs = [current]
    for index, (weight, bias) in enumerate(weights()):
        filters = np.transpose(weight, (0, 2, 3, 1))  # out, height, width, in
        operator = schema.OperatorT()
        operator.inputs = [
            current,
            tensor(f"w{index}", filters.shape, filters),
            tensor(f"b{index}", bias.shape, bias),
        ]
        current = tensor(f"r{index}", (1, SIZE, SIZE, CHANNELS))
        operator.outputs = [current]
        options = schema.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = schema.Padding.SAME, 1, 1
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
        operator.builtinOptions = options
        graph.operators.append(operator)
    graph.outputs = [current]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def write_pte(path: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    layers: list[torch.nn.Module] = []
    for weight, bias in weights():
        layer = torch.nn.Conv2d(weight.shape[1], CHANNELS, 3, padding=1)
        layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        layers += [layer, torch.nn.ReLU()]
    program = torch.export.export(torch.nn.Sequential(*layers).eval(), (torch.zeros(1, 3, SIZE, SIZE),))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    write_onnx(FOLDER / "canary.onnx")
    write_tflite(FOLDER / "canary.tflite")
    write_pte(FOLDER / "canary.pte")
