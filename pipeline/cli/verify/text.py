"""What ``lathe verify`` prints for people."""

from __future__ import annotations

from pipeline.bundle import BundleVerification


def verified_text(bundle: str, key: str | None, verified: BundleVerification) -> str:
    """A line for the files and the signature, one for each target that holds, and what nobody can repeat."""
    signed = "" if key is None else f", and it was signed with the key that belongs to {key}"
    lines = [f"{bundle}: every file is unchanged{signed}"]
    for target in verified.targets:
        verdict = target.verdict
        lines.append(f"{verdict.target}: holds, {verdict.accuracy_words}; {verdict.why}")
    word = "the word of whoever made the bundle" if key is None else "the signature"
    lines += [
        f"not found out again, for this there is only {word}:",
        *(f"  {each}" for each in verified.not_repeated),
    ]
    return "\n".join([*lines, ""])
