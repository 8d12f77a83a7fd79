"""What a gate found, as build servers read it: JUnit XML and Markdown.

JUnit's format has no standard of its own; what is written here is what Jenkins, GitLab and GitHub's actions
agree on: a suite with a test case for each check, and in it ``failure``, ``error`` or ``skipped``.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from pipeline.gate.checks import Check, CheckFinding
from pipeline.gate.gating import GateResult

_ELEMENTS = {
    CheckFinding.FAILED: "failure",
    CheckFinding.NOT_MEASURED: "error",
    CheckFinding.UNDECIDED: "skipped",
}
_WORDS = {
    CheckFinding.PASSED: "passed",
    CheckFinding.FAILED: "**failed**",
    CheckFinding.UNDECIDED: "undecided",
    CheckFinding.NOT_MEASURED: "**not measured**",
}
# XML 1.0 has no way to write these.
_CONTROL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(result: GateResult) -> bytes:
    """One test suite, in which every check is a test case."""
    counts = {element: str(len(result.of(finding))) for finding, element in _ELEMENTS.items()}
    totals = {
        "tests": str(len(result.checks)),
        "failures": counts["failure"],
        "errors": counts["error"],
        "skipped": counts["skipped"],
    }
    root = ElementTree.Element("testsuites", totals)
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"lathe gate {_xml(result.bundle)}", **totals})
    for check in result.checks:
        names = {"classname": _xml(check.target or "bundle"), "name": check.name}
        case = ElementTree.SubElement(suite, "testcase", names)
        element = _ELEMENTS.get(check.finding)
        if element is None:
            ElementTree.SubElement(case, "system-out").text = _xml(check.why)
        else:
            ElementTree.SubElement(case, element, {"message": _xml(check.why)})
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def markdown(result: GateResult) -> str:
    """A summary with a table of all checks."""
    word = "open" if result.passed else "closed"
    lines = [f"### Gate {word}: {_cell(result.bundle)}", ""]
    if result.against is not None:
        lines += [f"Compared with {_cell(result.against)}.", ""]
    lines += ["| target | check | finding | figures |", "| --- | --- | --- | --- |"]
    lines += [_row(check) for check in result.checks]
    return "\n".join([*lines, ""])


def _row(check: Check) -> str:
    return (
        f"| {_cell(check.target or 'bundle')} | {check.name} | {_WORDS[check.finding]} | {_cell(check.why)} |"
    )


def _cell(text: str) -> str:
    """Text that cannot end its cell, and is not read as Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", " ".join(text.split()))


def _xml(text: str) -> str:
    return _CONTROL.sub("\ufffd", text)
