from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from pipeline.gate import Check, CheckFinding, GateResult, junit_xml, markdown

HOST = "host/onnxruntime:fp32@1"
CHECKS = (
    Check("", "integrity", CheckFinding.PASSED, "9 files are as they were written"),
    Check(HOST, "size", CheckFinding.FAILED, "300 bytes, at most 200", 300, limit=200, unit="bytes"),
    Check(HOST, "latency", CheckFinding.UNDECIDED, "1 ms [0.9, 1.1], at most 1 ms"),
    Check(HOST, "regression", CheckFinding.NOT_MEASURED, "the file did not run"),
)
RESULT = GateResult("new", "old", CHECKS)


def test_junit_has_a_case_for_each_check_and_an_element_for_each_kind_of_ending() -> None:
    root = ElementTree.fromstring(junit_xml(RESULT))
    (suite,) = root
    for each in (root, suite):
        counts = {name: each.get(name) for name in ("tests", "failures", "errors", "skipped")}
        assert counts == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    cases = list(suite)
    assert [case.get("name") for case in cases] == ["integrity", "size", "latency", "regression"]
    assert [case[0].tag for case in cases] == ["system-out", "failure", "skipped", "error"]
    assert cases[1][0].get("message") == "300 bytes, at most 200"
    assert cases[0].get("classname") == "bundle"


def test_markdown_says_whether_the_gate_is_open_and_has_a_row_for_each_check() -> None:
    text = markdown(RESULT)
    assert text.startswith("### Gate closed: new\n")
    assert "Compared with old." in text
    assert sum(line.startswith(("| host", "| bundle")) for line in text.splitlines()) == 4
    assert markdown(GateResult("new", None, CHECKS[:1])).startswith("### Gate open: new\n")


@given(st.text())
def test_any_text_is_well_formed_in_both(text: str) -> None:
    result = GateResult(text, text, (Check(text, "size", CheckFinding.FAILED, text),))
    root = ElementTree.fromstring(junit_xml(result))
    assert root[0][0].get("name") == "size"
    rows = [line for line in markdown(result).splitlines() if line.startswith("|")]
    assert len(rows) == 3


def test_the_worst_finding_decides() -> None:
    for finding, checks in (
        (CheckFinding.FAILED, CHECKS),
        (CheckFinding.UNDECIDED, CHECKS[:1] + CHECKS[2:3]),
    ):
        assert GateResult("new", None, checks).finding is finding
    assert GateResult("new", None, CHECKS[:1] + CHECKS[2:3]).passed
    assert not GateResult("new", None, CHECKS[2:]).passed
