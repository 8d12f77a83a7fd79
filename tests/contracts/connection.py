"""What every kind of connection must do: inherit ``ConnectionContract`` and provide ``connection``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from devices.connections import Connection
from devices.connections.base import MOST_ANSWER_CHARACTERS
from devices.errors import MeasurementError, TargetError

ODD_NAMES = ("with space", "quote'\"`$(x)", "line\nbreak", "-rf", "--help", "ünï😀", "a;b|c&d>e")


PARENT = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)"
)
"""Starts a child, prints its number, and goes on."""


class ConnectionContract:
    """Subclasses provide ``connection``; ``run_python`` starts the device's own Python."""

    @pytest.fixture
    def connection(self) -> Connection:
        raise NotImplementedError

    def run_python(self, connection: Connection, code: str, *arguments: str, **options):
        lines: list[str] = []
        argv = (*connection.python, "-c", code, *arguments)
        ended = connection.run(argv, **{"timeout_s": 30.0, "on_line": lines.append, **options})
        return lines, ended

    def test_run_hands_over_each_line_and_the_status_when_a_command_ends(self, connection):
        lines, ended = self.run_python(connection, "import sys; print('a'); print('b', end=''); sys.exit(7)")
        assert lines == ["a", "b"]
        assert (ended.returncode, ended.timed_out, ended.lost) == (7, False, False)

    def start_s(self, connection: Connection) -> float:
        """The time in which a process starts there and says something, however busy the machines are."""
        start = time.monotonic()
        self.run_python(connection, "print('started')")
        return 0.5 + 2 * (time.monotonic() - start)

    def test_run_hands_over_a_line_while_the_command_still_runs(self, connection):
        stop = threading.Event()
        code = "import time; print('first', flush=True); time.sleep(600)"
        _, ended = self.run_python(connection, code, timeout_s=60, on_line=lambda _: stop.set(), stop=stop)
        assert not ended.timed_out

    def test_run_passes_standard_input_on_byte_for_byte(self, connection):
        code = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
        data = bytes(range(256)) * 1000
        lines, _ = self.run_python(connection, code, stdin=data)
        assert lines == [hashlib.sha256(data).hexdigest()]

    @pytest.mark.parametrize("argument", [*ODD_NAMES, ""])
    def test_run_passes_arguments_on_as_they_are_when_they_look_like_shell(self, connection, argument):
        lines, _ = self.run_python(connection, "import sys, json; print(json.dumps(sys.argv[1]))", argument)
        assert [json.loads(line) for line in lines] == [argument]

    def test_run_keeps_the_tail_of_standard_error(self, connection):
        _, ended = self.run_python(connection, "import sys; sys.stderr.write('x' * 100_000 + 'the end')")
        assert ended.stderr_tail.endswith("the end")
        assert len(ended.stderr_tail) < 10_000

    def test_run_names_the_signal_when_one_ends_the_command(self, connection):
        _, ended = self.run_python(connection, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
        assert ended.returncode == -signal.SIGSEGV

    def test_run_kills_the_command_when_it_takes_too_long(self, connection):
        code = "import time\nwhile True: print(1, flush=True); time.sleep(.05)"
        lines, ended = self.run_python(connection, code, timeout_s=self.start_s(connection))
        assert ended.timed_out
        assert lines

    def test_run_kills_the_command_when_it_is_silent_too_long(self, connection):
        code = "import time; print('last', flush=True); time.sleep(60)"
        lines, ended = self.run_python(connection, code, silence_s=self.start_s(connection))
        assert ended.timed_out
        assert lines == ["last"]

    def test_run_ends_when_the_command_ended_though_its_child_holds_the_pipe(self, connection):
        code = (
            "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
        )
        start = time.monotonic()
        _, ended = self.run_python(connection, code)
        assert (ended.returncode, ended.timed_out) == (0, False)
        assert time.monotonic() - start < 25

    def test_run_leaves_no_child_behind_when_it_times_out(self, connection):
        lines, ended = self.run_python(connection, PARENT, silence_s=self.start_s(connection))
        assert ended.timed_out
        self.assert_gone(connection, lines[0])

    def assert_gone(self, connection: Connection, pid: str) -> None:
        check = (
            "import sys\n"
            "try: print(open('/proc/' + sys.argv[1] + '/stat').read())\n"
            "except OSError: print('gone')"
        )
        assert wait_until(
            lambda: (state := self.run_python(connection, check, pid)[0]) == ["gone"] or ") Z " in state[0]
        )

    def test_run_kills_the_command_with_its_children_when_it_is_told_to_stop(self, connection):
        stop = threading.Event()
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines.append(line)
            stop.set()

        ended = connection.run((*connection.python, "-c", PARENT), timeout_s=60, on_line=on_line, stop=stop)
        assert not ended.timed_out and not ended.lost
        self.assert_gone(connection, lines[0])

    def test_run_kills_the_command_when_the_receiver_of_its_lines_fails(self, connection):
        lines: list[str] = []

        def on_line(line: str) -> None:
            lines.append(line)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            connection.run((*connection.python, "-c", PARENT), timeout_s=60, on_line=on_line)
        self.assert_gone(connection, lines[0])

    def test_run_takes_standard_output_that_is_not_text(self, connection):
        code = "import sys; sys.stdout.buffer.write(bytes(range(256)).replace(b'\\n', b'') + b'\\nend')"
        lines, ended = self.run_python(connection, code)
        assert (len(lines), lines[-1], ended.returncode) == (2, "end", 0)

    def test_run_and_push_work_when_several_threads_use_the_connection(self, connection, tmp_path):
        source = tmp_path / "source"
        source.write_bytes(os.urandom(100_000))
        code = "import sys; print(len(open(sys.argv[1], 'rb').read()), sys.stdin.read())"

        def one(number: int) -> list[str]:
            remote = connection.push(source)
            return self.run_python(connection, code, remote, stdin=str(number).encode())[0]

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(one, range(8))) == [[f"100000 {number}"] for number in range(8)]

    def test_processes_read_the_same_clock_when_the_connection_says_so(self, connection):
        before = time.monotonic_ns()
        lines, _ = self.run_python(connection, "import time; print(time.monotonic_ns())")
        if connection.shares_clock:
            assert before < int(lines[0]) < time.monotonic_ns()
        else:
            assert int(lines[0]) > 0

    def test_run_takes_output_of_many_megabytes(self, connection):
        lines, ended = self.run_python(connection, "print('x' * 5_000_000); print('y')")
        assert [len(line) for line in lines] == [5_000_000, 1]
        assert ended.returncode == 0

    def test_ask_gives_the_lines_of_an_answer_without_their_ends(self, connection):
        argv = (*connection.python, "-c", "print('one\\r'); print(); print('two')")
        lines, ended = connection.ask(argv, timeout_s=20)
        assert (lines, ended.returncode) == (["one", "", "two"], 0)

    def test_ask_keeps_the_first_part_of_an_answer_without_an_end(self, connection):
        argv = (*connection.python, "-c", "print('begins')\nwhile True: print()")
        lines, ended = connection.ask(argv, timeout_s=self.start_s(connection) + 1)
        assert ended.timed_out
        assert lines[0] == "begins"
        assert len(lines) <= MOST_ANSWER_CHARACTERS

    def test_run_refuses_a_command_that_does_not_exist(self, connection):
        with pytest.raises(TargetError):
            connection.run(("no-such-command-anywhere",), timeout_s=30)

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_push_and_pull_keep_every_byte_when_names_are_odd(self, connection, tmp_path, name):
        source, target = tmp_path / name, tmp_path / "back"
        source.write_bytes(os.urandom(1000))
        remote = connection.push(source)
        connection.pull(remote, target)
        assert target.read_bytes() == source.read_bytes()
        assert not remote.startswith("-")

    def test_push_keeps_the_suffix_and_gives_one_place_to_one_content(self, connection, tmp_path):
        source = tmp_path / "a model.tflite"
        source.write_bytes(b"one")
        first = connection.push(source)
        assert PurePosixPath(first).suffix == ".tflite"
        assert connection.push(source) == first
        source.write_bytes(b"two")
        connection.pull(connection.push(source), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b"two"

    def test_programs_of_two_versions_are_there_at_once_and_each_runs_its_own(self, connection, tmp_path):
        places = {}
        for version in ("old", "new"):
            agent = tmp_path / version / "agent.py"
            agent.parent.mkdir()
            agent.write_text(f"print({version!r})\n")
            places[version] = connection.push(agent)
        assert places["old"] != places["new"]
        code = "import runpy, sys; runpy.run_path(sys.argv[1])"
        said = {version: self.run_python(connection, code, place)[0] for version, place in places.items()}
        assert said == {"old": ["old"], "new": ["new"]}

    def test_files_that_belong_together_are_beside_each_other_by_their_names(self, connection, tmp_path):
        names = ("model.onnx.data", "-rf $(x)", "deep/er/größe 模.bin")
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"of {name}")
        (tmp_path / "model.onnx").write_text("graph")
        beside = {name: tmp_path / name for name in names}
        for _ in range(2):
            remote = connection.push_together(tmp_path / "model.onnx", beside)
            code = (
                "import pathlib, sys; first = pathlib.Path(sys.argv[1])\n"
                "print(first.suffix, first.read_text())\n"
                "for name in sys.argv[2:]: print((first.parent / name).read_text())"
            )
            lines, ended = self.run_python(connection, code, remote, *names)
            assert ended.returncode == 0
            assert lines == [".onnx graph", *(f"of {name}" for name in names)]

    def test_push_takes_a_file_without_content(self, connection, tmp_path):
        (tmp_path / "empty").touch()
        connection.pull(connection.push(tmp_path / "empty"), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b""

    def test_push_refuses_a_file_that_does_not_exist(self, connection, tmp_path):
        with pytest.raises(MeasurementError, match="absent"):
            connection.push(tmp_path / "absent")

    def test_pull_replaces_a_file_and_leaves_nothing_else(self, connection, tmp_path):
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_text("new")
        target.write_text("old")
        connection.pull(connection.push(source), target)
        assert target.read_text() == "new"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]

    def test_pull_keeps_the_old_file_when_there_is_none_on_the_device(self, connection, tmp_path):
        target = tmp_path / "target"
        target.write_text("old")
        with pytest.raises(MeasurementError):
            connection.pull(connection.scratch() + "/absent", target)
        assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]

    def test_scratch_is_a_folder_that_lasts_until_close(self, connection):
        folder = connection.scratch()
        assert connection.scratch() == folder
        lines, _ = self.run_python(connection, "import os, sys; print(os.path.isdir(sys.argv[1]))", folder)
        assert lines == ["True"]
        connection.close()
        connection.close()
        lines, _ = self.run_python(connection, "import os, sys; print(os.path.isdir(sys.argv[1]))", folder)
        assert lines == ["False"]


def is_running(pid: int) -> bool:
    """Whether a process of this machine exists and is not a zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def is_mentioned(mark: bytes) -> bool:
    """Whether it is among the arguments of a process of this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes():
                return True
    return False


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true in ten seconds; a killed process, for one, is not gone at once."""
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.05)
    return False
