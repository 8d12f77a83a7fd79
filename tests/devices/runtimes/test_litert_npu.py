"""LiteRT's files that were compiled for an NPU, made by the real tool; OpenVINO's CPU stands for the NPU."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from devices.agent import dispatch
from devices.errors import TargetError
from devices.measurement.measurement import Measurement, MeasurementFailure
from devices.measuring.batch import Job, measure
from devices.requests import predict
from devices.runtimes.python_runtimes import LITERT
from devices.target import Target
from tests.contracts.runtime import QUICK, load_engine, settings_of
from tests.devices.npu import compile_for_npu, openvino_as_litert_wants_it
from tests.devices.tiny_models import INPUTS, tiny_reference, write_tiny_tflite

ON_NPU = Target("host", "litert", "fp16", options=("npu",))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return openvino_as_litert_wants_it(tmp_path_factory.mktemp("openvino") / "libs")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, libraries: Path) -> Path:
    folder = tmp_path_factory.mktemp("npu")
    return compile_for_npu(write_tiny_tflite(folder / "tiny.tflite"), folder / "npu.tflite", libraries)


@pytest.mark.slow
def test_what_was_compiled_for_an_npu_goes_to_its_makers_library(
    compiled: Path, libraries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    inputs = np.random.default_rng(0).standard_normal((3, INPUTS), dtype=np.float32)
    # OpenVINO may compute in bfloat16.
    np.testing.assert_allclose(predict(compiled, inputs, ON_NPU), tiny_reference(inputs), atol=0.1)
    outcome = measure([Job("npu", compiled)], ON_NPU, QUICK)["npu"]
    assert isinstance(outcome, Measurement)
    assert outcome.placement is not None
    assert str(outcome.placement) == "1 of 1 operations on npu"
    assert outcome.placement.full


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (ON_NPU, r"libLiteRtDispatch_IntelOpenvino\.so, .* libopenvino\.so\.\d+: cannot open"),
        (Target("host", "litert"), r"'DISPATCH_OP' stands for a part .* compiled for an NPU.* '\+npu'"),
    ],
    ids=["no library", "no NPU asked for"],
)
def test_what_is_missing_for_an_npu_is_told_with_the_way_out(
    compiled: Path, target: Target, said: str
) -> None:
    outcome = measure([Job("npu", compiled)], target, QUICK)["npu"]
    assert isinstance(outcome, MeasurementFailure)
    assert outcome.reason.code == "load-failed"
    assert re.search(said, outcome.reason.detail)


def test_compiled_parts_go_to_the_library_of_the_maker_that_they_were_compiled_for(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dispatch.made_for(str(compiled)) == "IntelOpenVINO"
    monkeypatch.setattr(dispatch, "vendors", lambda: tmp_path)
    loads, broken = Path(np.random.mtrand.__file__), compiled
    for maker, library in {"google_tensor": broken, "intel_openvino": loads, "qualcomm": loads}.items():
        place = tmp_path / maker / "dispatch" / f"libLiteRtDispatch_{maker}.so"
        place.parent.mkdir(parents=True)
        place.symlink_to(library)
    for maker, folder in {"IntelOpenVINO": "intel_openvino", "Qualcomm": "qualcomm"}.items():
        assert dispatch.dispatch_library(maker).parent == tmp_path / folder / "dispatch"
    with pytest.raises(RuntimeError, match=r"libLiteRtDispatch_google_tensor\.so, .* cannot be loaded"):
        dispatch.dispatch_library("Google")
    with pytest.raises(
        RuntimeError, match=r"NPU of Samsung .there are those of google_tensor, intel_openvino"
    ):
        dispatch.dispatch_library("Samsung")


def test_a_file_that_names_no_maker_is_of_any(tiny_tflite: Path) -> None:
    assert dispatch.made_for(str(tiny_tflite)) == ""


def test_what_nobody_compiled_for_the_npu_runs_on_the_cpu(tiny_tflite: Path) -> None:
    model = load_engine(LITERT).Model(str(tiny_tflite), settings_of(LITERT, npu=""))
    row = np.random.default_rng(0).standard_normal((1, INPUTS), dtype=np.float32)
    model.set_inputs([row])
    model.run()
    np.testing.assert_allclose(model.outputs()[0], tiny_reference(row), atol=1e-5)
    assert model.placement() == [{"where": "cpu", "nodes": 1, "partitions": 1}]


def test_a_target_has_one_accelerator() -> None:
    with pytest.raises(TargetError, match="asks for the GPU and an NPU"):
        LITERT.check(Target("host", "litert", options=("gpu", "npu=LNL")))
