"""ADB: the real client, a daemon that speaks the phone's side, and behind it Android's shell and tools."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.connections import Connection
from devices.connections.adb import AdbConnection
from devices.errors import MeasurementError, TargetError
from devices.inventory.devices import find_device
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes.base import Call, Identify, Measure
from devices.runtimes.native.benchmark_model import BENCHMARK_MODEL
from devices.runtimes.native.tools import native_folder
from devices.target import Target
from tests.contracts.connection import ODD_NAMES, ConnectionContract, is_running, wait_until
from tests.devices.adb_daemon import AdbDaemon
from tests.devices.adb_shell import shell_in_tree
from tests.devices.adb_transport import CHECKED_VERSION
from tests.devices.ports import free_port
from tests.devices.runtimes.native.native_targets import STANDINS
from tests.places import ROOT

NEEDED = ("adb", "mksh", "toybox")
pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in NEEDED),
    reason=f"needs the Debian packages {', '.join(NEEDED)}",
)

SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


class Adb:
    """The client, and a server of its own which knows nothing of the user's keys and devices."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.path = str(folder / "adb")
        # With that highest port the server does not look for emulators on this machine.
        Path(self.path).write_text(
            "#!/bin/sh\n"
            "unset ADB_VENDOR_KEYS ANDROID_SERIAL ADB_SERVER_SOCKET\n"
            f"export HOME='{folder}' TMPDIR='{folder}' ADB_LOCAL_TRANSPORT_MAX_PORT=5553 ADB_MDNS=0\n"
            'exec adb "$@"\n'
        )
        Path(self.path).chmod(0o755)

    def __call__(self, *arguments: str) -> str:
        argv = (self.path, "-P", str(self.port), *arguments)
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout


@pytest.fixture(scope="module")
def adb(tmp_path_factory) -> Iterator[Adb]:
    client = Adb(tmp_path_factory.mktemp("adb"))
    client("start-server")
    yield client
    client("kill-server")


@pytest.fixture(scope="module")
def userland(tmp_path_factory) -> Path:
    """A folder with the programs that an Android device has: toybox's, and mksh as ``sh``."""
    folder = tmp_path_factory.mktemp("bin")
    for name in subprocess.run(["toybox"], check=True, capture_output=True, text=True).stdout.split():
        (folder / name).symlink_to(shutil.which("toybox"))
    (folder / "sh").unlink(missing_ok=True)
    (folder / "sh").symlink_to(shutil.which("mksh"))
    return folder


@pytest.fixture
def start_phone(userland) -> Iterator[Callable[..., AdbDaemon]]:
    phones = []

    def start(**options) -> AdbDaemon:
        environment = {"PATH": str(userland), "HOME": "/", "TMPDIR": "/data/local/tmp"}
        phone = AdbDaemon(**{"shell": (str(userland / "sh"),), "environment": environment, **options})
        phones.append(phone)
        return phone.__enter__()

    yield start
    for phone in phones:
        phone.__exit__()


@pytest.fixture
def phone(start_phone) -> AdbDaemon:
    return start_phone()


@pytest.fixture
def connect(adb, tmp_path_factory) -> Iterator[Callable[..., AdbConnection]]:
    """Makes connections that end with the test; they have Python for the sake of the suite."""
    opened = []

    def make(**options) -> AdbConnection:
        folder = str(tmp_path_factory.mktemp("data") / "lathe")
        defaults = {
            "adb": (adb.path,),
            "server_port": adb.port,
            "folder": folder,
            "python": (sys.executable,),
        }
        opened.append(AdbConnection(**{**defaults, **options}))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()
    for address in (line.split("\t")[0] for line in adb("devices").splitlines()[1:] if line):
        adb("disconnect", address)


class TestConnectionOverTcp(ConnectionContract):
    @pytest.fixture
    def connection(self, connect, phone):
        return connect(address=phone.address)


