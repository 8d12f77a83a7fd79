"""Runs exporters and compilers, processes of their own, and tells why they failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from devices.host import check_interruption, end, full, is_full, start
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
    command = (sys.executable, "-P", worker.__file__, step, fmt.runtime, str(folder), str(os.getpid()))
    what = "export" if step == "convert" else "quantisation"
    try:
        ended = run_quietly(command, folder, _ENVIRONMENT, TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"the {what} to {fmt} did not end", why=f"it ran for more than {TIMEOUT_S} s"
        ) from None
    if ended.returncode != 0:
        raise ExportError(f"the {what} to {fmt} failed", why=reason(folder, ended))


def run_quietly(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Run a program that ends with this process and has its temporary files in a folder.

    Args:
        command: program and arguments.
        folder: a temporary one.
        environment: beside this process's own.
        timeout_s: after which it is killed.

    Returns:
        How it ended, with all that it said in ``stdout``.

    Raises:
        subprocess.TimeoutExpired: it took too long.
        TemporaryFolderError: it failed on a full disk.
        Interrupted: this process was told to end.
    """
    process = start(
        command,
        env={**os.environ, **environment, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        said, _ = process.communicate(timeout=timeout_s)
    finally:
        end(process)
    # A failure that this process or a full disk made is none of the program.
    check_interruption()
    if process.returncode != 0 and is_full(folder):
        raise full(folder.parent)
    return subprocess.CompletedProcess(command, process.returncode, said)


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
