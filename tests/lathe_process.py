"""``lathe`` in this process, and in processes of its own that start at once.

Those are forked from a process that has imported what commands import and does nothing else; a fork that is
killed dies as any process does.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.places import ROOT

Ended = subprocess.CompletedProcess[str]


def run_here(*arguments: str) -> Ended:
    """Run a command as the entry point does."""
    from pipeline.cli.main import main

    stdout, stderr = io.StringIO(), io.StringIO()
    code = 0
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        patch.object(sys, "argv", ["lathe", *arguments]),
    ):
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(arguments, code, stdout.getvalue(), stderr.getvalue())


class LatheProcess:
    """A command in a process of its own, on a machine that seems to do nothing else.

    Args:
        arguments: of ``lathe``.
        log: a folder for what it writes.
        folder: in which it runs; this process's unless given.
        environment: this process's unless given.
        largest_file_bytes: writes beyond fail, as on a full disk.
    """

    def __init__(
        self,
        *arguments: str,
        log: Path,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
        largest_file_bytes: int | None = None,
    ) -> None:
        self.arguments = arguments
        self._stdout, self._stderr, self._stacks = log / "stdout", log / "stderr", log / "stacks"
        self._code: int | None = None
        self.pid: int = _ask(
            arguments=arguments,
            environment=dict(os.environ) if environment is None else environment,
            folder=str(folder or Path.cwd()),
            stdout=str(self._stdout),
            stderr=str(self._stderr),
            stacks=str(self._stacks),
            largest_file_bytes=largest_file_bytes,
        )

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None:
            self._code = _ask(pid=self.pid)
        return self._code

    def wait(self) -> Ended:
        """Wait for the end."""
        while (code := self.poll()) is None:
            time.sleep(0.01)
        return Ended(self.arguments, code, self._stdout.read_text(), self._stderr.read_text())

    def where(self) -> str:
        """The stack of its main thread now, as ``faulthandler`` writes it; empty if it is not known."""
        self._stacks.write_bytes(b"")
        said, end = "", time.monotonic() + 2
        while self.poll() is None and time.monotonic() < end:
            # Again, since it may just have been forked and have had no file to write to.
            if not said:
                os.kill(self.pid, signal.SIGUSR1)
            time.sleep(0.005)
            before, said = said, self._stacks.read_text()
            if said and said == before:
                break
        return said

    def kill_when(self, reached: Callable[[], bool]) -> bool:
        """Kill it as soon as something is reached; whether it was killed before it ended."""
        while self.poll() is None:
            if reached():
                os.kill(self.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        return self.wait().returncode == -signal.SIGKILL


def _ask(**request: Any) -> Any:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@functools.cache
def _server() -> subprocess.Popen[str]:
    """It ends with its input, which ends with this process."""
    command = [sys.executable, "-m", __name__]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _serve() -> dict[str, Any]:
    """Fork for each request to start a command, and tell the exit codes; returns in each fork."""
    # Not through Python's buffer, which forks would inherit.
    answers = os.dup(1)
    for line in iter(sys.stdin.readline, ""):
        request: dict[str, Any] = json.loads(line)
        answer: int | None
        if "pid" in request:
            ended, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            answer = os.fork()
            if not answer:
                os.close(answers)
                return request
        os.write(answers, f"{json.dumps(answer)}\n".encode())
    sys.exit()


def _become(request: dict[str, Any]) -> None:
    import resource

    from tests.quiet_machine import be_quiet

    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for stream, (path, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (request["stdout"], new), (request["stderr"], new))
    ):
        descriptor = os.open(path, flags)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    _tell_where(request["stacks"])
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # which was found under the old environment
    if limit := request["largest_file_bytes"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    sys.argv = ["lathe", *request["arguments"]]
    be_quiet()


def _tell_where(path: str) -> None:
    """Have SIGUSR1 write the stack to a file."""
    stacks = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    faulthandler.register(signal.SIGUSR1, stacks, all_threads=False)


if __name__ == "__main__":
    # Before the first fork, which may be asked before it has a file of its own.
    _tell_where(os.devnull)
    import sklearn.datasets  # noqa: F401
    import torch.export  # noqa: F401

    import pipeline.cli.db.command
    import pipeline.cli.profile.command
    import pipeline.cli.run.command
    import pipeline.cli.table.command  # noqa: F401
    from pipeline.cli.main import main

    _become(_serve())
    main()
