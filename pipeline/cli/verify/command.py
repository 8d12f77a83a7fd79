"""What ``lathe verify`` does; imported only when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from devices.errors import LatheError
from latency_db.history import own_history
from pipeline.bundle import BundleVerification, TargetVerification, verify_bundle
from pipeline.cli.libraries import quiet_libraries
from pipeline.cli.output import error_json, print_json, write_error
from pipeline.cli.verify.text import verified_text
from pipeline.errors import NotMeasuredError, SignatureError, UnsignedError, VerificationError
from pipeline.progress import ConsoleReporter


def verify_folder(bundle: str, key: str | None, *, db: str | None, as_json: bool) -> None:
    """``lathe verify``; ends with the code of a failed verification when a promise does not hold."""
    quiet_libraries()
    document: dict[str, Any] = {"bundle": bundle, "holds": False}
    error: LatheError | None = None
    try:
        with own_history(db) as between, ConsoleReporter().task(f"verifying {bundle}", "targets") as advance:
            trusted = None if key is None else Path(key)
            verified = verify_bundle(Path(bundle), advance, key=trusted, between=between)
        document |= verified.to_json()
        error = _failure(bundle, verified)
    except (VerificationError, UnsignedError, SignatureError) as refused:
        error = refused
    if as_json:
        print_json(document | (error_json(error) if error is not None else {}))
    elif error is None:
        sys.stdout.write(verified_text(bundle, key, verified))
    if error is not None:
        write_error(error)
        raise typer.Exit(error.exit_code)


def _failure(bundle: str, verified: BundleVerification) -> VerificationError | NotMeasuredError | None:
    failed = {target.verdict.target: _why_not(target) for target in verified.targets if _fails(target)}
    if not failed:
        return None
    failing = [target for target in verified.targets if _fails(target)]
    if all(target.accuracy_holds and not target.verdict.measured for target in failing):
        return NotMeasuredError(
            f"the bundle {bundle} could not be measured on {', '.join(failed)}",
            why="; ".join(failed.values()),
            fix="leave the device to the measurement alone and verify again",
        )
    return VerificationError(
        f"the bundle {bundle} does not hold on {', '.join(failed)}",
        why="; ".join(failed.values()),
        fix="verify again; if it stays so, build it anew",
    )


def _fails(target: TargetVerification) -> bool:
    return not (target.accuracy_holds and target.verdict.acceptable)


def _why_not(target: TargetVerification) -> str:
    """Why a target's promise does not hold."""
    verdict = target.verdict
    if target.accuracy_holds:
        return verdict.why
    now, expected = verdict.accuracy, target.expected
    if expected is not None and expected.correct is None:
        found = "not known" if now is None else f"{now.share:.2%}"
        return f"the {expected.metric} on {verdict.target} is {found}, not {expected.share:.2%}"
    count = "no" if now is None else now.correct
    return f"{count} test images are correct on {verdict.target}, not {expected and expected.correct}"
