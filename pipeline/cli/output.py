"""How the command line speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from devices.errors import LatheError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def print_error(error: LatheError, *, as_json: bool) -> None:
    """What, why and fix on standard error; with ``--json`` also as a document on standard output.

    As far as either can be written; what standard output was given before is written too.
    """
    if as_json:
        written(sys.stdout, lambda: print_json(error_json(error)))
    write_error(error)
    written(sys.stdout, lambda: None)


def write_error(error: LatheError) -> None:
    """What, why and fix on standard error."""
    written(sys.stderr, lambda: sys.stderr.write(f"error: {error}\n"))


def written(stream: TextIO, write: Callable[[], object]) -> None:
    """Write to a stream what it takes; after a closed pipe or a full disk, it takes all and drops it."""
    try:
        write()
        stream.flush()
    except OSError as error:
        if error.errno not in (*NO_SPACE, errno.EPIPE):
            raise
        # Or Python would complain when it closes the stream, and end with another code.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def error_json(error: LatheError) -> dict[str, Any]:
    """The documented form of an error."""
    fields = {"what": error.what, "why": error.why, "fix": error.fix, "exit_code": error.exit_code}
    return {"error": fields}
