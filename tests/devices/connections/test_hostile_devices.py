"""Devices that answer without an end, or as somebody else: real servers, real clients, hostile shells."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.connections.adb import AdbConnection, _with_port
from devices.connections.ssh import SshConnection, _Hop
from devices.errors import MeasurementError, TargetError
from devices.locking.lock import device_lock, lock_state_of
from tests.devices.ssh_server import SshServer, make_key
from tests.peak_memory import grown_bytes

ENDLESS = {
    "lines": "exec yes",
    "one line": "exec cat /dev/zero",
    "errors": "exec yes >&2",
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., SshServer]]:
    """Starts SSH servers with further settings."""
    started: list[SshServer] = []

    def start(*settings: str) -> SshServer:
        started.append(SshServer(tmp_path, *settings).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


def settings_for(server: SshServer) -> dict[str, Any]:
    config = server.folder / "ssh_config"
    config.touch()
    return {
        "port": server.port,
        "identity_file": server.identity,
        "known_hosts": server.known_hosts,
        "config_file": config,
        "python": (sys.executable,),
        "folder": str(server.folder / "device"),
    }


def connection_to(server: SshServer, host: str = "127.0.0.1") -> SshConnection:
    return SshConnection(host, **settings_for(server))


def ask_until_given_up(settings: dict[str, Any]) -> None:
    """All that is asked of a device, of one that answers without an end."""
    connection = SshConnection("127.0.0.1", **settings)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("devices.connections.remote.KILL_S", 1.0)
        monkeypatch.setattr("devices.locking.lock._ANSWER_S", 1.0)
        with pytest.raises(TargetError, match="sends more than it is asked for"):
            connection.scratch()
        ended = connection.run(("true",), timeout_s=1, on_line=lambda line: None)
        assert ended.timed_out
        with pytest.raises(TargetError), device_lock("board", connection, wait_s=0.5):
            pass
        assert lock_state_of(connection) is None
        connection.close()


@pytest.mark.parametrize("answer", ENDLESS.values(), ids=ENDLESS)
def test_an_ssh_server_that_answers_without_an_end_is_given_up(
    start: Callable[..., SshServer], answer: str
) -> None:
    server = start(f"ForceCommand {answer}")
    assert grown_bytes(ask_until_given_up, settings_for(server)) < 1_000_000_000


def test_a_banner_of_an_ssh_server_is_neither_shown_nor_taken_for_an_answer(
    start: Callable[..., SshServer], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "banner").write_text("\x1b]0;owned\x07held\n" * 2_000)
    connection = connection_to(start(f"Banner {tmp_path / 'banner'}"))
    lines: list[str] = []
    assert connection.run(("echo", "answer"), timeout_s=20, on_line=lines.append).returncode == 0
    connection.close()
    assert lines == ["answer"]
    assert "owned" not in "".join(capfd.readouterr())


def test_a_server_that_greets_for_ever_is_given_up_in_time(tmp_path: Path) -> None:
    """SSH allows lines before a server's version, and says not how many."""
    listener = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        client, _ = listener.accept()
        with client:
            try:
                while True:
                    client.sendall(b"welcome\r\n" * 100)
            except OSError:
                return

    threading.Thread(target=greet, daemon=True).start()
    (tmp_path / "known_hosts").touch()
    (tmp_path / "config").touch()
    connection = SshConnection(
        "127.0.0.1",
        port=listener.getsockname()[1],
        known_hosts=tmp_path / "known_hosts",
        config_file=tmp_path / "config",
        connect_timeout_s=2.0,
    )
    # Without an end it would not come back before the suite's own timeout.
    with pytest.raises(TargetError, match="cannot be reached"):
        connection.run(("true",), timeout_s=5)
    connection.close()
    listener.close()


def test_another_server_in_the_place_of_a_lost_one_is_not_taken_for_it(
    start: Callable[..., SshServer], tmp_path: Path
) -> None:
    server = start()
    connection = connection_to(server)
    assert connection.run(("true",), timeout_s=20).returncode == 0
    for session in server.sessions():
        os.kill(session, signal.SIGKILL)
    server.stop()
    server.host_key.unlink()
    server.host_key.with_name("host_key.pub").unlink()
    make_key(server.host_key)
    server.start()
    with pytest.raises(TargetError, match=r"the host key of 127\.0\.0\.1 has changed"):
        connection.run(("true",), timeout_s=20)
    connection.close()
    server.stop()


def test_an_ssh_server_is_reached_by_its_ipv6_address(tmp_path: Path) -> None:
    server = SshServer(tmp_path)
    settings = tmp_path / "sshd_config"
    settings.write_text(settings.read_text().replace("127.0.0.1", "::1") + "ListenAddress 127.0.0.1\n")
    server.known_hosts.write_text(server.known_hosts.read_text().replace("127.0.0.1", "::1"))
    server.start()
    connection = connection_to(server, "::1")
    assert connection.run(("true",), timeout_s=20).returncode == 0
    connection.close()
    server.stop()


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("::1", "::1", None),
        ("[::1]:22", "::1", 22),
        ("a@fe80::1", "fe80::1", None),
        ("board:22", "board", 22),
    ],
)
def test_jump_hosts_may_have_ipv6_addresses(text: str, name: str, port: int | None) -> None:
    (hop,) = _Hop.parse(text)
    assert (hop.name, hop.port) == (name, port)


@pytest.mark.parametrize("told", [b"9" * 5_000, b"-1", b"1 2", b""])
def test_a_file_whose_length_is_no_number_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bytes
) -> None:
    def answer(script: str, path: str, *, sink: Callable[[bytes], object]) -> tuple[int, str]:
        sink(told)
        return 0, ""

    connection = AdbConnection(serial="phone")
    monkeypatch.setattr(connection, "_script", answer)
    with pytest.raises(MeasurementError, match="is not copied"), (tmp_path / "here").open("wb") as sink:
        connection._download("/there", sink)


@pytest.mark.parametrize(
    ("address", "serial"),
    [
        ("phone", "phone:5555"),
        ("phone:1", "phone:1"),
        ("192.168.1.5", "192.168.1.5:5555"),
        ("fe80::1", "[fe80::1]:5555"),
        ("[fe80::1]", "[fe80::1]:5555"),
        ("[fe80::1]:7777", "[fe80::1]:7777"),
    ],
)
def test_phones_may_have_ipv6_addresses(address: str, serial: str) -> None:
    assert _with_port(address) == serial
