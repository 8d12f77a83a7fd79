"""A gate checks integrity first, then every limit; what cannot be measured is told from what is not kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from devices.errors import TargetError
from devices.measuring import LOOKS
from devices.target import Target
from pipeline.bundle import BundleContent, read_bundle, write_bundle
from pipeline.errors import UsageError, VerificationError
from pipeline.gate import CheckFinding, GateResult, Limits, checks, gate_bundle
from pipeline.progress import SilentReporter
from pipeline.target_verdict import verify_artifact
from tests.pipeline.tiny_bundles import PROTOCOL, save_onnx, with_program

HOST = Target.parse("host/onnxruntime:fp32@1")


def gate(folder: Path, limits: Limits, against: Path | None = None, *targets: Target) -> GateResult:
    return gate_bundle(folder, limits, against=against, targets=targets, reporter=SilentReporter())


def findings(result: GateResult) -> dict[str, CheckFinding]:
    return {check.name: check.finding for check in result.checks}


def with_artifact(content: BundleContent, artifact: Path, folder: Path) -> Path:
    """A bundle of another artifact for the same target."""
    (target,) = content.targets
    verdict = verify_artifact(artifact, None, HOST, budget=None, reference=None, protocol=PROTOCOL)
    other = dataclasses.replace(target, artifact=artifact, reference=None, verdict=verdict)
    return write_bundle(dataclasses.replace(content, targets=(other,)), folder)


def test_a_bundle_that_keeps_every_limit_passes(written_bundle: Path, quiet_machine: None) -> None:
    limits = Limits(max_latency_ms=1e6, max_regression=0.0, min_accuracy=11 / 12, max_size_bytes=10**6)
    result = gate(written_bundle, limits, written_bundle)
    assert findings(result) == dict.fromkeys(
        ("integrity", "size", "accuracy", "latency", "regression"), CheckFinding.PASSED
    )
    assert result.passed
    latency = next(check for check in result.checks if check.name == "latency")
    assert (latency.unit, latency.limit, latency.launches) == ("ms", 1e6, LOOKS[0])
    assert latency.low is not None
    assert latency.value is not None
    assert 0 < latency.low <= latency.value < 1e3


def test_every_limit_that_is_not_kept_is_named(written_bundle: Path, quiet_machine: None) -> None:
    limits = Limits(max_latency_ms=1e-9, min_accuracy=0.95, max_size_bytes=10)
    result = gate(written_bundle, limits)
    failed = {check.name: check.why for check in result.of(CheckFinding.FAILED)}
    assert set(failed) == {"size", "accuracy", "latency"}
    assert failed["accuracy"] == "91.67%, 11 of 12 test images, at least 95.00%"
    assert "bytes, at most 10" in failed["size"]
    assert not result.passed


def test_a_slower_artifact_is_a_regression(
    bundle_content: BundleContent, tmp_path: Path, quiet_machine: None
) -> None:
    old = with_artifact(bundle_content, save_onnx(tmp_path / "old.onnx"), tmp_path / "old")
    slow = save_onnx(tmp_path / "slow.onnx", work=60)
    new = with_artifact(bundle_content, slow, tmp_path / "new")
    result = gate(new, Limits(max_regression=0.03), old)
    assert findings(result) == {"integrity": CheckFinding.PASSED, "regression": CheckFinding.FAILED}
    (check,) = result.of(CheckFinding.FAILED)
    assert check.low is not None
    assert check.low > check.limit == 1.03
    assert findings(gate(old, Limits(max_regression=0.03), new))["regression"] is CheckFinding.PASSED


def test_equal_files_are_not_measured_against_each_other(
    written_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(checks, "ratio_against_limit")
    (_, check) = gate(written_bundle, Limits(max_regression=0.03), written_bundle).checks
    assert (check.finding, check.why) == (CheckFinding.PASSED, "both bundles have the same file")


def test_what_cannot_be_measured_is_not_called_failed(
    compiled_content: BundleContent, written_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise TargetError("the device does not answer", why="it is switched off")

    monkeypatch.setattr(checks, "latency_against_limit", unreachable)
    bundle = write_bundle(compiled_content, tmp_path / "bundle")
    result = gate(bundle, Limits(max_latency_ms=1.0, min_accuracy=0.5, max_size_bytes=10**6))
    assert result.finding is CheckFinding.NOT_MEASURED
    assert {check.name: check.why for check in result.of(CheckFinding.NOT_MEASURED)} == {
        "accuracy": "the bundle has no labelled test images",
        "latency": "the device does not answer: it is switched off",
    }
    assert not result.passed


def test_a_target_that_is_named_twice_is_checked_once(written_bundle: Path) -> None:
    result = gate(written_bundle, Limits(max_size_bytes=10**6), None, HOST, HOST)
    assert [check.name for check in result.checks] == ["integrity", "size"]


def test_a_program_that_nobody_trusts_is_not_run(bundle_content: BundleContent, tmp_path: Path) -> None:
    bundle = write_bundle(with_program(bundle_content, tmp_path), tmp_path / "bundle")
    result = gate(bundle, Limits(max_latency_ms=1e6, min_accuracy=0.0, max_size_bytes=10**6))
    assert findings(result)["size"] is CheckFinding.PASSED
    unknown = result.of(CheckFinding.NOT_MEASURED)
    assert [check.name for check in unknown] == ["accuracy", "latency"]
    assert all("is a program, and you have not said that you trust it" in check.why for check in unknown)


def test_an_older_bundle_without_the_target_cannot_be_compared_with(
    written_bundle: Path, bundle_content: BundleContent, tmp_path: Path
) -> None:
    (target,) = bundle_content.targets
    verdict = dataclasses.replace(target.verdict, target="host/onnxruntime:fp32@2")
    elsewhere = dataclasses.replace(target, verdict=verdict)
    old = write_bundle(dataclasses.replace(bundle_content, targets=(elsewhere,)), tmp_path / "old")
    (_, check) = gate(written_bundle, Limits(max_regression=0.03), old).checks
    assert check.finding is CheckFinding.NOT_MEASURED
    assert "has no artifact for this target" in check.why


def test_a_changed_bundle_is_refused_before_anything_is_measured(
    own_bundle: Path, written_bundle: Path
) -> None:
    (own_bundle / "recipe.toml").write_text("")
    for pair in ((own_bundle, None), (written_bundle, own_bundle)):
        with pytest.raises(VerificationError, match=r"recipe\.toml was changed"):
            gate(
                pair[0], Limits(max_regression=None if pair[1] is None else 0.03, max_latency_ms=1.0), pair[1]
            )


def test_a_gate_needs_a_limit_and_what_the_limit_needs(written_bundle: Path) -> None:
    with pytest.raises(UsageError, match="has no limit"):
        gate(written_bundle, Limits())
    with pytest.raises(UsageError, match="needs an older bundle"):
        gate(written_bundle, Limits(max_regression=0.03))
    with pytest.raises(UsageError, match="has no artifact for host/litert"):
        gate(written_bundle, Limits(max_size_bytes=1), None, Target.parse("host/litert:fp32@1"))


def test_a_gate_changes_nothing_in_the_bundle(own_bundle: Path) -> None:
    before = sorted((path, path.lstat().st_mtime_ns) for path in own_bundle.rglob("*"))
    gate(own_bundle, Limits(max_size_bytes=1, min_accuracy=0.5))
    assert sorted((path, path.lstat().st_mtime_ns) for path in own_bundle.rglob("*")) == before
    read_bundle(own_bundle)
