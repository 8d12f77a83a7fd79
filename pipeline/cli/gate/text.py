"""What ``lathe gate`` prints for people."""

from __future__ import annotations

from pipeline.gate import CheckFinding, GateResult

_WORDS = {
    CheckFinding.PASSED: "passed",
    CheckFinding.FAILED: "FAILED",
    CheckFinding.UNDECIDED: "undecided",
    CheckFinding.NOT_MEASURED: "NOT MEASURED",
}


def gate_text(result: GateResult) -> str:
    """A line for each check, and whether the gate is open."""
    lines: list[str] = []
    target = None
    for check in result.checks:
        if check.target != target:
            lines += [*([""] if lines else []), check.target or result.bundle]
            target = check.target
        lines.append(f"  {check.name:11} {_WORDS[check.finding]:13} {check.why}")
    return "\n".join([*lines, "", f"the gate is {'open' if result.passed else 'closed'}", ""])
