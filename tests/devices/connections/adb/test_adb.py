"""Commands and files on a phone by ADB, and what happens when the connection breaks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.connections import Connection
from devices.errors import MeasurementError, TargetError
from devices.inventory.devices import find_device
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes.base import Call, Identify, Measure
from devices.runtimes.native.benchmark_model import BENCHMARK_MODEL
from devices.runtimes.native.tools import native_folder
from devices.target import Target
from tests.contracts.connection import ODD_NAMES, ConnectionContract, is_running, wait_until
from tests.devices.adb_shell import shell_in_tree
from tests.devices.adb_transport import CHECKED_VERSION
from tests.devices.connections.adb.phones import needs_adb, shell
from tests.devices.runtimes.native.native_targets import STANDINS
from tests.places import ROOT

pytestmark = needs_adb
SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


class TestConnectionOverTcp(ConnectionContract):
    @pytest.fixture
    def connection(self, connect, phone):
        return connect(address=phone.address)


def test_transfers_work_with_a_device_of_the_first_protocols(connect, start_phone, tmp_path):
    phone = start_phone(version=CHECKED_VERSION, features=("shell_v2",))
    connection = connect(address=phone.address)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(300_000))
    connection.pull(connection.push(source), target)
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("status", [0, 1, 77, 125])
def test_run_tells_the_status_of_the_command_and_keeps_the_outputs_apart(connection, status):
    lines: list[str] = []
    script = f"echo out; echo err >&2; exit {status}"
    ended = connection.run(("sh", "-c", script), timeout_s=20, on_line=lines.append)
    assert (lines, ended.stderr_tail, ended.returncode) == (["out"], "err", status)


def test_run_works_on_two_phones_at_the_same_time(connect, start_phone):
    connections = [connect(address=start_phone().address) for _ in range(2)]
    together = threading.Barrier(2, timeout=20)
    seen: dict[int, list[str]] = {0: [], 1: []}

    def work(number: int) -> None:
        def on_line(line: str) -> None:
            seen[number].append(line)
            if line == "begun":
                together.wait()

        connections[number].run(("sh", "-c", f"echo begun; echo {number}"), timeout_s=30, on_line=on_line)

    threads = [threading.Thread(target=work, args=(number,)) for number in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {0: ["begun", "0"], 1: ["begun", "1"]}


def test_run_serves_several_threads_of_one_connection(connection):
    found: dict[int, tuple[list[str], int]] = {}

    def work(number: int) -> None:
        found[number] = shell(connection, f"echo {number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: ([str(number)], 0) for number in range(4)}


def test_push_uses_the_sync_service_and_sends_a_content_only_once(connection, phone, tmp_path):
    first, second = tmp_path / "first.bin", tmp_path / "second.bin"
    for path in (first, second):
        path.write_bytes(b"same")
    assert connection.push(first) == connection.push(second)
    assert phone.opened.count("sync:") == 1


@pytest.mark.parametrize("name", ODD_NAMES)
def test_pull_reads_a_file_whatever_it_is_called_there(connection, tmp_path, name):
    there, here = Path(connection.scratch()) / name, tmp_path / "here"
    there.write_text("content")
    connection.pull(str(there), here)
    assert here.read_text() == "content"


def test_pull_refuses_a_folder(connection, tmp_path):
    with pytest.raises(MeasurementError):
        connection.pull(connection.scratch(), tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_run_reports_a_lost_device_and_ends_the_command_there_when_the_connection_breaks(connection, phone):
    pids: list[int] = []

    def on_line(line: str) -> None:
        pids.append(int(line))
        phone.cut()

    ended = connection.run((sys.executable, "-c", SLEEP), timeout_s=60, on_line=on_line)
    assert (ended.lost, ended.timed_out) == (True, False)
    assert ended.returncode != 0
    assert wait_until(lambda: not is_running(pids[0]))


def test_run_connects_again_when_the_device_came_back(connection, phone):
    connection.run((sys.executable, "-c", SLEEP), timeout_s=60, on_line=lambda _: phone.cut())
    assert shell(connection, "echo again") == (["again"], 0)


def test_run_connects_again_when_the_adb_server_was_restarted(adb, connection):
    assert shell(connection, "echo before") == (["before"], 0)
    adb("kill-server")
    assert shell(connection, "echo after") == (["after"], 0)


def test_run_tells_that_the_device_went_away_when_it_does_not_come_back(adb, connection, phone):
    shell(connection, "true")
    phone.__exit__()
    wait_until(lambda: f"{phone.address}\tdevice" not in adb("devices"))
    with pytest.raises(TargetError, match="cannot connect") as caught:
        connection.run(("true",), timeout_s=20)
    assert caught.value.fix


@pytest.mark.parametrize("way", ["push", "pull"])
def test_transfer_is_repeated_when_the_connection_breaks_in_the_middle(connection, phone, tmp_path, way):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(3_000_000))
    if way == "push":
        phone.cut_after = 1_000_000
    remote = connection.push(source)
    if way == "pull":
        phone.cut_after = 1_000_000
    connection.pull(remote, target)
    assert phone.cut_after is None
    assert target.read_bytes() == source.read_bytes()


def test_push_tells_that_the_disk_is_full_and_leaves_nothing_of_the_file(connection, phone, tmp_path):
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(500_000))
    folder = Path(connection.scratch()).parent
    before = {path for path in folder.rglob("*") if path.is_file()}
    phone.space_bytes = 100_000
    with pytest.raises(TargetError, match="could not be written") as caught:
        connection.push(source)
    assert "No space left" in caught.value.why
    assert {path for path in folder.rglob("*") if path.is_file()} == before
    phone.space_bytes = None
    assert Path(connection.push(source)).read_bytes() == source.read_bytes()


def test_scratch_tells_that_no_folder_can_be_written(connect, phone):
    with pytest.raises(TargetError, match="no folder") as caught:
        connect(address=phone.address, folder="/proc/lathe").scratch()
    assert "folder" in caught.value.fix


def test_run_gives_up_in_time_when_the_device_stops_answering(connect, phone):
    connection = connect(address=phone.address, connect_timeout_s=8)
    shell(connection, "true")
    phone.silent = True
    start = time.monotonic()
    with pytest.raises(TargetError, match="went away"):
        connection.run(("true",), timeout_s=20)
    assert time.monotonic() - start < 40


@pytest.fixture
def arm64_phone(adb, start_phone, tree, tmp_path, monkeypatch) -> Iterator[Connection]:
    """'phone' of a devices.toml: no Python, programs of arm64; and here a tool of LiteRT's makers for it."""
    root = tmp_path / "phone"
    shutil.copytree(STANDINS / "android", root / "home" / "bin")
    environment = {"PATH": "/home/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    phone = start_phone(shell=shell_in_tree(tree, root), root=root, environment=environment)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = native_folder() / "android-aarch64"
    folder.mkdir(parents=True)
    shutil.copy(STANDINS / "benchmark_model", folder)
    (tmp_path / "devices.toml").write_text(
        f"""
        [devices.phone]
        connection = "adb"
        address = "{phone.address}"
        adb = "{adb.path}"
        server_port = {adb.port}
        folder = "/home/lathe"
        """
    )
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
    with find_device("phone").connect() as connection:
        yield connection
    adb("disconnect", phone.address)


@pytest.mark.slow
def test_native_tool_is_pushed_and_run_on_an_arm64_phone(arm64_phone, tmp_path, monkeypatch):
    monkeypatch.setattr(type(BENCHMARK_MODEL), "_time_canary", lambda *_: None)
    model = tmp_path / "model.tflite"
    model.write_text("plain\n")
    call = Call(arm64_phone, Target("phone", "litert", options=("native",)), timeout_s=60)
    device = BENCHMARK_MODEL.exchange(call, Identify()).only("identity")["device"]
    assert (device["machine"], device["os"].split()[:2]) == ("aarch64", ["Android", "14"])
    protocol = BENCHMARK_MODEL.adapt(MeasuringProtocol())
    assert BENCHMARK_MODEL.exchange(call, Measure((model,), protocol)).only("result")["summary"]


HANGING = """
import sys, threading
from devices.connections.adb import AdbConnection
connection = AdbConnection(serial="phone", adb=(sys.argv[1],))
connection.run(["true"], timeout_s=600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_clients_end_with_the_process_that_started_them(tmp_path, number):
    client, pid = tmp_path / "adb", tmp_path / "pid"
    # The guard is told of a client just after it has begun: see devices.host.start.
    client.write_text(f"#!/bin/sh\nsleep 1\necho $$ > {pid}.new && mv {pid}.new {pid}\nexec sleep 600\n")
    client.chmod(0o755)
    with subprocess.Popen([sys.executable, "-c", HANGING, str(client)], cwd=ROOT) as parent:
        assert wait_until(pid.exists)
        parent.send_signal(number)
    assert wait_until(lambda: not is_running(int(pid.read_text())))
