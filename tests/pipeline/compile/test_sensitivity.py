"""What each operator loses alone in int8, in both formats that have int8 with layers left in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from devices.target import Target
from pipeline.compile import CompileTask, find_variant
from pipeline.compile.variants import litert, onnxruntime
from pipeline.export import flatbuffer
from pipeline.export.noise import MOST_DB, signal_to_noise_db
from tests.pipeline.compile.finished_models import save
from tests.places import ROOT

pytestmark = pytest.mark.slow

FLOAT32, INT8 = 0, 9
CANARY = ROOT / "devices" / "canary" / "canary.tflite"


def save_two_products(path: Path) -> Path:
    """Of the second product's input one value is far larger than the others, and counts for nothing."""
    random = np.random.default_rng(0)
    weights = {
        "v": random.standard_normal((4, 6), dtype=np.float32),
        "far": np.float32([1000, 1, 1, 1, 1, 1]),
        "w": random.standard_normal((6, 3), dtype=np.float32) * np.float32([[0], [1], [1], [1], [1], [1]]),
    }
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("Mul", ["a", "far"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    return save(path, nodes, [entry], [result], weights)


def test_noise_is_that_of_the_worst_output() -> None:
    one = np.float32([[3, 4]])
    assert signal_to_noise_db([one, one], [one, 1.1 * one]) == pytest.approx(20, abs=0.01)
    assert signal_to_noise_db([one], [one]) == MOST_DB


def test_the_operator_whose_input_hides_what_matters_is_the_most_sensitive_in_onnx(tmp_path: Path) -> None:
    model = save_two_products(tmp_path / "net.onnx")
    inputs = np.random.default_rng(1).standard_normal((20, 4), dtype=np.float32)
    found = onnxruntime.find_sensitive(CompileTask(model, Target("host", "onnxruntime"), {"x": inputs}))
    ratios = {name: ratio for name, _, ratio in found}
    assert {kind for _, kind, _ in found} == {"MatMul"}
    first, second = ratios.values()
    assert second < first - 10


def test_the_most_sensitive_operators_of_a_litert_model_stay_in_float(tmp_path: Path) -> None:
    (entry,) = flatbuffer.read(CANARY.read_bytes()).subgraphs[0].inputs
    shape = flatbuffer.read(CANARY.read_bytes()).subgraphs[0].tensors[entry].shape
    values = np.random.default_rng(0).standard_normal((8, *shape[1:]), dtype=np.float32)
    given = CompileTask(CANARY, Target("host", "litert", "int8"), {"image": values})
    found = sorted(litert.find_sensitive(given), key=lambda each: each[2])
    assert all(0 < ratio <= MOST_DB for _, _, ratio in found)
    worst = found[0][0]
    task = CompileTask(CANARY, given.target, given.calibration, sensitive=tuple(name for name, _, _ in found))
    notes = find_variant("litert:int8-mixed10").make(task, tmp_path / "made.tflite")
    assert notes["in_float"].split()[0] == worst
    graph = flatbuffer.read((tmp_path / "made.tflite").read_bytes()).subgraphs[0]
    types = {tensor.name.decode(): tensor.type for tensor in graph.tensors}
    in_float = notes["in_float"].split()
    assert {types[name] for name in in_float if name in types} <= {FLOAT32}
    others = [name for name, _, _ in found if name not in in_float and name in types]
    assert {types[name] for name in others} <= {INT8}


def test_names_are_those_of_the_model_that_is_quantised(tmp_path: Path) -> None:
    model = save_two_products(tmp_path / "net.onnx")
    inputs = np.random.default_rng(1).standard_normal((20, 4), dtype=np.float32)
    task = CompileTask(
        model, Target("host", "onnxruntime", "int8"), {"x": inputs}, shared=tmp_path / "shared"
    )
    names = {name for name, _, _ in onnxruntime.find_sensitive(task)}
    (prepared,) = tmp_path.rglob("prepared.onnx")
    assert names <= {node.name for node in onnx.load(prepared).graph.node}
