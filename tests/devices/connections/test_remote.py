"""The shell scripts of remote connections under the shells and tools of boards and phones."""

from __future__ import annotations

import math
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devices.connections.remote import KILL_S, Output, RemoteConnection
from devices.errors import MeasurementError, TargetError
from tests.contracts.connection import is_mentioned, is_running, wait_until

TOOLS = (
    "sh",
    "head",
    "wc",
    "cat",
    "rm",
    "mv",
    "mkdir",
    "mktemp",
    "find",
    "touch",
    "chmod",
    "sleep",
    "setsid",
    "id",
)


class Shell:
    """A process of this machine instead of one on a device."""

    def __init__(self, command: str, path: Path) -> None:
        self._process = subprocess.Popen(
            [path / "sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": str(path), "HOME": "/nonexistent"},
            start_new_session=True,
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._selector.register(self._process.stderr, selectors.EVENT_READ)

    def read(self, timeout_s: float) -> Output | int | None:
        while self._selector.get_map():
            ready = self._selector.select(timeout_s)
            if not ready:
                return None
            stream = ready[0][0].fileobj
            data = os.read(stream.fileno(), 1 << 16)
            if data:
                return Output(data, stream is self._process.stderr)
            self._selector.unregister(stream)
        return self._process.wait(timeout_s)

    def write(self, data: bytes, timeout_s: float) -> None:
        if self._process.poll() is None:
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def close_input(self) -> None:
        self._process.stdin.close()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.stderr.close()
        self._process.wait(10)


class ShellConnection(RemoteConnection):
    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__("this shell", (sys.executable,), str(folder))
        self._path = path

    def _execute(self, command: str) -> Shell:
        return Shell(command, self._path)

    def _disconnect(self) -> None:
        pass


@pytest.fixture(params=["dash", "bash", "busybox", "mksh and toybox"])
def connection(request, tmp_path_factory):
    """With one kind of shell, and of tools, alone on its path."""
    path = tmp_path_factory.mktemp("path")
    for tool in TOOLS:
        match request.param:
            case "busybox":
                origin = "busybox"
            case "mksh and toybox":
                origin = "mksh" if tool == "sh" else "toybox"
            case shell:
                origin = shell if tool == "sh" else tool
        found = shutil.which(origin)
        if found is None:
            pytest.skip(f"needs {origin}: apt install {origin}")
        (path / tool).symlink_to(found)
    with ShellConnection(path, tmp_path_factory.mktemp("device")) as connection:
        yield connection


def test_run_gives_lines_errors_and_status_when_a_command_ends(connection):
    lines: list[str] = []
    code = "import sys; print(sys.stdin.read(), sys.argv[1:]); print('bad', file=sys.stderr); sys.exit(7)"
    ended = connection.run(
        (sys.executable, "-c", code, "-x", "a b'\n"), stdin=b"in\0put", timeout_s=30, on_line=lines.append
    )
    assert (ended.returncode, ended.stderr_tail, ended.timed_out, ended.lost) == (7, "bad", False, False)
    assert lines == ["in\0put ['-x', \"a b'\\n\"]"]


def test_run_gives_an_empty_input_and_the_signal_when_one_ends_the_command(connection):
    code = "import sys, os; print(repr(sys.stdin.read()), flush=True); os.kill(os.getpid(), 11)"
    lines: list[str] = []
    ended = connection.run((sys.executable, "-c", code), timeout_s=30, on_line=lines.append)
    assert lines == ["''"]
    assert ended.returncode == -signal.SIGSEGV


def test_run_kills_the_command_with_its_children_when_time_is_over(connection):
    lines: list[str] = []
    command = ("sh", "-c", "sleep 600 & echo $!; wait")
    ended = connection.run(command, timeout_s=2, on_line=lines.append)
    assert (ended.timed_out, ended.returncode) == (True, -signal.SIGKILL)
    assert wait_until(lambda: not is_running(int(lines[0])))


def test_run_kills_the_children_when_the_command_has_ended(connection):
    lines: list[str] = []
    ended = connection.run(("sh", "-c", "sleep 600 & echo $!"), timeout_s=30, on_line=lines.append)
    assert (ended.returncode, ended.timed_out) == (0, False)
    assert wait_until(lambda: not is_running(int(lines[0])))


def test_run_refuses_a_command_that_does_not_exist_or_cannot_be_executed(connection, tmp_path):
    (tmp_path / "no program").touch()
    for name in ("no-such-command", str(tmp_path / "no program")):
        with pytest.raises(TargetError, match="cannot be started on this shell"):
            connection.run((name,), timeout_s=10)


WAITS_FOR_A_FILE = """
import pathlib, sys, time
print(flush=True)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
"""


def test_run_leaves_no_process_of_its_own_behind(connection, tmp_path):
    timeout_s = random.randrange(1_000_000, 2_000_000)
    mark = str(math.ceil(timeout_s + KILL_S)).encode()
    during: list[bool] = []

    def look(_: str) -> None:
        during.append(wait_until(lambda: is_mentioned(mark)))
        (tmp_path / "seen").touch()

    command = (sys.executable, "-c", WAITS_FOR_A_FILE, str(tmp_path / "seen"))
    ended = connection.run(command, timeout_s=timeout_s, on_line=look)
    assert (ended.returncode, during) == (0, [True])
    assert wait_until(lambda: not is_mentioned(mark))


def test_push_pull_and_close_work_with_the_tools_at_hand(connection, tmp_path):
    source = tmp_path / "model.tflite"
    source.write_bytes(os.urandom(300_000))
    remote = Path(connection.push(source))
    connection.pull(str(remote), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes() == remote.read_bytes()
    with pytest.raises(MeasurementError, match="no file"):
        connection.pull(str(remote) + "x", tmp_path / "back")
    scratch = Path(connection.scratch())
    assert [path.name for path in remote.parent.iterdir() if path != remote] == [scratch.name]
    connection.close()
    assert not scratch.exists()


def test_opening_removes_what_lathe_left_and_nobody_used_for_a_month_and_nothing_else(connection, tmp_path):
    (tmp_path / "old.onnx").write_text("old")
    (tmp_path / "new").write_text("new")
    old, new = Path(connection.push(tmp_path / "old.onnx")), Path(connection.push(tmp_path / "new"))
    folder = new.parent
    connection.close()
    left = folder / "lathe-scratch-Ab3dEf"
    others = [folder / "native", folder / "scratch-photos", folder / "0123456789abcdef"]
    for path in (left, *others):
        path.mkdir()
        (path / "file").write_text("something")
    notes = folder / "notes.txt"
    notes.write_text("mine")
    month_ago = time.time() - 32 * 86_400
    for path in (old, left, *others, notes):
        os.utime(path, (month_ago, month_ago))
    scratch = Path(connection.scratch())
    assert set(folder.iterdir()) == {new, *others, notes, scratch}


def test_connection_refuses_a_shell_that_prints_a_greeting(connection, tmp_path):
    execute = connection._execute
    connection._execute = lambda command: execute(f"echo Welcome; {command}")
    with pytest.raises(TargetError, match="prints more") as caught:
        connection.pull("/etc/hostname", tmp_path / "back")
    assert "Welcome" in caught.value.why