@pytest.fixture
def connection(connect, phone) -> AdbConnection:
    return connect(address=phone.address)


def shell(connection: AdbConnection, script: str, **options) -> tuple[list[str], int]:
    lines: list[str] = []
    ended = connection.run(("sh", "-c", script), on_line=lines.append, **{"timeout_s": 20, **options})
    return lines, ended.returncode


def test_connection_uses_a_device_that_is_there_already_when_its_serial_is_given(adb, connect, phone):
    adb("connect", phone.address)
    assert shell(connect(serial=phone.address), "echo here") == (["here"], 0)


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


def test_connection_tells_to_accept_the_key_when_the_device_does_not_trust_this_computer(connect, phone):
    phone.authorised = False
    connection = connect(address=phone.address, connect_timeout_s=8)
    with pytest.raises(TargetError, match="does not let this computer in") as caught:
        connection.run(("true",), timeout_s=20)
    assert "accept" in caught.value.fix
    phone.accept_key()
    assert shell(connection, "echo trusted") == (["trusted"], 0)


def test_connection_tells_that_a_device_is_offline(adb, connect, phone):
    adb("connect", phone.address)
    phone.silent = True
    phone.cut()
    assert wait_until(lambda: f"{phone.address}\toffline" in adb("devices"))
    with pytest.raises(TargetError, match="is offline") as caught:
        connect(serial=phone.address, connect_timeout_s=1).run(("true",), timeout_s=20)
    assert "reconnect" in caught.value.fix


def test_connection_gives_up_in_time_when_the_device_does_not_answer(connect, phone):
    phone.silent = True
    start = time.monotonic()
    with pytest.raises(TargetError):
        connect(address=phone.address, connect_timeout_s=1).run(("true",), timeout_s=20)
    assert time.monotonic() - start < 20


def test_run_gives_up_in_time_when_the_device_stops_answering(connect, phone):
    connection = connect(address=phone.address, connect_timeout_s=8)
    shell(connection, "true")
    phone.silent = True
    start = time.monotonic()
    with pytest.raises(TargetError, match="went away"):
        connection.run(("true",), timeout_s=20)
    assert time.monotonic() - start < 40


@pytest.mark.parametrize(
    "answer",
    [
        "exec yes",
        "exec yes >&2",
        "exec cat /dev/zero",
        "eval ${2%%;*}; exec yes",
        "eval ${2%%;*}; exec yes >&2",
    ],
)
def test_a_phone_that_answers_without_an_end_is_given_up(connect, start_phone, tmp_path, answer):
    """Its shell is not one: it prints for ever, some after the word by which a shell is known."""
    hostile = tmp_path / "shell"
    hostile.write_text(f"#!/bin/bash\n{answer}\n")
    hostile.chmod(0o755)
    phone = start_phone(shell=(str(hostile),), environment=dict(os.environ))
    connection = connect(address=phone.address, connect_timeout_s=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TargetError, match=r"sends more than it is asked for|went away"):
        connection.scratch()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 500


def test_connection_tells_when_nobody_listens_at_the_address(connect):
    with pytest.raises(TargetError, match=r"cannot connect to 127\.0\.0\.1:1") as caught:
        connect(address="127.0.0.1:1").run(("true",), timeout_s=20)
    assert "refused" in caught.value.why


def test_connection_lists_the_devices_when_there_is_none_with_the_serial(adb, connect, phone):
    adb("connect", phone.address)
    with pytest.raises(TargetError, match="no device with the serial 'R58M'") as caught:
        connect(serial="R58M").run(("true",), timeout_s=20)
    assert phone.address in caught.value.why


def test_connection_does_not_guess_when_two_serials_begin_alike(adb, connect, start_phone):
    phones = [start_phone(), start_phone()]
    for phone in phones:
        adb("connect", phone.address)
    with pytest.raises(TargetError, match="no device with the serial") as caught:
        connect(serial="127.0.0.1").run(("true",), timeout_s=20)
    assert "as a whole" in caught.value.why
    assert all(phone.address in caught.value.why for phone in phones)


