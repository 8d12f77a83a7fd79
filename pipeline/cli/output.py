"""How the command line speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from devices.errors import LatheError


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def print_error(error: LatheError, *, as_json: bool) -> None:
    """What, why and fix on standard error; with ``--json`` also as a document on standard output."""
    if as_json:
        print_json(error_json(error))
    write_error(error)


def write_error(error: LatheError) -> None:
    """What, why and fix on standard error."""
    sys.stderr.write(f"error: {error}\n")


def error_json(error: LatheError) -> dict[str, Any]:
    """The documented form of an error."""
    fields = {"what": error.what, "why": error.why, "fix": error.fix, "exit_code": error.exit_code}
    return {"error": fields}
