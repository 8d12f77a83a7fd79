"""A run for targets in int8 beside one in float, to the bundle that verifies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pipeline.bundle import read_bundle
from tests.lathe_process import run_here
from tests.pipeline.run.tiny_recipe import ONE_TARGET, run_recipe, write_recipe

pytestmark = [pytest.mark.usefixtures("quiet_machine", "exporters_here"), pytest.mark.slow]

INT8 = "host/onnxruntime:int8@1"
# Nothing may be lost, so that what loses a single image is fine-tuned.
RECIPE = ONE_TARGET.replace(
    "[measure]",
    f'[[target]]\nname = "{INT8}"\nbudget = "500x teacher"\n\n'
    "[compile]\nmax_drop = 0.0\ncalibration_images = 40\nfine_tuning_epochs = 1\n\n[measure]",
)


@pytest.fixture(scope="module", name="document")
def _document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("int8")
    return run_recipe(write_recipe(folder, RECIPE), folder, ["distil.epochs=20"])


def test_each_target_gets_its_own_artifact_from_one_student(document: dict[str, Any]) -> None:
    bundle = Path(document["bundle"])
    files = {entry.target: bundle / entry.artifact for entry in read_bundle(bundle).targets}
    kinds = {
        name: {node.op_type for node in onnx.load(file).graph.node} & {"QuantizeLinear", "DequantizeLinear"}
        for name, file in files.items()
    }
    assert kinds == {
        INT8: {"QuantizeLinear", "DequantizeLinear"},
        "host/onnxruntime:fp32@1": set(),
    }
    # The types with which the blocks of the table were measured.
    zeros = [
        onnx.numpy_helper.to_array(each).dtype
        for each in onnx.load(files[INT8]).graph.initializer
        if each.name.endswith("zero_point") or not each.dims
    ]
    assert {np.dtype(np.uint8)} <= set(zeros)


def test_the_run_says_what_int8_costs(document: dict[str, Any]) -> None:
    in_float, in_int8 = (
        next(each for each in document["winner"]["targets"] if each["target"].endswith(f":{precision}@1"))
        for precision in ("fp32", "int8")
    )
    assert in_float["int8"] is None
    figures = in_int8["int8"]
    lost = figures["post_training_accuracy"] < figures["float_accuracy"]
    assert (figures["fine_tuned_accuracy"] is not None) == lost
    assert figures["fine_tuning_epochs"] == int(lost)
    assert figures["agreement_with_float"] > 0.8
    assert in_int8["test_accuracy"] == pytest.approx(document["winner"]["test_accuracy"], abs=0.1)
    assert "in int8" in Path(document["report"]).read_text("utf-8")


def test_a_budget_of_the_teacher_means_the_teacher_in_float(document: dict[str, Any]) -> None:
    bundle = Path(document["bundle"])
    entry = next(each for each in read_bundle(bundle).targets if each.target == INT8)
    assert entry.budget.words == "500x of the teacher" and entry.reference
    operations = {node.op_type for node in onnx.load(bundle / entry.reference).graph.node}
    assert "Conv" in operations and not {"QuantizeLinear", "DequantizeLinear"} & operations
    ms = document["teacher"]["measured_ms"]
    assert ms[INT8] == ms["host/onnxruntime:fp32@1"]
    assert document["teacher"]["models"].keys() == {"onnx"}


def test_a_candidate_is_measured_beside_the_teacher_before_it_is_trained(document: dict[str, Any]) -> None:
    names = [each["name"] for each in document["stages"]]
    assert names.index("search") < names.index("rehearse") < names.index("distil")


def test_the_bundle_verifies_in_int8(document: dict[str, Any]) -> None:
    ended = run_here("verify", document["bundle"], "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["holds"]
