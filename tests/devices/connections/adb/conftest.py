"""The real adb client, and phones: a daemon that speaks their side, behind it Android's shell and tools."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devices.connections.adb import AdbConnection
from tests.devices.adb_daemon import AdbDaemon
from tests.devices.ports import free_port


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


@pytest.fixture
def connection(connect, phone) -> AdbConnection:
    return connect(address=phone.address)
