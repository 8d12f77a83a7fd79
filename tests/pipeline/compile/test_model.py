"""Finished models are read as they are, and refused clearly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.compile import model_files
from pipeline.compile.model import Factory, GivenModel, ModelInput, TensorSpec
from pipeline.compile.model_files import external_data_of
from pipeline.compile.networks import network_of
from pipeline.compile.opening import open_model
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import ModelFormat
from pipeline.errors import ExportError, TeacherError
from pipeline.export import flatbuffer
from pipeline.progress import SilentReporter
from pipeline.teachers.resnet import resnet_cifar
from pipeline.work.canonical import OutsideFile
from pipeline.work.folder import WorkFolder
from tests.pipeline.compile.finished_models import save, save_classifier
from tests.places import ROOT


def opened(path: Path, tmp_path: Path, shape: tuple[int, ...] | None = None) -> GivenModel:
    source = OutsideFile.of(path)
    assert source is not None
    return asked(ModelInput(source, shape, (ModelFormat.ONNX,)), tmp_path)


def asked(given: ModelInput, tmp_path: Path) -> GivenModel:
    work = WorkFolder(tmp_path / "work")
    with work.opened():
        return work.run(open_model, given, CompileServices(SilentReporter(), work))


def test_an_onnx_file_says_its_input_outputs_and_operators(tmp_path: Path) -> None:
    model = opened(save_classifier(tmp_path / "model.onnx"), tmp_path)
    assert (model.name, model.format) == ("model", ModelFormat.ONNX)
    assert model.inputs == (TensorSpec("image", (1, 3, 8, 8), "float32"),)
    assert model.outputs[0].shape == (1, 4)
    assert model.classes == 4
    assert model.operators == {"Conv": 1, "Flatten": 1, "GlobalAveragePool": 1, "MatMul": 1, "Relu": 1}
    assert not model.quantised
    assert model.notes == ()


def test_an_open_batch_is_set_to_one_and_that_is_said(tmp_path: Path) -> None:
    model = opened(save_classifier(tmp_path / "model.onnx", ("batch", 3, 8, 8)), tmp_path)
    assert model.inputs[0].shape == (1, 3, 8, 8)
    assert model.outputs[0].shape == (1, 4)
    assert "1x3x8x8" in model.notes[0]


def save_reshaped(path: Path) -> Path:
    """``x.view(x.size(0), -1)`` of an open batch of 2x5 numbers, as torch exports it."""
    weights = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["size"], axis=0),
        helper.make_node("Unsqueeze", ["size", "axis"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["y"]),
    ]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 5])
    return save(path, nodes, [entry], [of_floats("y", ["batch", 10])], weights)


def of_floats(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def test_an_output_that_is_reshaped_by_the_open_batch_keeps_its_size(tmp_path: Path) -> None:
    model = opened(save_reshaped(tmp_path / "model.onnx"), tmp_path)
    assert model.outputs == (TensorSpec("y", (1, 10), "float32"),)
    assert model.classes == 10


def save_odd(path: Path, output: onnx.ValueInfoProto, batch: int | str = "batch") -> Path:
    """An operator of which nobody can infer what it gives."""
    node = helper.make_node("Sparkle", ["x"], [output.name], domain="made.up")
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("made.up", 1)]
    return save(path, [node], [of_floats("x", [batch, 4])], [output], {}, domains)


@pytest.mark.parametrize("batch", ["batch", 1])
def test_what_cannot_be_inferred_of_an_output_is_as_it_was_declared(batch: int | str, tmp_path: Path) -> None:
    path = save_odd(tmp_path / "model.onnx", of_floats("y", [batch, 7]), batch)
    assert opened(path, tmp_path).outputs[0].shape == (1, 7)


@pytest.mark.parametrize("batch", ["batch", 1])
def test_an_output_of_unknown_size_is_refused(batch: int | str, tmp_path: Path) -> None:
    path = save_odd(tmp_path / "model.onnx", of_floats("y", ["found", 7]), batch)
    with pytest.raises(ExportError, match=r"the output 'y' of model\.onnx has no fixed size: \? x 7"):
        opened(path, tmp_path)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (helper.make_tensor_value_info("y", TensorProto.STRING, [1, 7]), "'y' gives object"),
        (helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, [1, 7]), "'y' gives unknown"),
    ],
)
def test_an_output_that_is_no_tensor_of_numbers_is_refused(
    output: onnx.ValueInfoProto, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="cannot be compiled") as caught:
        opened(save_odd(tmp_path / "model.onnx", output), tmp_path)
    assert said in caught.value.why


def test_open_height_and_width_are_refused_until_a_shape_is_given(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "model.onnx", ("batch", 3, "height", "width"))
    with pytest.raises(ExportError, match="open dimensions: batch x 3 x height x width") as caught:
        opened(path, tmp_path)
    assert "--input-shape" in caught.value.fix
    assert opened(path, tmp_path, (3, 12, 12)).inputs[0].shape == (1, 3, 12, 12)


def test_a_shape_that_is_not_the_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not take inputs of shape 3x9x9"):
        opened(save_classifier(tmp_path / "model.onnx"), tmp_path, (3, 9, 9))


def test_a_model_for_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="takes batches of 8"):
        opened(save_classifier(tmp_path / "model.onnx", (8, 3, 8, 8)), tmp_path)


def save_sum(path: Path, kind: int = TensorProto.FLOAT, shape: Sequence[int | str] = (1, 4)) -> Path:
    inputs = [helper.make_tensor_value_info(name, kind, list(shape)) for name in ("left", "right")]
    output = helper.make_tensor_value_info("sum", kind, list(shape))
    return save(path, [helper.make_node("Add", ["left", "right"], ["sum"])], inputs, [output], {})


def test_several_inputs_keep_their_order(tmp_path: Path) -> None:
    model = opened(save_sum(tmp_path / "model.onnx", shape=("batch", 4)), tmp_path)
    assert model.inputs == tuple(TensorSpec(name, (1, 4), "float32") for name in ("left", "right"))
    assert len(model.notes) == 2


def test_a_shape_for_one_of_several_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="has 2 inputs") as caught:
        opened(save_sum(tmp_path / "model.onnx", shape=("batch", "n")), tmp_path, (4,))
    assert "fixed shapes" in caught.value.fix


def test_an_input_that_cannot_be_filled_is_refused(tmp_path: Path) -> None:
    path = save_sum(tmp_path / "model.onnx", TensorProto.COMPLEX64)
    with pytest.raises(ExportError) as caught:
        opened(path, tmp_path)
    assert "'left' takes complex64" in caught.value.why


def test_a_model_without_outputs_is_refused(tmp_path: Path) -> None:
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    path = save(tmp_path / "model.onnx", [helper.make_node("Relu", ["x"], ["y"])], [entry], [], {})
    with pytest.raises(ExportError) as caught:
        opened(path, tmp_path)
    assert caught.value.why == "it has no output"


def test_a_model_beyond_what_an_onnx_file_holds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "model.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with (tmp_path / "weights.bin").open("r+b") as stream:
        stream.truncate(model_files.MOST_BYTES)  # a hole, which takes no disk
    source = OutsideFile(path, "0" * 64)
    external = (OutsideFile(tmp_path / "weights.bin", "0" * 64),)
    with pytest.raises(ExportError, match=r"model\.onnx is too large: 2\.1 GB"):
        asked(ModelInput(source, None, (ModelFormat.ONNX,), external), tmp_path)


def test_weights_beside_an_operators_own_constant_count_too(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.ones((1, 4), np.float32), "c")
    entry, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    path = save(tmp_path / "model.onnx", nodes, [entry], [result], {})
    onnx.save(
        onnx.load(path),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    assert [each.path.name for each in external_data_of(path)] == ["weights.bin"]
    assert opened(path, tmp_path).operators == {"Add": 1, "Constant": 1}


def test_several_outputs_keep_their_order(tmp_path: Path) -> None:
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("a", "b")]
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["b"])]
    model = opened(save(tmp_path / "model.onnx", nodes, [entry], outputs, {}), tmp_path)
    assert [each.name for each in model.outputs] == ["a", "b"]


def test_other_weights_beside_an_onnx_file_make_it_another_model(tmp_path: Path) -> None:
    path = save_classifier(tmp_path / "model.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    source = OutsideFile.of(path)
    assert source is not None

    def key() -> str:
        external = external_data_of(path)
        assert [each.path.name for each in external] == ["weights.bin"]
        return open_model.key(ModelInput(source, None, (ModelFormat.ONNX,), external))

    before = key()
    assert key() == before
    (tmp_path / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes()[::-1])
    assert key() != before


def test_weights_are_beside_no_file_that_has_them_itself_or_cannot_be_read(tmp_path: Path) -> None:
    assert external_data_of(save_classifier(tmp_path / "model.onnx")) == ()
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    assert external_data_of(tmp_path / "broken.onnx") == ()


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x1c\x00\x00\x00TFL3"])
def test_a_file_that_is_no_model_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError):
        opened(tmp_path / name, tmp_path)


def test_a_file_of_another_kind_and_one_that_is_missing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(ExportError, match="no model that can be compiled") as caught:
        opened(tmp_path / "model.h5", tmp_path)
    assert ".onnx" in caught.value.why
    with pytest.raises(ExportError, match="there is no file"):
        opened(tmp_path / "nothing.onnx", tmp_path)


def test_a_quantised_model_is_known_as_such(tmp_path: Path) -> None:
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"]),
    ]
    path = save(tmp_path / "model.onnx", nodes, [entry], [output], {"s": np.float32([0.1])[0:1].reshape(())})
    assert opened(path, tmp_path).quantised


def test_a_litert_file_says_what_it_has(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    model = opened(ROOT / "devices" / "canary" / "canary.tflite", tmp_path)
    assert model.format is ModelFormat.LITERT
    assert model.inputs[0].dtype == "float32"
    assert sum(model.operators.values()) > 0
    assert not model.turned(ModelFormat.LITERT)


def test_a_litert_file_without_a_graph_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    content = flatbuffer.read((ROOT / "devices" / "canary" / "canary.tflite").read_bytes())
    content.subgraphs = []
    (tmp_path / "model.tflite").write_bytes(flatbuffer.write(content))
    with pytest.raises(ExportError, match="cannot be compiled") as caught:
        opened(tmp_path / "model.tflite", tmp_path)
    assert caught.value.why == "it has no graph"


def changed_canary(path: Path, change: Callable[[Any], object]) -> Path:
    """The canary, in which something was changed."""
    pytest.importorskip("ai_edge_litert")
    content = flatbuffer.read((ROOT / "devices" / "canary" / "canary.tflite").read_bytes())
    change(content)
    path.write_bytes(flatbuffer.write(content))
    return path


def signed(model: Any, signature: Sequence[int]) -> None:
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].shapeSignature = list(signature)


def test_the_open_batch_of_a_litert_file_is_taken_as_one_and_that_is_said(tmp_path: Path) -> None:
    path = changed_canary(tmp_path / "model.tflite", lambda model: signed(model, (-1, 32, 32, 3)))
    model = opened(path, tmp_path)
    assert model.inputs[0].shape == (1, 32, 32, 3)
    assert model.notes == (f"the open batch of the input '{model.inputs[0].name}' is taken as 1",)


def test_open_dimensions_of_a_litert_file_are_refused(tmp_path: Path) -> None:
    path = changed_canary(tmp_path / "model.tflite", lambda model: signed(model, (-1, -1, -1, 3)))
    for shape in (None, (32, 32, 3)):
        with pytest.raises(ExportError, match=r"has open dimensions: \? x \? x \? x 3"):
            opened(path, tmp_path, shape)


def test_a_shape_that_is_not_that_of_a_litert_file_is_refused(tmp_path: Path) -> None:
    path = changed_canary(tmp_path / "model.tflite", lambda model: None)
    assert opened(path, tmp_path, (32, 32, 3)).inputs[0].shape == (1, 32, 32, 3)
    with pytest.raises(ExportError, match="does not take inputs of shape 64x64x3"):
        opened(path, tmp_path, (64, 64, 3))


def without(name: str) -> Callable[[Any], None]:
    return lambda model: setattr(model.subgraphs[0], name, None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda model: setattr(model.subgraphs[0], "inputs", [1000]),
        lambda model: setattr(model.subgraphs[0], "outputs", [-1]),
        lambda model: setattr(model.subgraphs[0].operators[0], "opcodeIndex", 1000),
        lambda model: setattr(model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]], "name", b"\xff"),
        *(without(name) for name in ("inputs", "outputs", "operators", "tensors")),
    ],
)
def test_a_litert_file_that_names_what_it_does_not_have_is_refused(
    damage: Callable[[Any], None], tmp_path: Path
) -> None:
    path = changed_canary(tmp_path / "model.tflite", damage)
    with pytest.raises(ExportError, match="is not a whole LiteRT model"):
        opened(path, tmp_path)


def test_a_litert_output_of_no_size_is_refused(tmp_path: Path) -> None:
    def damage(model: Any) -> None:
        graph = model.subgraphs[0]
        graph.tensors[graph.outputs[0]].shape = [1, 0]

    with pytest.raises(ExportError, match=r"has no fixed size: 1 x \?"):
        opened(changed_canary(tmp_path / "model.tflite", damage), tmp_path)


FACTORY = "pipeline.teachers.resnet:resnet_cifar"


def test_of_several_state_dicts_in_a_checkpoint_the_key_chooses(tmp_path: Path) -> None:
    plain, average = resnet_cifar(8).state_dict(), resnet_cifar(8).state_dict()
    torch.save({"state_dict": plain, "state_dict_ema": average}, tmp_path / "both.pth")
    with pytest.raises(TeacherError, match="several state dicts") as caught:
        network_of(Factory.of(FACTORY, {"depth": 8}, tmp_path / "both.pth"))
    assert "--weights-key" in caught.value.fix
    chosen = network_of(Factory.of(FACTORY, {"depth": 8}, tmp_path / "both.pth", "state_dict_ema"))
    name = "layer1.0.conv1.weight"
    found = next(value for key, value in chosen.state_dict().items() if key.endswith(name))
    of_average = next(value for key, value in average.items() if key.endswith(name))
    assert torch.equal(found, of_average)


def test_a_factory_without_a_shape_is_refused(tmp_path: Path) -> None:
    given = ModelInput(Factory.of(FACTORY, {"depth": 8}, None), None, (ModelFormat.ONNX,))
    with pytest.raises(ExportError, match="shape of the input of resnet_cifar is not known") as caught:
        asked(given, tmp_path)
    assert "--input-shape" in caught.value.fix


def test_a_network_that_does_not_take_the_shape_is_refused(tmp_path: Path) -> None:
    given = ModelInput(Factory.of(FACTORY, {"depth": 8}, None), (1, 16, 16), (ModelFormat.TORCH,))
    with pytest.raises(ExportError, match="does not take inputs of shape 1x16x16"):
        asked(given, tmp_path)


def test_a_network_that_gives_more_than_one_tensor_is_refused(tmp_path: Path) -> None:
    pair = Factory("torch.nn:MaxPool2d", {"kernel_size": 2, "return_indices": True})
    with pytest.raises(ExportError, match="cannot be exported") as caught:
        asked(ModelInput(pair, (3, 8, 8), (ModelFormat.TORCH,)), tmp_path)
    assert caught.value.why == (
        "it gives a tuple with several tensors and none called 'logits': 0 of (3, 4, 4), 1 of (3, 4, 4)"
    )


def test_the_logits_of_an_object_are_what_is_exported(tmp_path: Path) -> None:
    factory = "tests.pipeline.teachers.tiny_transformers:vit"
    arguments = {"classes": ["cat", "dog", "hen"]}
    formats = (ModelFormat.ONNX, ModelFormat.TORCH)
    # Each export is compared with torch when it is made.
    model = asked(ModelInput(Factory.of(factory, arguments, None), (3, 8, 8), formats), tmp_path)
    assert model.outputs == (TensorSpec("logits", (1, 3), "float32"),)


def test_a_factory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    given = ModelInput(Factory.of("nowhere.at_all:net", {}, None), (3, 8, 8), (ModelFormat.ONNX,))
    with pytest.raises(TeacherError, match="cannot be imported"):
        asked(given, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("exporters_here")
def test_a_network_of_torch_is_exported_to_what_is_wanted(tmp_path: Path) -> None:
    wanted = (ModelFormat.ONNX, ModelFormat.TORCH)
    model = asked(ModelInput(Factory.of(FACTORY, {"depth": 8}, None), (3, 16, 16), wanted), tmp_path)
    assert set(model.files) == set(wanted)
    assert model.inputs[0].shape == (1, 3, 16, 16)
    assert model.classes == 10
    assert model.turned(ModelFormat.LITERT)
    assert not model.turned(ModelFormat.ONNX)
    work = WorkFolder(tmp_path / "work")
    assert onnx.load(work.find(model.files[ModelFormat.ONNX])).graph.node
    saved = work.find(model.files[ModelFormat.TORCH])
    again = opened_pt2(saved, tmp_path)
    assert again.inputs[0].shape == (1, 3, 16, 16)


def opened_pt2(path: Path, tmp_path: Path) -> GivenModel:
    """Its shape is known from the file."""
    return opened(path, tmp_path / "again")
