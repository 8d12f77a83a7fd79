"""What ``lathe verify`` prints for people."""

from __future__ import annotations

from pipeline.bundle import BundleVerification


def verified_text(bundle: str, verified: BundleVerification) -> str:
    """A line for the files, and one for each target that holds."""
    lines = [f"{bundle}: every file is unchanged"]
    for target in verified.targets:
        verdict = target.verdict
        lines.append(f"{verdict.target}: holds, {verdict.accuracy_words}; {verdict.why}")
    return "\n".join([*lines, ""])
