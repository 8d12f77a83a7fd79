"""What ``lathe gate`` does; imported only when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from devices.errors import LatheError
from devices.target import Target
from pipeline.cli.gate.arguments import Asked, Documents
from pipeline.cli.gate.text import gate_text
from pipeline.cli.libraries import quiet_libraries
from pipeline.cli.output import error_json, print_json, write_error
from pipeline.errors import GateError, NotMeasuredError, VerificationError
from pipeline.gate import (
    Check,
    CheckFinding,
    GateResult,
    Limits,
    gate_bundle,
    junit_xml,
    markdown,
    parse_share,
    parse_size,
)
from pipeline.progress import ConsoleReporter
from pipeline.work.disk import disk_errors, write_atomically

REGRESSION = 0.03
"""By how much an artifact may be slower than the older one, if nothing else is asked for."""


def hold_to_limits(
    bundle: str, asked: Asked, documents: Documents, targets: Sequence[str], *, as_json: bool
) -> None:
    """``lathe gate``; ends with the code of a closed gate."""
    quiet_libraries()
    limits, error = _limits(asked), None
    try:
        result = gate_bundle(
            Path(bundle),
            limits,
            against=None if asked.against is None else Path(asked.against),
            targets=[Target.parse(text) for text in targets],
            reporter=ConsoleReporter(),
        )
        error = _closed(result)
    except VerificationError as changed:
        why = changed.what if not changed.why else f"{changed.what}: {changed.why}"
        integrity = Check("", "integrity", CheckFinding.FAILED, why)
        result, error = GateResult(bundle, asked.against, (integrity,)), changed
    _write(documents.junit, junit_xml(result))
    _write(documents.markdown, markdown(result).encode())
    if as_json:
        shown: dict[str, Any] = error_json(error) if error is not None else {}
        print_json({**result.to_json(), **shown})
    else:
        sys.stdout.write(gate_text(result))
    if error is not None:
        write_error(error)
        raise typer.Exit(error.exit_code)


def _limits(asked: Asked) -> Limits:
    regression = REGRESSION if asked.against is not None else None
    if asked.max_regression is not None:
        regression = parse_share(asked.max_regression)
    return Limits(
        max_latency_ms=asked.max_latency_ms,
        max_regression=regression,
        min_accuracy=None if asked.min_accuracy is None else parse_share(asked.min_accuracy),
        max_size_bytes=None if asked.max_size is None else parse_size(asked.max_size),
    )


def _closed(result: GateResult) -> LatheError | None:
    if result.passed:
        return None
    failed, unknown = result.of(CheckFinding.FAILED), result.of(CheckFinding.NOT_MEASURED)
    if failed:
        return GateError(
            f"the bundle {result.bundle} does not keep the limits of the gate",
            why=_words(failed),
            fix="look for the cause, or allow more if the change is meant",
        )
    return NotMeasuredError(
        f"the bundle {result.bundle} could not be held to every limit of the gate",
        why=_words(unknown),
        fix="leave the device to the measurement alone and give the same command again",
    )


def _words(checks: Sequence[Check]) -> str:
    return "; ".join(f"{check.name} on {check.target}: {check.why}" for check in checks)


def _write(path: str | None, content: bytes) -> None:
    if path is not None:
        with disk_errors(Path(path)):
            Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
            write_atomically(Path(path), content)
