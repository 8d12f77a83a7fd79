"""Runs the worker, a process of its own, and tells why it failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

from pipeline.errors import ExportError
from pipeline.export import worker
from pipeline.export.base import Format

# A group of the size that blocks.py asks for takes about twenty seconds on a slow core.
TIMEOUT_S = 1800
_ENVIRONMENT = {
    "LITERT_TORCH_SHOW_PROGRESS": "n",
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def run_worker(step: Literal["convert", "quantise"], fmt: Format, folder: Path) -> None:
    """Do a step of ``worker.py`` on what lies in the folder.

    Raises:
        ExportError: the worker failed, was ended, or took too long; what it said is in ``why``.
    """
    # By path and with -P: nothing in the working directory can take the place of a package.
    command = [sys.executable, "-P", worker.__file__, step, fmt.runtime, str(folder)]
    try:
        ended = subprocess.run(
            command,
            env=os.environ | _ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"the export to {fmt} did not end", why=f"it ran for more than {TIMEOUT_S} s"
        ) from None
    if ended.returncode != 0:
        what = "export" if step == "convert" else "quantisation"
        raise ExportError(f"the {what} to {fmt} failed", why=reason(folder, ended))


def reason(folder: Path, ended: subprocess.CompletedProcess[bytes]) -> str:
    """Why a worker failed, in one line."""
    error = folder / "error"
    if error.exists():
        return error.read_text(encoding="utf-8")
    said = ended.stdout.decode(errors="replace").strip().splitlines()
    last = said[-1] if said else "without a word"
    if ended.returncode < 0:
        return f"the exporter was ended by {signal.Signals(-ended.returncode).name}: {last}"
    return f"the exporter ended with status {ended.returncode}: {last}"
