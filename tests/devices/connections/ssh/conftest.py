"""An SSH server of the tests, and connections to it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from devices.connections.ssh import SshConnection
from tests.contracts.connection import wait_until
from tests.devices.ssh_server import SshServer


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = SshServer(tmp_path_factory.mktemp("sshd")).start()
    yield server
    server.stop()


@pytest.fixture
def device(tmp_path_factory) -> Path:
    """Where connections keep their files, on the other side."""
    return tmp_path_factory.mktemp("device") / "pushed files"


@pytest.fixture
def config(tmp_path_factory) -> Path:
    """An empty configuration in place of the user's."""
    config = tmp_path_factory.mktemp("config") / "ssh_config"
    config.touch()
    return config


@pytest.fixture
def connect(server, device, config):
    """Opens connections to the server, each with the settings that a test changes."""
    assert wait_until(lambda: not server.sessions()), "a session of an earlier test goes on"
    opened: list[SshConnection] = []

    def connect(**settings) -> SshConnection:
        connection = SshConnection(
            settings.pop("host", "127.0.0.1"),
            **{
                "port": server.port,
                "identity_file": server.identity,
                "known_hosts": server.known_hosts,
                "config_file": config,
                "python": (sys.executable,),
                "folder": str(device),
                **settings,
            },
        )
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()
