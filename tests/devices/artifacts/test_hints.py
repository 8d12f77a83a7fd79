"""What files show that often costs time."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices.artifacts import added, hints_of, onnx_facts, open_inputs
from devices.target import Target
from tests.devices.tiny_models import write_branching_onnx, write_quantised_onnx, write_tiny_onnx

FP32 = Target.parse("host/onnxruntime:fp32@1")


def codes(path, target=FP32):
    return [hint.code for hint in hints_of(path, target)]


def conv(path, groups, outputs, channels=32):
    weight = numpy_helper.from_array(np.ones((outputs, channels // groups, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=groups)],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    onnx.save(helper.make_model(graph), path)
    return path


def test_a_plain_file_and_one_that_cannot_be_read_show_nothing(tmp_path):
    (tmp_path / "damaged.onnx").write_bytes(b"\x00garbage")
    (tmp_path / "other.tflite").write_bytes(b"")
    for path in (write_tiny_onnx(tmp_path / "a.onnx"), tmp_path / "damaged.onnx", tmp_path / "other.tflite"):
        assert codes(path) == []


def test_operations_whose_values_decide_are_named(tmp_path):
    (hint,) = hints_of(write_branching_onnx(tmp_path / "a.onnx"), FP32)
    assert hint.code == "values-decide" and "the time of If" in hint.detail


def test_initialisers_among_the_inputs_and_subnormal_weights_are_counted(tmp_path):
    model = onnx.load(write_tiny_onnx(tmp_path / "a.onnx"))
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, :3] = 1e-39
    weight[1, :3] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 8]))
    onnx.save(model, tmp_path / "a.onnx")
    found = {hint.code: hint.detail for hint in hints_of(tmp_path / "a.onnx", FP32)}
    assert found["initialisers-are-inputs"].startswith("1 initialiser can")
    assert found["subnormal-weights"].startswith("3 weights")


@pytest.mark.parametrize(
    ("groups", "outputs", "expected"),
    [
        (1, 64, []),
        (32, 32, []),
        (32, 64, ["depthwise-multiplier"]),
        (16, 64, ["thin-groups"]),
        (2, 64, []),
    ],
)
def test_convolutions_without_a_fast_kernel_are_named(tmp_path, groups, outputs, expected):
    path = conv(tmp_path / "a.onnx", groups, outputs)
    assert codes(path) == expected
    assert all(hint.operation == "conv" for hint in hints_of(path, FP32))


def test_a_precision_that_the_file_does_not_have_is_told_to_be_a_label(tmp_path):
    plain, quantised = write_tiny_onnx(tmp_path / "a.onnx"), write_quantised_onnx(tmp_path / "q.onnx")
    assert codes(plain, Target.parse("host/onnxruntime:fp16@1")) == ["precision-is-a-label"]
    assert codes(plain, Target.parse("host/onnxruntime:int8@1")) == ["precision-is-a-label"]
    assert codes(quantised, Target.parse("host/onnxruntime:int8@1")) == []
    assert codes(plain, Target.parse("host/onnxruntime:fp16+cuda@1")) == []


def test_float16_on_a_processor_is_told(tmp_path):
    model = onnx.load(write_tiny_onnx(tmp_path / "a.onnx"))
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    onnx.save(model, tmp_path / "a.onnx")
    assert codes(tmp_path / "a.onnx") == ["fp16-on-a-processor"]


def test_open_sizes_are_read_from_the_file(tmp_path):
    model = onnx.load(write_tiny_onnx(tmp_path / "a.onnx"))
    assert open_inputs(tmp_path / "a.onnx") == ()
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[0].dim_param = "batch"
    sizes.add()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, ["no", 8]))
    onnx.save(model, tmp_path / "a.onnx")
    assert open_inputs(tmp_path / "a.onnx") == ("x [batch, 8, ?]",)
    assert open_inputs(tmp_path / "other.tflite") == ()


def test_operations_that_are_not_in_the_file_were_added(tmp_path):
    path = write_tiny_onnx(tmp_path / "a.onnx")
    assert added(["Cast", "Cast", "Relu"], path) == 2
    assert added(["Cast"], tmp_path / "a.tflite") is None


def test_the_nodes_of_a_file_are_those_of_its_outer_graph(tiny_onnx: Path) -> None:
    found = onnx_facts(tiny_onnx)
    assert found is not None
    assert [(each.name, each.kind, each.inputs, each.outputs) for each in found.nodes] == [
        (node.name, node.op_type, tuple(node.input), tuple(node.output))
        for node in onnx.load(tiny_onnx).graph.node
    ]
