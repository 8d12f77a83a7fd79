"""Runs exporters and compilers, processes of their own, and tells why they failed."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

from devices.host import check_interruption, end, full, is_full, start, temporary_folder
from devices.measurement import PASSING_CODES
from pipeline.errors import ExportError, PassingExportError
from pipeline.export import worker

TIMEOUT_S = 1800
_ENVIRONMENT = {
    "LITERT_TORCH_SHOW_PROGRESS": "n",
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


class Worker:
    """A process that does steps of ``worker.py``: started with the first, again when it has ended, and kept.

    As a context manager it is ended at the end.

    Args:
        runtime: whose file format it writes.
    """

    def __init__(self, runtime: str) -> None:
        self._runtime = runtime
        self._process: subprocess.Popen[bytes] | None = None
        self._opened = contextlib.ExitStack()
        self._said: IO[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def do(self, step: Literal["convert", "quantise"], folder: Path) -> None:
        """Do a step on what lies in a temporary folder.

        Raises:
            PassingExportError: it took too long, lacked memory, or was ended from outside.
            ExportError: the step failed, or the process ended; what it said is in ``why``.
            TemporaryFolderError: it failed since the disk of its folder is full.
            OSError: it failed on another full disk.
            Interrupted: this process was told to end.
        """
        what = "export" if step == "convert" else "quantisation"
        try:
            answer = self._ask(f"{step} {folder}\n")
        except TimeoutError:
            self._end()
            raise PassingExportError(
                "timeout",
                f"the {what} for {self._runtime} did not end",
                why=f"it ran for more than {TIMEOUT_S} s",
            ) from None
        except BaseException:
            self._end()
            raise
        if answer == "done":
            return
        # A failure that this process or a full disk made is none of the exporter.
        check_interruption()
        if answer == "no-space" or is_full(folder):
            raise no_space(folder)
        failed = f"the {what} for {self._runtime} failed"
        if answer:
            why = (folder / "error").read_text("utf-8")
            code = "out-of-memory" if answer == "no-memory" else None
        else:
            why, code = self._how_it_ended()
            if worker.tells_of_space(why):
                raise no_space(folder)
        if code is None:
            raise ExportError(failed, why=why)
        raise PassingExportError(code, failed, why=why)

    def _ask(self, line: str) -> str:
        """The answer; empty if the process ended instead."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line.encode())
        except BrokenPipeError:
            return ""
        answer = b""
        deadline = time.monotonic() + TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                if not selector.select(deadline - time.monotonic()):
                    raise TimeoutError
                chunk = os.read(process.stdout.fileno(), 100)
                if not chunk:
                    return ""
                answer += chunk
        return answer.decode().rstrip()

    def _start(self) -> subprocess.Popen[bytes]:
        folder = self._opened.enter_context(temporary_folder("exporter"))
        self._said = self._opened.enter_context((folder / "said").open("w+b"))
        # By path and with -P: nothing in the working directory can take the place of a package.
        self._process = start(
            (sys.executable, "-P", worker.__file__, self._runtime, str(os.getpid())),
            env={**os.environ, **_ENVIRONMENT, "TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            bufsize=0,
        )
        return self._process

    def _how_it_ended(self) -> tuple[str, str | None]:
        """In words, and as the code of a failure that may pass if it is one."""
        assert self._process is not None
        assert self._said is not None
        returncode = self._process.wait()
        self._said.seek(0)
        said = self._said.read()
        self._end()
        signalled = f"crashed-signal-{-returncode}"
        code = signalled if signalled in PASSING_CODES else None
        if worker.tells_of_memory(said.decode(errors="replace")):
            code = "out-of-memory"
        return how_it_ended(returncode, said), code

    def _end(self) -> None:
        if self._process is not None:
            end(self._process)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
        self._process = None
        self._opened.close()


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
        TemporaryFolderError: it failed since the disk of its folder is full.
        OSError: it failed on another full disk.
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
    if process.returncode != 0 and (is_full(folder) or worker.tells_of_space(said.decode(errors="replace"))):
        raise no_space(folder)
    return subprocess.CompletedProcess(command, process.returncode, said)


def no_space(folder: Path) -> Exception:
    """The error for a program that found a disk full: that of its temporary folder, or else another one."""
    if is_full(folder):
        return full(folder.parent)
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def how_it_ended(returncode: int, said: bytes) -> str:
    """Why an exporter ended before it had answered, in one line: its last words, and how."""
    lines = said.decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "without a word"
    if returncode < 0:
        return f"the exporter was ended by {signal.Signals(-returncode).name}: {last}"
    return f"the exporter ended with status {returncode}: {last}"
