"""Commands and files over a connection by SSH, what is left behind, and what happens when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from devices.connections.remote import DeviceLostError
from devices.connections.ssh import SshConnection, _Loop
from devices.errors import TargetError
from devices.installing import how_to_install
from tests.contracts.connection import PARENT, ConnectionContract, is_mentioned, is_running, wait_until
from tests.devices.ssh_server import SshServer


@pytest.mark.parametrize("shell", ["tcsh", "fish", "bash", "dash"])
def test_scripts_and_arguments_arrive_whatever_the_login_shell_is(tmp_path, config, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"the Debian package {shell} is not installed")
    server = SshServer(tmp_path, f'ForceCommand {shell} -c "$SSH_ORIGINAL_COMMAND"').start()
    odd = ["a b", "it's", '"q"', "line\nbreak\n", "$HOME `x` !!", "back\\slash\\n", "ü%d*?[a]{b}~", ""]
    source = tmp_path / "file.bin"
    source.write_bytes(bytes(range(256)) * 20)
    said: list[str] = []
    try:
        with SshConnection(
            "127.0.0.1",
            port=server.port,
            identity_file=server.identity,
            known_hosts=server.known_hosts,
            config_file=config,
            python=(sys.executable,),
            folder=str(tmp_path / "pushed"),
        ) as connection:
            program = "import sys; print(repr(sys.argv[1:])); print(sys.stdin.read())"
            ended = connection.run(
                (sys.executable, "-c", program, *odd), stdin=b"input", timeout_s=30, on_line=said.append
            )
            assert ended.returncode == 0, ended
            assert said == [repr(odd), "input"]
            connection.pull(connection.push(source), tmp_path / "back")
    finally:
        server.stop()
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


@pytest.mark.slow
class TestSshConnection(ConnectionContract):
    @pytest.fixture
    def connection(self, connect):
        return connect()


def test_packages_import_no_client_until_it_is_used():
    code = "import sys, devices.connections, devices.inventory.devices; print('asyncssh' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_run_names_the_extra_when_the_client_is_not_installed(connect, monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(TargetError) as caught:
        connect().run(("true",), timeout_s=10)
    assert caught.value.fix == how_to_install("ssh")


def test_push_sends_nothing_when_the_content_is_there_from_an_earlier_connection(connect, tmp_path):
    source = tmp_path / "model.onnx"
    source.write_bytes(os.urandom(5000))
    first = connect()
    remote = Path(first.push(source))
    inode = remote.stat().st_ino
    first.close()
    assert connect().push(source) == str(remote)
    assert remote.stat().st_ino == inode
    assert os.access(remote, os.X_OK)


def test_push_sends_again_when_only_a_part_is_there(connect, tmp_path):
    source = tmp_path / "model.onnx"
    source.write_bytes(os.urandom(5000))
    remote = Path(connect().push(source))
    remote.write_bytes(b"part")
    connect().push(source)
    assert remote.read_bytes() == source.read_bytes()


def test_run_leaves_neither_processes_nor_files_behind(connect, device, tmp_path):
    connection = connect()
    scratch = Path(connection.scratch())
    during: list[bool] = []
    mark = str(device).encode()
    wait = tmp_path / "wait"
    wait.touch()

    def look(_: str) -> None:
        during.append(is_mentioned(mark))
        wait.unlink()

    script = 'cat; while [ -e "$0" ]; do sleep 0.02; done'
    ended = connection.run(("sh", "-c", script, str(wait)), stdin=b"x\n", timeout_s=30, on_line=look)
    assert (ended.returncode, during) == (0, [True])
    assert not list(scratch.iterdir())
    assert wait_until(lambda: not is_mentioned(mark))
    connection.close()
    assert not list(device.iterdir())


def test_run_reports_the_device_lost_and_leaves_nothing_when_the_connection_is_cut(connect, server):
    connection = connect()
    lines: list[str] = []

    def cut(line: str) -> None:
        lines.append(line)
        for session in server.sessions():
            os.kill(session, signal.SIGKILL)

    ended = connection.run((sys.executable, "-c", PARENT), timeout_s=60, on_line=cut)
    assert (ended.lost, ended.timed_out) == (True, False)
    assert wait_until(lambda: not is_running(int(lines[0])))


@pytest.mark.slow
def test_run_reports_the_device_lost_when_it_falls_silent(connect, server, monkeypatch):
    monkeypatch.setattr("devices.connections.ssh.KEEPALIVE_S", 0.5)
    connection = connect()
    stopped: list[int] = []
    lines: list[str] = []

    def freeze(line: str) -> None:
        lines.append(line)
        stopped.extend(server.sessions())
        for session in stopped:
            os.kill(session, signal.SIGSTOP)

    try:
        ended = connection.run((sys.executable, "-c", PARENT), timeout_s=60, on_line=freeze)
    finally:
        for session in stopped:
            os.kill(session, signal.SIGCONT)
    assert (ended.lost, ended.timed_out) == (True, False)
    # The device comes back, and sees that the host has gone.
    assert wait_until(lambda: not is_running(int(lines[0])))


def test_run_connects_again_and_keeps_its_folder_when_the_device_was_lost(connect, server, tmp_path):
    source = tmp_path / "model.onnx"
    source.write_bytes(b"model")
    connection = connect()
    scratch, remote = connection.scratch(), connection.push(source)
    for session in server.sessions():
        os.kill(session, signal.SIGKILL)
    Path(remote).unlink()
    lines: list[str] = []
    # Whether the cut was noticed yet or not.
    assert connection.run(("echo", "again"), timeout_s=10, on_line=lines.append).returncode == 0
    assert lines == ["again"]
    assert connection.scratch() == scratch
    assert Path(connection.push(source)).read_bytes() == b"model"


def test_run_ends_on_the_device_when_the_host_process_is_killed(server, tmp_path):
    code = (
        "import sys; from devices.connections.ssh import SshConnection\n"
        f"connection = SshConnection('127.0.0.1', port={server.port}, identity_file={str(server.identity)!r},"
        f" known_hosts={str(server.known_hosts)!r}, folder={str(tmp_path / 'folder')!r})\n"
        f"connection.run((sys.executable, '-c', {PARENT!r}), timeout_s=600,"
        " on_line=lambda line: print(line, flush=True))"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(host.stdout.readline())
    assert is_running(child)
    host.kill()
    host.wait()
    host.stdout.close()
    assert wait_until(lambda: not is_running(child))


@pytest.mark.slow
def test_run_ends_on_the_device_by_itself_when_the_host_falls_silent(connect, monkeypatch):
    monkeypatch.setattr("devices.connections.remote.KILL_S", 0.0)
    connection = connect()
    lines: list[str] = []
    stop = threading.Event()

    def stay(line: str) -> None:
        lines.append(line)
        assert wait_until(lambda: not is_running(int(line)))
        stop.set()

    # A shell has said so long before the time is over, on a busy machine as well.
    connection.run(("sh", "-c", "sleep 600 & echo $!; wait"), timeout_s=3, on_line=stay, stop=stop)
    assert not is_running(int(lines[0]))


def test_close_ends_what_another_thread_runs(connect):
    connection = connect()
    started = threading.Event()
    ended = []

    def work() -> None:
        ended.append(
            connection.run((sys.executable, "-c", PARENT), timeout_s=60, on_line=lambda _: started.set())
        )

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert started.wait(30)
    connection.close()
    thread.join(30)
    assert ended and ended[0].lost


def test_nobody_waits_for_ever_for_a_connection_that_is_ending():
    for _ in range(30):
        loop = _Loop()
        ready = threading.Barrier(4)

        def work(loop: _Loop = loop, ready: threading.Barrier = ready) -> None:
            ready.wait(30)
            with contextlib.suppress(DeviceLostError):
                while True:
                    loop.call(asyncio.sleep(0), timeout_s=30)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        ready.wait(30)
        loop.end()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)


def test_run_names_the_place_when_the_command_is_not_there(connect):
    with pytest.raises(TargetError) as caught:
        connect().run(("no such command", "x"), timeout_s=10)
    assert "'no such command' cannot be started on 127.0.0.1" in caught.value.what
    assert "No such file" in caught.value.why


def test_run_says_what_to_raise_when_the_server_opens_no_more_sessions(tmp_path):
    server = SshServer(tmp_path, "MaxSessions 1").start()
    try:
        with SshConnection(
            "127.0.0.1",
            port=server.port,
            identity_file=server.identity,
            known_hosts=server.known_hosts,
            folder=str(tmp_path / "folder"),
        ) as connection:
            caught: list[TargetError] = []
            stop = threading.Event()

            def nested(_: str) -> None:
                stop.set()
                with pytest.raises(TargetError) as error:
                    connection.run(("true",), timeout_s=10)
                caught.append(error.value)

            connection.run(("sh", "-c", "echo; sleep 60"), timeout_s=30, on_line=nested, stop=stop)
            assert "MaxSessions" in caught[0].fix
            assert connection.run(("true",), timeout_s=10).returncode == 0
    finally:
        server.stop()


def test_push_fails_when_the_folder_cannot_be_made(connect, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "model").touch()
    with pytest.raises(TargetError, match="no folder") as caught:
        connect(folder=str(tmp_path / "file" / "folder")).push(tmp_path / "model")
    assert "Not a directory" in caught.value.why
    assert "folder" in caught.value.fix


def test_push_refuses_a_folder_that_is_a_link(connect, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TargetError, match="no folder") as caught:
        connect(folder=str(tmp_path / "link")).scratch()
    assert "somebody else" in caught.value.why


def test_folder_is_in_the_cache_of_the_user_when_none_is_named(connect):
    connection = connect(folder=None)
    found = Path(connection.scratch()).parent
    assert found.name.startswith("lathe")
    assert found.stat().st_uid == os.getuid()


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "lathe-test", disk], check=False)
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_push_and_run_say_so_when_the_disk_is_full(connect, tiny_disk, tmp_path):
    source = tmp_path / "model.onnx"
    source.write_bytes(os.urandom(1_000_000))
    connection = connect(folder=str(tiny_disk / "lathe"))
    with pytest.raises(TargetError) as caught:
        connection.push(source)
    assert "No space left" in caught.value.why
    assert "free some space" in caught.value.fix
    assert not list(Path(connection.scratch()).iterdir())
    with pytest.raises(TargetError) as caught:
        connection.run(("cat",), stdin=source.read_bytes(), timeout_s=10)
    assert "No space left" in caught.value.why
    assert "free some space" in caught.value.fix
    assert connection.run(("cat",), stdin=b"small", timeout_s=10).returncode == 0
