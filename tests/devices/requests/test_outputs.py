"""Where the outputs of a file are taken when its own target gives none."""

import pytest

from devices.errors import MeasurementError, TargetError
from devices.measurement import MeasuringProtocol
from devices.requests import outputs_target, prediction, profile_operations
from devices.target import Target


@pytest.mark.parametrize(
    ("target", "suffix", "expected"),
    [
        ("host/onnxruntime:fp32@2", ".onnx", "host/onnxruntime:fp32@2"),
        ("host/litert:fp32+native@4", ".tflite", "host/litert:fp32@1"),
        ("host/onnxruntime:fp32+native+nnapi@4", ".onnx", "host/onnxruntime:fp32@1"),
        ("host/tensorrt:fp32+native@1", ".onnx", "host/onnxruntime:fp32@1"),
    ],
)
def test_outputs_are_taken_on_the_target_or_here_by_a_runtime_of_the_same_format(target, suffix, expected):
    assert str(outputs_target(Target.parse(target), suffix)) == expected


def test_a_format_that_no_runtime_here_loads_is_refused_with_every_reason(monkeypatch):
    def gone(target):
        raise TargetError(f"{target.runtime} is not installed", why="No module named 'x'")

    monkeypatch.setattr(prediction, "probe", gone)
    with pytest.raises(TargetError, match="accuracy cannot be taken") as caught:
        outputs_target(Target.parse("host/litert:fp32+native@1"), ".tflite")
    assert "the tool makes up its inputs" in caught.value.why
    assert "host/litert:fp32@1: No module named 'x'" in caught.value.why
    assert "[litert]" in caught.value.fix


def test_operations_that_a_target_does_not_give_are_refused_before_the_device_is_asked(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(MeasurementError, match="not-supported") as caught:
        profile_operations(
            tmp_path / "x.onnx", Target.parse("host/onnxruntime:fp32+cuda@1"), MeasuringProtocol()
        )
    assert "start a kernel" in caught.value.why
