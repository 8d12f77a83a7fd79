"""``lathe profile`` and ``lathe compare`` with models whose inputs are open, odd or given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner, Result

from devices.errors import LatheError, MeasurementError
from devices.result_file import read_results
from pipeline.cli.profile.arguments import compare, profile
from pipeline.errors import RecipeError
from tests.devices.tiny_models import write_tiny_onnx, write_tiny_tflite

ONNX, LITERT = "host/onnxruntime:fp32@1", "host/litert:fp32@1"

app = typer.Typer()
app.command()(profile)
app.command()(compare)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")


def _lathe(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _profile(*arguments: str, target: str = ONNX) -> Result:
    return _lathe("profile", "--target", target, "--launches", "1", *arguments)


def _said(result: Result) -> str:
    """What was printed, without the breaks of lines that a narrow terminal needs."""
    return " ".join(result.stdout.split())


def _results(*arguments: str, target: str = ONNX) -> list[dict[str, Any]]:
    return json.loads(_profile("--json", *arguments, target=target).stdout)["results"]


def _write(path: str, nodes: list, inputs: dict[str, tuple[int, list]], weights: dict | None = None) -> str:
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    graph.output[0].ClearField("type")
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    Path(path).write_bytes(model.SerializeToString())
    return path


def _open_image(path: str = "open.onnx") -> str:
    node = helper.make_node("Conv", ["pixels", "w"], ["y"], pads=[1] * 4)
    weight = np.ones((4, 3, 3, 3), np.float32)
    return _write(path, [node], {"pixels": (1, ["batch", 3, "height", "width"])}, {"w": weight})


def _needs_16(path: str = "needs.onnx") -> str:
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    return _write(path, [node], {"x": (1, ["batch", "seq"])}, {"s": np.array([-1, 16])})


def test_sizes_that_nobody_gave_are_told_beside_the_latency_with_the_option_that_gives_them() -> None:
    said = _said(_profile(_open_image()))
    assert (
        "inputs pixels [1, 3, 1, 1] float32 random NOTE pixels [batch, 3, height, width] was taken as "
        "[1, 3, 1, 1]; give the sizes you use: --shape pixels=BATCH,3,HEIGHT,WIDTH median" in said
    )
    assert said.index("latency") < said.index("inputs") < said.index("median")
    (found,) = _results("open.onnx")
    assert found["open_inputs"][0]["option"] == "--shape pixels=BATCH,3,HEIGHT,WIDTH"
    assert found["inputs"][0]["shape"] == [1, 3, 1, 1]


def test_a_sweep_has_a_result_for_each_shape_and_an_impossible_one_keeps_no_other_from_it() -> None:
    shapes = ["pixels=1,3,8,8", "pixels=1,4,8,8", "pixels=2,3,16,16"]
    options = [part for shape in shapes for part in ("--shape", shape)]
    shown = _profile(_open_image(), *options, "--save", "kept.json", "--ops")
    assert shown.exit_code == MeasurementError.exit_code
    assert "with pixels=1,4,8,8" in _said(shown) and "[1, 4, 8, 8] does not fit" in _said(shown)
    kinds = [entry.result.kind for entry in read_results(Path("kept.json")).entries]
    assert kinds == ["measurement", "failure", "measurement", "operations", "operations"]
    kept = [entry.result for entry in read_results(Path("kept.json")).entries]
    assert [each.inputs[0].shape for each in kept if each.kind == "measurement"] == [
        (1, 3, 8, 8),
        (2, 3, 16, 16),
    ]
    assert all(not each.inputs[0].assumed for each in kept if each.kind == "measurement")


def test_a_model_that_cannot_run_with_1_names_the_input_and_the_option() -> None:
    shown = _profile(_needs_16())
    assert shown.exit_code == MeasurementError.exit_code
    assert "needs-shape" in _said(shown) and "--shape x=BATCH,SEQ" in _said(shown)
    assert _results("needs.onnx", "--shape", "x=2,32")[0]["kind"] == "measurement"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shape", "pixel=1,3,8,8"], "no input 'pixel'; the nearest is 'pixels'"),
        (["--shape", "pixels=3,8,8"], "4 dimensions, and [3, 8, 8] has 3"),
        (["--shape", "pixels=1,3,2000000,2000000"], "bytes of memory are available"),
        (["--input", "pixels=ints.npy"], "is of type float32, and ints.npy"),
        (["--input", "pixels=grey.png"], "of 3 channels; the picture has 1"),
        (["--fill", "pixel=ones"], "no input 'pixel'"),
        (["--signature", "encode"], "only .tflite files have signatures"),
    ],
)
def test_an_input_that_does_not_fit_fails_the_model_in_one_line_that_says_what_would(
    options: list[str], says: str
) -> None:
    np.save("ints.npy", np.zeros((1, 3, 8, 8), np.int64))
    Image.new("L", (8, 8)).save("grey.png")
    shown = _profile(_open_image(), *options)
    assert shown.exit_code == MeasurementError.exit_code
    assert _said(shown).count("failed") == 1 and says in _said(shown)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shape", "pixels=1,-3,8,8"], "none below 1"),
        (["--input", "pixels=cut.npy"], "its header promises"),
        (["--input", "pixels=absent.png"], "No such file"),
    ],
)
def test_an_option_that_is_badly_written_ends_the_command(options: list[str], says: str) -> None:
    np.save("whole.npy", np.zeros(1000))
    Path("cut.npy").write_bytes(Path("whole.npy").read_bytes()[:500])
    with pytest.raises(LatheError) as caught:
        _profile(_open_image(), *options)
    assert says in str(caught.value)


def test_a_picture_gives_an_open_input_its_size_and_is_named_with_the_latency() -> None:
    Image.new("RGB", (20, 10)).save("photo.jpg")
    (found,) = _results(_open_image(), "--input", "pixels=photo.jpg")
    assert found["inputs"][0]["shape"] == [1, 3, 10, 20]
    assert found["inputs"][0]["fill"].startswith("photo.jpg (")
    assert found["open_inputs"] == []


def test_scalars_and_other_types_are_filled_and_told_and_can_be_given() -> None:
    nodes = [
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["ids"], ["i"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["m", "i"], ["t"]),
        helper.make_node("Mul", ["t", "speed"], ["y"]),
    ]
    kinds = {"mask": (TensorProto.BOOL, [1, 8]), "ids": (TensorProto.INT64, [1, 8]), "speed": (1, [])}
    _write("mixed.onnx", nodes, kinds)
    (found,) = _results("mixed.onnx", "--fill", "ids=range:0,9")
    fills = {each["name"]: (each["fill"], each["given"]) for each in found["inputs"]}
    assert fills == {"mask": ("ones", False), "ids": ("range:0,9", True), "speed": ("value:1", False)}


def test_token_ids_beyond_the_vocabulary_are_replaced_by_smaller_ones() -> None:
    node = helper.make_node("Gather", ["table", "input_ids"], ["y"])
    tables = {"table": np.ones((7, 4), np.float32)}
    _write("words.onnx", [node], {"input_ids": (TensorProto.INT64, [1, 8])}, tables)
    (found,) = _results("words.onnx")
    assert found["inputs"][0]["fill"] == "range:0,1"


def test_an_input_that_is_no_tensor_is_named_as_not_measurable() -> None:
    node = helper.make_node("LabelEncoder", ["words"], ["y"], domain="ai.onnx.ml")
    node.attribute.extend(
        [helper.make_attribute("keys_strings", ["a"]), helper.make_attribute("values_floats", [1.0])]
    )
    _write("text.onnx", [node], {"words": (TensorProto.STRING, [2])})
    model = onnx.load("text.onnx")
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    onnx.save(model, "text.onnx")
    said = _said(_profile("text.onnx"))
    assert "input 'words' is a tensor(string), which is not measurable" in said


@pytest.mark.parametrize("kind", ["BFLOAT16", "INT4", "FLOAT8E4M3FN", "FLOAT16"])
def test_types_that_numpy_lacks_are_measured(kind: str) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    _write("wide.onnx", [node], {"x": (getattr(TensorProto, kind), [1, 8])})
    model = onnx.load("wide.onnx")
    model.opset_import[0].version, model.ir_version = 21, 10
    onnx.save(model, "wide.onnx")
    assert _results("wide.onnx", "--ops")[0]["kind"] == "measurement"


def test_weights_beside_a_model_go_along_and_a_copy_without_them_is_refused_before_anything_starts() -> None:
    for name, scale in (("a", 1), ("b", 2)):
        Path(name).mkdir()
        weights = {"w": np.full((8, 8), scale, np.float32)}
        model = onnx.load(
            _write("whole.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (1, [1, 8])}, weights)
        )
        onnx.save(
            model, f"{name}/model.onnx", save_as_external_data=True, location="w.data", size_threshold=0
        )
    first, second = _results("a/model.onnx", "b/model.onnx")
    assert first["kind"] == second["kind"] == "measurement"
    assert first["artifact_digest"] != second["artifact_digest"]
    Path("alone.onnx").write_bytes(Path("a/model.onnx").read_bytes())
    shown = _profile("alone.onnx")
    assert shown.exit_code == MeasurementError.exit_code
    assert "no-weights" in _said(shown) and "'w.data'" in _said(shown)


@pytest.mark.parametrize("name", ["CAPITAL.ONNX", "Modell größe 模型.onnx", "-dash.onnx"])
def test_odd_names_are_measured(name: str) -> None:
    write_tiny_onnx(Path(name))
    assert _profile("--", name).exit_code == 0


def test_files_that_no_runtime_can_load_are_refused_in_one_line_with_found_and_supported() -> None:
    model = onnx.load(write_tiny_onnx(Path("good.onnx")))
    for name, change in {
        "ir.onnx": lambda each: setattr(each, "ir_version", 99),
        "opset.onnx": lambda each: setattr(each.opset_import[0], "version", 99),
        "custom.onnx": lambda each: setattr(each.graph.node[1], "op_type", "MyRelu"),
    }.items():
        changed = onnx.ModelProto.FromString(model.SerializeToString())
        change(changed)
        Path(name).write_bytes(changed.SerializeToString())
    Path("cut.onnx").write_bytes(Path("good.onnx").read_bytes()[:100])
    Path("empty.onnx").write_bytes(b"")
    shown = _profile("ir.onnx", "opset.onnx", "custom.onnx", "cut.onnx", "empty.onnx", "good.onnx")
    said = _said(shown).partition("ir.onnx on")[2]
    assert said.count("failed load-failed") == 5 and len(re.findall(r"latency [0-9.]+ ms", said)) == 1
    assert "IR version: 99, max supported IR version" in said
    assert "Opset 99" in said and "till opset" in said
    assert "MyRelu" in said
    assert "onnxruntime_src" not in said


def test_a_comparison_takes_one_shape_for_both() -> None:
    _open_image("a.onnx")
    _open_image("b.onnx")
    options = ["--target", ONNX, "--launches", "1", "--json"]
    shown = _lathe("compare", "a.onnx", "b.onnx", *options, "--shape", "pixels=1,3,8,8")
    document = json.loads(shown.stdout)["results"][0]
    assert [document[side]["inputs"][0]["shape"] for side in ("first", "second")] == [[1, 3, 8, 8]] * 2
    with pytest.raises(RecipeError, match="one shape of each input"):
        _lathe(
            "compare", "a.onnx", "b.onnx", *options, "--shape", "pixels=1,3,8,8", "--shape", "pixels=1,3,9,9"
        )


def test_an_input_of_a_tflite_file_is_resized() -> None:
    write_tiny_tflite(Path("tiny.tflite"))
    (found,) = _results("tiny.tflite", target=LITERT)
    (given,) = found["inputs"]
    assert given["assumed"] == [] or given["declared"][0] == "?"
