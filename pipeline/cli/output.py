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
        fields = {"what": error.what, "why": error.why, "fix": error.fix, "exit_code": error.exit_code}
        print_json({"error": fields})
    sys.stderr.write(f"error: {error}\n")
