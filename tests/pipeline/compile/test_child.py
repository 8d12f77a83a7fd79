"""Functions of ``pipeline.compile.steps`` run in a process of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.compile.child import call
from pipeline.errors import ExportError
from tests.pipeline.compile.finished_models import save_classifier
from tests.places import ROOT

STEP = "onnx_int8:store_weights_in_int8"


def test_what_a_function_leaves_is_there_and_why_it_failed_is_said(tmp_path: Path) -> None:
    model, path = save_classifier(tmp_path / "model.onnx"), tmp_path / "made.onnx"
    assert call(STEP, what="it fails", model=str(model), path=str(path)) is None
    assert path.is_file()
    with pytest.raises(ExportError, match="it fails") as caught:
        call(STEP, what="it fails", fix="mend it", model=str(tmp_path / "nothing.onnx"), path=str(path))
    assert "nothing.onnx" in caught.value.why


def test_arguments_may_be_longer_than_a_command_line(tmp_path: Path) -> None:
    made = tmp_path / "made.tflite"
    call(
        "litert_models:quantise",
        what="it cannot be quantised",
        model=str(ROOT / "devices" / "canary" / "canary.tflite"),
        path=str(made),
        recipe="dynamic",
        inputs=None,
        in_float=[f"an_operator_that_is_not_there_{number}" for number in range(10_000)],
    )
    assert made.is_file()
