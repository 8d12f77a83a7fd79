from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import devices.runtimes
from devices.connections import Completed
from devices.errors import MeasurementError, TargetError
from devices.measurement.protocol import MeasuringProtocol
from devices.requests.operations import Operation, OperationProfile, profile_operations
from devices.runtimes import Capabilities
from devices.runtimes.base import Identify, Reply, Runtime
from devices.target import Target
from tests.devices.made_up import DEVICE, RUNTIME

QUICK = MeasuringProtocol(min_count=20)
HOST_ONNX = Target("host", "onnxruntime")


@dataclass(frozen=True)
class AnsweringRuntime(Runtime):
    """A runtime without Python whose tool answers every profile with the same events."""

    answer: tuple[dict[str, Any], ...] = ()
    needs_python: ClassVar[bool] = False

    def exchange(self, call, request):
        if isinstance(request, Identify):
            device = {name: getattr(DEVICE, name) for name in ("machine", "cpu", "cores", "os", "kernel")}
            identity = {
                "event": "identity",
                "runtime": {"version": "1", "binary_digest": "0"},
                "device": {**device, "instance": "0"},
            }
            return Reply((identity,), Completed(0, ""))
        return Reply(self.answer, Completed(0, ""))

    def capabilities(self, target):
        return Capabilities()

    def delegate(self, target):
        return "tool"


@pytest.fixture
def answering(monkeypatch, tmp_path):
    """Profiles a file with a tool that answers with the given events."""
    artifact = tmp_path / "model.tool"
    artifact.write_bytes(b"model")

    def ask(*answer: dict[str, Any]) -> OperationProfile:
        runtime = AnsweringRuntime("tool", (".tool",), ("fp32",), {"native": ""}, tuple(answer))
        monkeypatch.setattr(devices.runtimes, "RUNTIMES", (*devices.runtimes.RUNTIMES, runtime))
        return profile_operations(artifact, Target("host", "tool", options=("native",)), QUICK)

    return ask


def _profile(*operations: Operation, total_ns: tuple[int, ...] = ()) -> OperationProfile:
    return OperationProfile(
        "ef" * 32, "host/litert:fp32@1", RUNTIME, DEVICE, QUICK, operations, total_ns, "2025-01-01"
    )


CONV = Operation("conv1", "Conv", "cpu", (10, 30, 20))
GEMM = Operation("fc", "Gemm", "gpu", (60, 60, 60))
OTHER_CONV = Operation("conv2", "Conv", "cpu", (20, 20, 20))


def test_shares_are_of_the_sum_of_all_operations() -> None:
    profile = _profile(CONV, GEMM, OTHER_CONV, total_ns=(300, 500, 400))
    assert profile.sum_ns == 100
    assert profile.whole_ns == 400
    assert [profile.share(operation.time_ns) for operation in profile.operations] == [0.2, 0.6, 0.2]


def test_kinds_are_summed_and_the_most_expensive_comes_first() -> None:
    parts = _profile(CONV, GEMM, OTHER_CONV).by_kind()
    assert [(part.kind, part.where, part.count, part.time_ns) for part in parts] == [
        ("Gemm", "gpu", 1, 60),
        ("Conv", "cpu", 2, 40),
    ]
    assert sum(part.share for part in parts) == pytest.approx(1)


def test_a_time_below_the_clock_of_a_profiler_is_a_mean_of_many_and_no_zero() -> None:
    fast = Operation("add", "Add", "cpu", (0, 0, 0, 1000, 0, 0, 1000, 0, 0, 50_000))
    assert fast.time_ns == 250
    slow = Operation("conv", "Conv", "cpu", (9000, 9000))
    assert _profile(fast).too_coarse
    assert not _profile(fast, slow).too_coarse
    assert not _profile(CONV).too_coarse


def test_what_only_moves_data_is_summed_and_convolutions_are_not() -> None:
    kinds = ["Cast", "ReorderInput", "Transpose (ND, X32)", "DEQUANTIZE", "ConvTranspose", "TRANSPOSE_CONV"]
    kinds += ["Broadcast", "DynamicQuantizeMatMul", "Convolution (NHWC, F32) IGEMM", "aten::_to_copy"]
    profile = _profile(*(Operation(kind, kind, "cpu", (10,)) for kind in kinds))
    assert profile.moving is not None
    assert (profile.moving.count, profile.moving.time_ns, profile.moving.share) == (5, 50, 0.5)
    assert profile.moving.kind == "Cast, DEQUANTIZE, ReorderInput, Transpose (ND, X32), aten::_to_copy"
    assert _profile(CONV).moving is None


def test_one_kind_in_two_places_is_kept_apart() -> None:
    assert len(_profile(CONV, replace(CONV, where="gpu")).by_kind()) == 2


def test_operations_that_never_ran_take_nothing() -> None:
    profile = _profile(Operation("idle", "If", "cpu", ()))
    assert profile.sum_ns == 0
    assert profile.by_kind()[0].share == 0
    assert profile.whole_ns is None


def test_onnxruntime_tells_each_operation_of_a_real_file(tiny_onnx: Path) -> None:
    profile = profile_operations(tiny_onnx, HOST_ONNX, QUICK)
    assert profile.operations
    assert all(operation.name and operation.kind and operation.where for operation in profile.operations)
    assert all(len(operation.samples_ns) >= QUICK.min_count for operation in profile.operations)
    assert profile.whole_ns is not None
    assert profile.whole_ns > 0
    assert profile.runtime.name == "onnxruntime"


def test_a_runtime_without_a_profiler_says_so(hostile, tmp_path: Path) -> None:
    script = tmp_path / "sound.script"
    script.write_text("run")
    with pytest.raises(MeasurementError, match="not-supported") as caught:
        profile_operations(script, hostile, QUICK)
    assert "profiler" in caught.value.why


def test_a_damaged_file_is_an_error_with_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x00garbage" * 50)
    with pytest.raises(MeasurementError, match="load-failed"):
        profile_operations(broken, HOST_ONNX, QUICK)


def test_missing_and_unsuitable_files_and_unknown_devices_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="there is no file"):
        profile_operations(tmp_path / "none.onnx", HOST_ONNX, QUICK)
    with pytest.raises(MeasurementError, match="cannot be run on") as caught:
        profile_operations(tmp_path / "some.tflite", HOST_ONNX, QUICK)
    assert ".onnx" in caught.value.why
    with pytest.raises(TargetError):
        profile_operations(tmp_path / "none.onnx", Target("mars", "onnxruntime"), QUICK)


def test_averages_of_a_tool_that_keeps_its_samples_are_taken(answering) -> None:
    row = {"name": "a", "kind": "CONV_2D", "where": "xnnpack", "samples_ns": [1200]}
    profile = answering({"event": "operations", "operations": [row], "total_ns": []})
    assert profile.operations == (Operation("a", "CONV_2D", "xnnpack", (1200,)),)
    assert profile.whole_ns is None


@pytest.mark.parametrize(
    "answer",
    [
        {"event": "operations"},
        {"event": "operations", "operations": "many", "total_ns": []},
        {"event": "operations", "operations": [{"name": "a"}], "total_ns": []},
        {"event": "operations", "operations": [], "total_ns": [1]},
        {"event": "failed"},
        {"event": "something-else"},
    ],
)
def test_an_answer_that_is_no_table_is_an_error(answering, answer) -> None:
    with pytest.raises(MeasurementError, match="could not be profiled"):
        answering(answer)
