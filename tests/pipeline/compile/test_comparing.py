"""Outputs of a file beside the model's own, and what is said where either cannot be taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.errors import MeasurementError, PassingMeasurementError
from devices.requests import predict_all
from devices.target import Target
from pipeline.compile.comparing import Comparer
from pipeline.compile.feeding import Feeding
from pipeline.compile.model import GivenModel, ModelInput
from pipeline.compile.opening import open_model
from pipeline.compile.quality import Quality
from pipeline.compile.samples import SamplesInput, prepare_samples
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import ModelFormat
from pipeline.progress import SilentReporter
from pipeline.work.canonical import OutsideFile
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder
from tests.pipeline.compile.finished_models import save_classifier

HERE = Target("host", "onnxruntime")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[CompileServices]:
    work = WorkFolder(tmp_path / "work")
    with work.opened():
        yield CompileServices(SilentReporter(), work)


def opened(path: Path, services: CompileServices) -> GivenModel:
    source = OutsideFile.of(path)
    assert source is not None
    return services.work.run(open_model, ModelInput(source, None, (ModelFormat.ONNX,)), services)


def comparer(model: GivenModel, data: Path, services: CompileServices) -> Comparer:
    asked = SamplesInput.of(data, Feeding(), model)
    samples = services.work.run(prepare_samples, asked, services)
    return Comparer(model, samples, StageFolder(services.work.stages / "comparing"), services)


def test_a_file_is_compared_over_all_inputs(model: Path, data: Path, services: CompileServices) -> None:
    given = opened(model, services)
    found = comparer(given, data, services).compare(given.files[ModelFormat.ONNX], ModelFormat.ONNX, HERE)
    assert isinstance(found, Quality)
    assert (found.samples, found.max_abs, found.accuracy) == (100, 0, 1)


@pytest.mark.parametrize("kind", [MeasurementError, PassingMeasurementError])
def test_a_model_whose_own_outputs_cannot_be_taken_ends_with_what_can_be_done(
    kind: type[MeasurementError],
    model: Path,
    data: Path,
    tmp_path: Path,
    services: CompileServices,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, other = opened(model, services), opened(save_classifier(tmp_path / "other.onnx", seed=5), services)
    itself = services.work.find(given.files[ModelFormat.ONNX])

    def slow(artifact: Path, *rest: Any, **more: Any) -> Any:
        if artifact == itself:
            raise kind("it could not be run", why="it took too long")
        return predict_all(artifact, *rest, **more)

    monkeypatch.setattr("pipeline.compile.quality.predict_all", slow)
    with pytest.raises(kind, match="the outputs of net itself cannot be taken on host/onnxruntime") as caught:
        comparer(given, data, services).compare(other.files[ModelFormat.ONNX], ModelFormat.ONNX, HERE)
    assert caught.value.why == "it could not be run it took too long"
    assert "give fewer inputs with --data" in caught.value.fix
