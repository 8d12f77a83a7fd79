"""How a phone is found and reached by ADB, and what is said when it cannot be."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time

import pytest

from devices.connections.adb import AdbConnection
from devices.errors import TargetError
from tests.contracts.connection import wait_until
from tests.devices.connections.adb.phones import needs_adb, shell
from tests.devices.ports import free_port

pytestmark = needs_adb


def test_connection_uses_a_device_that_is_there_already_when_its_serial_is_given(adb, connect, phone):
    adb("connect", phone.address)
    assert shell(connect(serial=phone.address), "echo here") == (["here"], 0)


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
