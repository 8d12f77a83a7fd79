from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.pipeline.cli.conftest import Lathe
from tests.pipeline.tiny_bundles import bundle_content, own_bundle, written_bundle

__all__ = ["bundle_content", "own_bundle", "written_bundle"]


def test_an_open_gate_ends_with_0_and_says_what_was_seen(lathe: Lathe, written_bundle: Path) -> None:
    code, output, _ = lathe("gate", str(written_bundle), "--max-size", "1MB", "--min-accuracy", "90%")
    assert code == 0
    assert "host/onnxruntime:fp32@1\n  size        passed" in output
    assert "91.67%, 11 of 12 test images, at least 90.00%" in output
    assert output.endswith("the gate is open\n")


def test_a_closed_gate_ends_with_13_and_all_documents_say_why(
    lathe: Lathe, written_bundle: Path, tmp_path: Path
) -> None:
    documents = ("--junit", "reports/gate.xml", "--markdown", "gate.md", "--json")
    code, output, messages = lathe("gate", str(written_bundle), "--max-size", "10", *documents)
    document = json.loads(output)
    assert code == document["error"]["exit_code"] == 13
    assert (document["finding"], document["passed"]) == ("failed", False)
    assert [check["name"] for check in document["checks"]] == ["integrity", "size"]
    assert "does not keep the limits of the gate" in messages
    assert ElementTree.parse(tmp_path / "reports" / "gate.xml").getroot().get("failures") == "1"
    assert "Gate closed" in (tmp_path / "gate.md").read_text()


def test_a_changed_bundle_ends_with_11_and_junit_says_so(
    lathe: Lathe, own_bundle: Path, tmp_path: Path
) -> None:
    (own_bundle / "recipe.toml").write_text("")
    code, output, _ = lathe("gate", str(own_bundle), "--max-size", "1MB", "--junit", "gate.xml", "--json")
    document = json.loads(output)
    assert code == document["error"]["exit_code"] == 11
    assert document["finding"] == "failed"
    failure = ElementTree.parse(tmp_path / "gate.xml").find(".//testcase[@name='integrity']/failure")
    assert failure is not None
    assert "recipe.toml was changed" in str(failure.get("message"))


def test_what_could_not_be_measured_ends_with_12(
    lathe: Lathe, own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from devices.errors import MeasurementError
    from pipeline.gate import checks

    def fail(*_: object) -> None:
        raise MeasurementError("it does not run")

    monkeypatch.setattr(checks, "artifact_accuracy", fail)
    code, output, messages = lathe("gate", str(own_bundle), "--min-accuracy", "0.5")
    assert code == 12
    assert "NOT MEASURED" in output
    assert "accuracy on host/onnxruntime:fp32@1: it does not run" in messages


@pytest.mark.parametrize(
    "arguments", [(), ("--max-regression", "3%"), ("--max-size", "much"), ("--against", "x", "--target", "x")]
)
def test_what_is_not_understood_ends_with_2(
    lathe: Lathe, written_bundle: Path, arguments: tuple[str, ...]
) -> None:
    code, output, messages = lathe("gate", str(written_bundle), *arguments)
    assert (code, output) == (2 if "x" not in arguments else 6, "")
    assert messages.startswith("error: ")