# What `adb devices` of version 29.0.6 prints; there is no USB where the tests run.
@pytest.mark.parametrize(
    "listed, message, expected",
    [
        (
            "R58M1\tdevice\nR58M2\tdevice",
            "no device with the serial 'R58M'",
            "R58M1, R58M2 only begin with it",
        ),
        ("R58M\tno permissions; see [http://developer.android.com/tools/device.html]", "may not use", "see"),
    ],
)
def test_connection_tells_what_is_wrong_with_devices_on_usb(tmp_path, listed, message, expected):
    client = tmp_path / "adb"
    client.write_text(f"#!/bin/sh\necho 'List of devices attached\n{listed}\n'\n")
    client.chmod(0o755)
    with pytest.raises(TargetError, match=message) as caught:
        AdbConnection(serial="R58M", adb=(str(client),)).run(("true",), timeout_s=20)
    assert expected in caught.value.why


def test_connection_tells_when_android_does_not_run_on_the_device(connect, start_phone):
    phone = start_phone(kind="recovery")
    with pytest.raises(TargetError, match="is in the state 'recovery'"):
        connect(address=phone.address).run(("true",), timeout_s=20)


def test_connection_tells_when_android_is_too_old_to_give_a_status(connect, start_phone):
    phone = start_phone(features=("cmd",))
    with pytest.raises(TargetError, match="too old") as caught:
        connect(address=phone.address).run(("true",), timeout_s=20)
    assert "7.0" in caught.value.why


def test_connection_tells_how_to_get_the_client_when_it_is_not_installed(connect):
    with pytest.raises(TargetError, match="'no-adb-here' is not installed") as caught:
        connect(serial="any", adb=("no-adb-here",)).run(("true",), timeout_s=20)
    assert "apt-get install adb" in caught.value.fix


def test_connection_tells_when_another_program_has_the_port_of_the_server(connect):
    with socket.create_server(("127.0.0.1", 0)) as other:
        connection = connect(serial="any", server_port=other.getsockname()[1], connect_timeout_s=1)
        with pytest.raises(TargetError, match="server cannot be started") as caught:
            connection.run(("true",), timeout_s=20)
    assert "server_port" in caught.value.fix


def test_connection_uses_the_server_of_another_host(adb, connect, phone, tmp_path):
    """The server listens on all addresses; by that one the client takes it for another machine's."""
    port = free_port()
    server = subprocess.Popen((adb.path, "-a", "-P", str(port), "nodaemon", "server"))
    try:
        connection = connect(address=phone.address, server_host="127.0.0.2", server_port=port)
        assert wait_until(lambda: reaches(("127.0.0.2", port)))
        assert shell(connection, "echo hello; exit 3") == (["hello"], 3)
        source = tmp_path / "model.bin"
        source.write_bytes(os.urandom(5000))
        connection.pull(connection.push(source), tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == source.read_bytes()
        assert phone.address not in adb("devices"), "this machine's own server does not know it"
        connection.close()
    finally:
        server.terminate()
        server.wait()


def test_connection_tells_when_no_server_answers_on_the_other_host(connect):
    port = free_port()
    with pytest.raises(TargetError) as caught:
        connect(serial="any", server_host="127.0.0.2", server_port=port).run(("true",), timeout_s=20)
    assert caught.value.what == f"no adb server answers at 127.0.0.2:{port}"
    assert "Connection refused" in caught.value.why
    assert f"adb -a -P {port} nodaemon server" in caught.value.fix


def reaches(address) -> bool:
    with socket.socket() as client:
        return client.connect_ex(address) == 0


@pytest.mark.parametrize("given", [{}, {"serial": "a", "address": "b"}])
def test_connection_wants_either_a_serial_or_an_address(given):
    with pytest.raises(TargetError, match="either"):
        AdbConnection(**given)


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
