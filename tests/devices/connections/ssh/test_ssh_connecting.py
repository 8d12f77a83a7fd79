"""How a connection by SSH is opened: keys, configuration, jump hosts, and what is said when it cannot be."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from devices.connections.ssh import SshConnection
from devices.errors import TargetError
from tests.contracts.connection import wait_until
from tests.devices.ports import free_port
from tests.devices.ssh_server import USER, SshServer, make_key, public


def refused(connection: SshConnection) -> TargetError:
    with pytest.raises(TargetError) as caught:
        connection.run(("true",), timeout_s=10)
    assert caught.value.fix
    return caught.value


def test_connecting_is_refused_with_both_commands_when_the_host_key_changed(connect, server, tmp_path):
    known_hosts = tmp_path / "known hosts"
    key = public(make_key(tmp_path / "other")).split()[1]
    known_hosts.write_text(f"[127.0.0.1]:{server.port} ssh-ed25519 {key}\n")
    error = refused(connect(known_hosts=known_hosts))
    assert "has changed" in error.what
    assert str(known_hosts) in error.why
    assert f"ssh-keygen -f '{known_hosts}' -R '[127.0.0.1]:{server.port}'" in error.fix
    subprocess.run(
        ["ssh-keygen", "-f", known_hosts, "-R", f"[127.0.0.1]:{server.port}"], check=True, capture_output=True
    )
    assert "is not known" in refused(connect(known_hosts=known_hosts)).what


def test_connecting_is_refused_when_the_host_key_is_unknown(connect, server, tmp_path):
    (tmp_path / "empty").touch()
    error = refused(connect(known_hosts=tmp_path / "empty", user=USER))
    assert "is not known" in error.what
    assert str(tmp_path / "empty") in error.why
    assert f"-p {server.port} {USER}@127.0.0.1 true" in error.fix


@pytest.mark.parametrize("setting", ["UserKnownHostsFile none", "StrictHostKeyChecking no"])
def test_connecting_is_refused_when_the_configuration_would_trust_every_host(
    connect, config, tmp_path, monkeypatch, setting
):
    monkeypatch.setenv("HOME", str(tmp_path))
    config.write_text(f"Host *\n  {setting}\n")
    assert "is not known" in refused(connect(known_hosts=None)).what


def test_connecting_is_refused_when_the_key_is_not_authorised(connect, tmp_path):
    error = refused(connect(identity_file=make_key(tmp_path / "stranger"), user=USER))
    assert f"refused the login of '{USER}'" in error.what
    assert "ssh-copy-id" in error.fix


def test_connecting_asks_the_agent_when_the_key_has_a_passphrase(connect, server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    locked = tmp_path / "locked"
    locked.write_bytes(server.identity.read_bytes())
    locked.chmod(0o600)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", locked], check=True, capture_output=True
    )
    assert "ssh-add" in refused(connect(identity_file=locked)).fix
    socket_path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket_path], stdout=subprocess.DEVNULL)
    try:
        assert wait_until(socket_path.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket_path))
        subprocess.run(["ssh-add", server.identity], check=True, capture_output=True)
        assert connect(identity_file=locked).run(("true",), timeout_s=10).returncode == 0
    finally:
        agent.kill()
        agent.wait()


def test_connecting_fails_when_nothing_listens(connect):
    assert "no SSH server answers" in refused(connect(port=free_port())).what


def test_connecting_fails_when_the_name_is_not_known(connect):
    assert "there is no host 'no-such-host.invalid'" in refused(connect(host="no-such-host.invalid")).what


def test_connecting_fails_in_time_when_the_port_is_silent(connect):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refused(connect(port=silent.getsockname()[1], connect_timeout_s=0.5))
    assert "cannot be reached" in error.what
    assert "0.5 s" in error.why


@pytest.mark.parametrize("text", ["Port many\n", "Match\n"])
def test_connecting_fails_when_the_configuration_is_broken(connect, config, text):
    config.write_text(text)
    assert "settings" in refused(connect(port=None)).what


def test_connecting_fails_when_the_identity_does_not_exist(connect, tmp_path):
    error = refused(connect(identity_file=tmp_path / "absent"))
    assert str(tmp_path / "absent") in error.why


def write_config(server: SshServer, path: Path) -> None:
    path.write_text(
        f"""
        Host *
          IdentityFile {server.identity}
          UserKnownHostsFile {server.known_hosts}
          User {USER}
        Host board jump
          HostName 127.0.0.1
          Port {server.port}
        Host board
          ProxyJump jump
        Host far
          HostName 127.0.0.1
          Port 1
          ProxyJump {USER}@127.0.0.1:{server.port}
        """
    )


def test_connecting_takes_everything_from_the_configuration_with_a_jump_host(connect, server, config):
    write_config(server, config)
    connection = connect(host="board", port=None, identity_file=None, known_hosts=None)
    lines: list[str] = []
    # The address of the client and of the server, with ports.
    connection.run(("sh", "-c", "echo $SSH_CONNECTION"), timeout_s=10, on_line=lines.append)
    assert lines[0].split()[0] == "127.0.0.1"
    assert len(server.sessions()) >= 2
    connection.close()
    assert wait_until(lambda: not server.sessions())


@pytest.fixture(name="bastion")
def _bastion(tmp_path_factory):
    """Another server, with keys of its own."""
    bastion = SshServer(tmp_path_factory.mktemp("bastion")).start()
    yield bastion
    bastion.stop()


def test_connecting_goes_through_the_jump_host_that_is_given(connect, server, bastion, config, tmp_path):
    config.write_text(
        f"Host 127.0.0.1\n  IdentityFile {bastion.identity}\n"
        "Host board\n  HostName 127.0.0.1\n  ProxyJump nobody@absent.invalid\n"
    )
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(server.known_hosts.read_text() + bastion.known_hosts.read_text())
    jump = f"{USER}@127.0.0.1:{bastion.port}"
    connection = connect(host="board", jump=jump, known_hosts=known_hosts)
    lines: list[str] = []
    connection.run(("sh", "-c", "echo $SSH_CONNECTION"), timeout_s=10, on_line=lines.append)
    assert lines[0].split()[3] == str(server.port)
    assert bastion.sessions() and server.sessions()
    connection.close()
    assert wait_until(lambda: not bastion.sessions() and not server.sessions())
    straight = connect(host="board", jump="none", known_hosts=known_hosts)
    assert straight.run(("true",), timeout_s=10).returncode == 0
    assert not bastion.sessions()


def test_connecting_says_which_jump_host_is_unknown_and_how_to_accept_it(connect, bastion):
    error = refused(connect(jump=f"{USER}@127.0.0.1:{bastion.port}"))
    assert "the host key of 127.0.0.1 is not known" in error.what
    assert "ssh -F " in error.fix and f"-p {bastion.port} {USER}@127.0.0.1 true" in error.fix


def test_connecting_says_that_the_given_jump_host_does_not_answer(connect):
    error = refused(connect(jump=f"127.0.0.1:{free_port()}"))
    assert "no SSH server answers at 127.0.0.1" in error.what


def test_connecting_fails_when_the_jump_host_does_not_reach_the_device(connect, server, config):
    write_config(server, config)
    error = refused(connect(host="far", port=None, identity_file=None, known_hosts=None))
    assert "the jump host of far does not reach 127.0.0.1 port 1" in error.what
