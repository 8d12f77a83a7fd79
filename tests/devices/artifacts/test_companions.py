"""ONNX files with weights beside them, and damaged ones."""

import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from devices.artifacts import artifact_digest, companions, read_onnx, refuse_incomplete
from devices.artifacts.onnx_file import OnnxTensor
from devices.digests import file_digest
from devices.errors import MeasurementError
from tests.devices.tiny_models import write_branching_onnx, write_tiny_onnx


def split(folder, seed, location="model.onnx.data"):
    """A model whose weights are in a file of their own."""
    folder.mkdir()
    model = onnx.load(write_tiny_onnx(folder / "whole.onnx"))
    values = np.random.default_rng(seed).standard_normal((4, 8), dtype=np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    (folder / "whole.onnx").unlink()
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder / "model.onnx"


def test_models_with_equal_graphs_and_other_weights_are_two_models(tmp_path):
    first, second, again = split(tmp_path / "a", 1), split(tmp_path / "b", 2), split(tmp_path / "c", 1)
    assert first.read_bytes() == second.read_bytes()
    assert artifact_digest(first) != artifact_digest(second)
    assert artifact_digest(first) == artifact_digest(again)
    assert companions(first) == {"model.onnx.data": tmp_path / "a" / "model.onnx.data"}


def test_a_model_in_one_file_has_the_digest_of_that_file(tmp_path):
    path = write_tiny_onnx(tmp_path / "whole.onnx")
    assert companions(path) == {}
    assert artifact_digest(path) == file_digest(path)


def test_a_model_without_its_weights_is_refused_with_the_name_of_the_file(tmp_path):
    model = split(tmp_path / "a", 1)
    alone = tmp_path / "alone.ONNX"
    shutil.copy(model, alone)
    with pytest.raises(MeasurementError, match="its weights are missing") as caught:
        refuse_incomplete(alone)
    assert "'model.onnx.data'" in caught.value.why
    (tmp_path / "a" / "model.onnx.data").write_bytes(b"cut")
    with pytest.raises(MeasurementError, match="are cut"):
        refuse_incomplete(model)


@pytest.mark.parametrize("location", ["/etc/passwd", "../outside", "a/../../outside", "a\0b", "x" * 300])
def test_weights_outside_the_folder_of_the_model_are_refused(tmp_path, location):
    model = onnx.load(split(tmp_path / "a", 1), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path = tmp_path / "a" / "leading out.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(MeasurementError, match="not looked for"):
        refuse_incomplete(path)
    with pytest.raises(MeasurementError, match="not looked for"):
        artifact_digest(path)


def test_weights_in_attributes_and_subgraphs_are_found(tmp_path):
    model = onnx.load(write_branching_onnx(tmp_path / "a.onnx"))
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "deep.bin"), ("offset", "4"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    branch = next(each.g for each in model.graph.node[2].attribute if each.name == "then_branch")
    branch.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    found = read_onnx(tmp_path / "a.onnx")
    assert found.external == {"deep.bin": 8}
    assert found.operations == {"ReduceSum": 1, "Less": 1, "If": 1, "Gemm": 2, "Relu": 1, "Constant": 1}


def test_initialisers_that_are_also_inputs_are_counted(tmp_path):
    model = onnx.load(write_tiny_onnx(tmp_path / "a.onnx"))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 8]))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert read_onnx(tmp_path / "a.onnx").replaceable == 1


def test_inputs_and_outputs_are_told_with_sizes_and_types(tmp_path):
    ends = [
        helper.make_tensor_value_info("x", TensorProto.INT8, ["batch", 3, None]),
        helper.make_tensor_value_info("y", TensorProto.INT8, None),
        helper.make_tensor_value_info("s", TensorProto.FLOAT, []),
    ]
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["t"], ["s"])]
    graph = helper.make_graph(
        nodes, "ends", ends[:1], ends[1:], [numpy_helper.from_array(np.float32(1), "t")]
    )
    (tmp_path / "a.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    found = read_onnx(tmp_path / "a.onnx")
    assert found.inputs == {"x": OnnxTensor(("batch", 3, "?"), "int8")}
    assert found.outputs == {"y": OnnxTensor(None, "int8"), "s": OnnxTensor((), "float32")}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_an_error_or_another_model_but_never_a_crash(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    content = bytearray(write_branching_onnx(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        read_onnx(path)
    except ValueError:
        assert companions(path) == {}


def test_graphs_nested_without_end_are_refused(tmp_path):
    def field(number, content):
        length = len(content)
        size = bytes([length]) if length < 128 else bytes([length % 128 | 128, length // 128])
        return bytes([number << 3 | 2]) + size + content

    graph = b""
    for _ in range(40):
        graph = field(1, field(5, field(6, graph)))
    (tmp_path / "deep.onnx").write_bytes(field(7, graph))
    with pytest.raises(ValueError, match="nested more than 30 deep"):
        read_onnx(tmp_path / "deep.onnx")
