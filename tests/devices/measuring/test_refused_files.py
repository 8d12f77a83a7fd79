"""Files that cannot be measured do not keep the others of their batch from being measured."""

from dataclasses import replace

from devices.measurement import Measurement, MeasurementFailure
from devices.measuring import Job, measure
from devices.target import Target
from tests.contracts.runtime import QUICK
from tests.devices.tiny_models import write_tiny_onnx


def test_a_missing_file_and_one_of_another_kind_fail_alone(tmp_path):
    good = write_tiny_onnx(tmp_path / "GOOD.ONNX")
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "folder.onnx").mkdir()
    jobs = [
        Job("missing", tmp_path / "missing.onnx"),
        Job("folder", tmp_path / "folder.onnx"),
        Job("notes", tmp_path / "notes.txt"),
        Job("good", good),
    ]
    outcomes = measure(jobs, Target.parse("host/onnxruntime:fp32@1"), replace(QUICK, launches=1))
    assert list(outcomes) == ["missing", "folder", "notes", "good"]
    assert isinstance(outcomes["good"], Measurement)
    reasons = {name: outcome.reason for name, outcome in outcomes.items() if name != "good"}
    assert reasons["missing"].code == reasons["folder"].code == "no-file"
    assert "folder" in reasons["folder"].detail
    assert reasons["notes"].code == "unsupported-artifact"
    assert outcomes["missing"].passing and not outcomes["notes"].passing


def test_a_batch_of_nothing_but_missing_files_asks_no_device(tmp_path):
    outcome = measure([Job("missing", tmp_path / "x.onnx")], Target.parse("host/onnxruntime:fp32@1"), QUICK)
    assert isinstance(outcome["missing"], MeasurementFailure)
    assert outcome["missing"].artifact_digest == ""
