"""Real signals to real commands: they end, say how to go on, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest

from pipeline.cli.interrupts import CommandInterrupted
from tests.devices.ssh_server import USER, SshServer
from tests.devices.tiny_models import write_tiny_onnx
from tests.lathe_process import LatheProcess
from tests.pipeline.run.tiny_recipe import write_recipe

HANG_S = 240.0

IGNORANT = """
import sys, threading
from pipeline.cli.interrupts import ended_by_signals
with ended_by_signals(["run"], as_json=False):
    print("ready", flush=True)
    thread = threading.Thread(target=lambda: threading.Event().wait(600))
    thread.start()
    try:
        threading.Event().wait(600)
    finally:
        thread.join()
"""


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str
    left: list[str]
    """Temporary folders."""


def interrupt(
    number: signal.Signals, folder: Path, when: Callable[[psutil.Process], bool], *arguments: str
) -> Ended:
    """Send a signal to a command when it is as far as that; everything that it started must end with it."""
    temporary, log = folder / "tmp", folder / "log"
    temporary.mkdir()
    log.mkdir()
    environment = {"TMPDIR": str(temporary), "LATHE_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    with patch.dict(os.environ, environment):
        process = LatheProcess(*arguments, log=log)
    until = time.monotonic() + HANG_S
    command = psutil.Process(process.pid)
    while not when(command):
        assert process.poll() is None, process.wait()
        assert time.monotonic() < until
        time.sleep(0.02)
    children = command.children(recursive=True)
    os.kill(process.pid, number)
    ended = process.wait()
    _, alive = psutil.wait_procs(children, timeout=HANG_S)
    assert not alive
    left = [path.name for path in temporary.glob("*lathe*")]
    return Ended(ended.returncode, ended.stdout, ended.stderr, left)


def build(folder: Path) -> list[str]:
    """Arguments that build the table of a small space."""
    options = ("--space", str(write_recipe(folder)), "--input", "1x8x8", "--db", str(folder / "latency.db"))
    return ["table", "build", "--target", "host/onnxruntime:fp32@1", *options]


def starts(program: str) -> Callable[[psutil.Process], bool]:
    """Whether a child runs this file."""

    def started(command: psutil.Process) -> bool:
        try:
            return any(program in " ".join(child.cmdline()) for child in command.children())
        except psutil.Error:
            return False

    return started


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_an_export_and_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    ended = interrupt(number, tmp_path, starts("worker.py"), *build(tmp_path))
    assert ended.code == 128 + number
    assert f"interrupted by {number.name} while exporting blocks and networks to onnx" in ended.stderr
    assert "Why: what was finished is kept" in ended.stderr
    assert "Fix: run the same command again: it measures only what is missing" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.left


@pytest.mark.slow
def test_a_signal_ends_a_measurement_with_one_json_document(tmp_path: Path) -> None:
    model = write_tiny_onnx(tmp_path / "model.onnx")
    options = ("--target", "host/onnxruntime:fp32@1", "--json")
    ended = interrupt(signal.SIGINT, tmp_path, starts("agent.py"), "profile", str(model), *options)
    assert ended.code == 130
    error = json.loads(ended.stdout)["error"]
    assert error["exit_code"] == 130
    assert error["fix"] == "run the same command again"
    assert "Traceback" not in ended.stderr
    assert not ended.left


@pytest.fixture(name="boards")
def _boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, SshServer]]:
    """Two devices behind real servers for SSH, ``board`` and ``other``, each with a lock of its own."""
    servers = {}
    (tmp_path / "ssh_config").touch()
    text = ""
    for name in ("board", "other"):
        folder = tmp_path / f"sshd-{name}"
        folder.mkdir()
        servers[name] = server = SshServer(folder, f'SetEnv "LATHE_STATE_DIR={folder}"').start()
        text += f"""
        [devices.{name}]
        connection = "ssh"
        host = "127.0.0.1"
        port = {server.port}
        user = "{USER}"
        identity_file = "{server.identity}"
        known_hosts = "{server.known_hosts}"
        config_file = "{tmp_path / "ssh_config"}"
        python = "{sys.executable}"
        folder = "{tmp_path / name}"
        """
    (tmp_path / "devices.toml").write_text(text)
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
    yield servers
    for server in servers.values():
        server.stop()


@pytest.fixture(name="board")
def _board(boards: dict[str, SshServer]) -> SshServer:
    return boards["board"]


def measuring_on(server: SshServer) -> list[psutil.Process]:
    """Pythons on a board, which measure."""
    found = []
    for session in server.sessions():
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(session).children(recursive=True)
            found += [each for each in below if each.cmdline()[:1] == [sys.executable]]
    return found


def rows_of(database: Path) -> dict[tuple[str, str], list[int]]:
    """Ids of the rows by workload and target; none while there is no database."""
    if not database.is_file():
        return {}
    found: dict[tuple[str, str], list[int]] = {}
    query = "SELECT id, workload, target FROM measurements"
    with (
        contextlib.closing(sqlite3.connect(database)) as connection,
        contextlib.suppress(sqlite3.OperationalError),
    ):
        for number, workload, target in connection.execute(query):
            found.setdefault((workload, target), []).append(number)
    return found


@pytest.mark.slow
def test_a_signal_in_the_middle_of_two_devices_ends_both_and_keeps_what_was_measured(
    tmp_path: Path, boards: dict[str, SshServer]
) -> None:
    database = tmp_path / "latency.db"
    targets = [f"{name}/onnxruntime:fp32@1" for name in boards]
    options = ("--space", str(write_recipe(tmp_path)), "--input", "1x8x8", "--db", str(database))
    few = ("--networks", "6", "--launches", "3")
    command = ["table", "build", "--target", targets[0], "--target", targets[1], *options, *few]
    measuring: list[psutil.Process] = []

    def both_measure(_: psutil.Process) -> bool:
        there = [measuring_on(server) for server in boards.values()]
        measuring[:] = [process for each in there for process in each]
        return all(there) and bool(rows_of(database))

    ended = interrupt(signal.SIGINT, tmp_path, both_measure, *command)
    assert ended.code == 130
    assert "interrupted by SIGINT while measuring" in ended.stderr
    assert "Fix: run the same command again: it measures only what is missing" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.left
    _, alive = psutil.wait_procs(measuring, timeout=HANG_S)
    assert not alive
    kept = rows_of(database)
    assert kept
    (tmp_path / "after").mkdir()
    with patch.dict(os.environ, {"LATHE_CACHE": str(tmp_path / "cache")}):
        again = LatheProcess(*command, log=tmp_path / "after").wait()
    assert again.returncode == 0, again.stderr
    rows = rows_of(database)
    assert {key: rows[key] for key in kept} == kept
    assert {target for _, target in rows} == set(targets)
    assert len({workload for workload, _ in rows}) * 2 == len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_a_measurement_over_ssh_and_what_runs_there(
    number: signal.Signals, tmp_path: Path, board: SshServer
) -> None:
    model = write_tiny_onnx(tmp_path / "model.onnx")

    measuring: list[psutil.Process] = []

    def measures(command: psutil.Process) -> bool:
        measuring[:] = measuring_on(board)
        return bool(measuring)

    options = ("--target", "board/onnxruntime:fp32@1", "--launches", "1000")
    ended = interrupt(number, tmp_path, measures, "profile", str(model), *options)
    assert ended.code == 128 + number
    assert f"interrupted by {number.name} while timing on board/onnxruntime:fp32@1" in ended.stderr
    assert "Fix: run the same command again" in ended.stderr
    assert "Traceback" not in ended.stderr
    _, alive = psutil.wait_procs(measuring, timeout=HANG_S)
    assert not alive
    assert not ended.left
    # Nothing holds the board: the next measurement has it.
    (tmp_path / "after").mkdir()
    again = LatheProcess(
        "profile", str(model), *options[:2], "--launches", "1", "--json", log=tmp_path / "after"
    ).wait()
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_kill_keeps_what_was_exported_and_the_next_command_removes_what_is_left(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "cache" / "exports"

    def has_exported(command: psutil.Process) -> bool:
        return any(kept.glob("[0-9a-f][0-9a-f]/*"))

    ended = interrupt(signal.SIGKILL, tmp_path, has_exported, *build(tmp_path))
    assert ended.code == -signal.SIGKILL
    assert ended.left
    with patch.dict(os.environ, {"TMPDIR": str(tmp_path / "tmp")}):
        assert (
            LatheProcess("db", "info", "--db", str(tmp_path / "latency.db"), log=tmp_path).wait().returncode
            == 0
        )
    assert not list((tmp_path / "tmp").glob("*lathe-temporary*"))
    assert list(kept.glob("[0-9a-f][0-9a-f]/*.onnx"))


def test_a_process_that_does_not_end_by_itself_is_ended() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", IGNORANT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=HANG_S)
    assert process.returncode == 143
    assert stderr.count("interrupted by SIGTERM") == 1


def test_a_process_that_cannot_say_so_is_ended_all_the_same() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        process = subprocess.Popen(
            [sys.executable, "-c", IGNORANT], stdout=subprocess.PIPE, stderr=full, text=True
        )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANG_S)
    assert process.returncode == 143


@pytest.mark.parametrize(
    ("arguments", "why", "fix"),
    [
        (
            ["table", "--json", "build", "--target", "t"],
            "what was finished is kept",
            "run the same command again: it measures only what is missing",
        ),
        (["profile", "model.onnx"], "", "run the same command again"),
    ],
)
def test_only_commands_that_keep_something_say_so(arguments: list[str], why: str, fix: str) -> None:
    error = CommandInterrupted(signal.SIGINT, "measuring (3/4 blocks)", arguments)
    assert error.what == "interrupted by SIGINT while measuring (3/4 blocks)"
    assert (error.why, error.fix, error.exit_code) == (why, fix, 130)
