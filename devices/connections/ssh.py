"""Devices that are reached by SSH: boards, servers, other computers.

The client is asyncssh (documentation: https://asyncssh.readthedocs.io, version 2.24), which reads the user's
configuration of OpenSSH, see ssh_config(5), and asks the same agent for keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import socket
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from devices.connections.remote import DeviceLostError, Output, RemoteConnection, RemoteProcess
from devices.connections.scripts import for_any_shell
from devices.errors import PassingTargetError, TargetError
from devices.installing import how_to_install
from devices.words import listed

if TYPE_CHECKING:
    import asyncssh

Answer = TypeVar("Answer")

KEEPALIVE_S = 5
KEEPALIVE_COUNT = 3
_REPLY_S = 5.0
_PAUSES_S = (0.02, 0.1, 0.5)
_PIECE_BYTES = 1 << 16
_PIECES_AHEAD = 16
_SSH_PORT = 22
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


class SshConnection(RemoteConnection):
    """A device with an SSH server and a POSIX shell.

    What is not given comes from the user's configuration (``~/.ssh/config``): address, user, port, keys,
    agent, jump hosts, files of known hosts. The keys of hosts are always verified, whatever the configuration
    says. There is no way to give a password.

    Args:
        host: name or address, or a ``Host`` of the configuration.
        user: name of the account there.
        port: TCP port of the server.
        jump: ``[user@]host[:port]`` of a host to go through, several with commas between, as ``ssh -J`` takes
            them, in place of the configuration's; ``none`` goes through none.
        identity_file: private key to log in with; one that has a passphrase must be in the agent.
        known_hosts: keys of hosts, in place of the files that the configuration names.
        config_file: another configuration in place of the user's.
        python: the command that starts Python 3.8+ there, or ``None``.
        folder: where pushed files are kept; see ``RemoteConnection``.
        connect_timeout_s: how long connecting may take, over all jump hosts.
    """

    def __init__(
        self,
        host: str,
        *,
        user: str | None = None,
        port: int | None = None,
        jump: str | None = None,
        identity_file: Path | None = None,
        known_hosts: Path | None = None,
        config_file: Path | None = None,
        python: tuple[str, ...] | None = ("python3",),
        folder: str | None = None,
        connect_timeout_s: float = 15.0,
    ) -> None:
        super().__init__(f"{user}@{host}" if user else host, python, folder)
        self._hop = _Hop(host, user, port)
        self._jump = jump
        self._identity_file = identity_file
        self._known_hosts = known_hosts
        self._config_file = config_file
        self._connect_timeout_s = connect_timeout_s
        self._loop: _Loop | None = None
        self._client: asyncssh.SSHClientConnection | None = None

    def _execute(self, command: str) -> RemoteProcess:
        try:
            import asyncssh
        except ImportError as error:
            raise TargetError(
                f"{self.label} is reached by SSH, for which asyncssh cannot be imported",
                why=str(error),
                fix=how_to_install("ssh"),
            ) from error
        loop, client = self._connected()
        try:
            return loop.call(_Process.start(loop, client, for_any_shell(command)), self._connect_timeout_s)
        except (asyncssh.Error, OSError) as error:
            if isinstance(error, asyncssh.ChannelOpenError) and not client.is_closed():
                raise TargetError(
                    f"{self.label} starts no further command",
                    why=error.reason,
                    fix="raise MaxSessions in its sshd_config, or use it less at a time",
                ) from error
            self._drop(loop, client)
            raise DeviceLostError(str(error) or "it does not answer any more") from error

    def _drop(self, loop: _Loop, client: asyncssh.SSHClientConnection) -> None:
        """Give up a connection that does not work, so that the next use makes another."""
        with self._lock:
            if self._client is client:
                self._client = None
        with contextlib.suppress(DeviceLostError, TimeoutError):
            loop.call(_abort(client), _REPLY_S)

    def _disconnect(self) -> None:
        with self._lock:
            loop, client = self._loop, self._client
            self._loop = self._client = None
        if loop is not None:
            if client is not None:
                with contextlib.suppress(DeviceLostError, TimeoutError):
                    loop.call(_close(client), _REPLY_S)
            loop.end()

    def _connected(self) -> tuple[_Loop, asyncssh.SSHClientConnection]:
        with self._lock:
            if self._loop is None:
                self._loop = _Loop()
            if self._client is not None and self._client.is_closed():
                self._client = None
                raise DeviceLostError("the connection ended")
            if self._client is None:
                try:
                    self._client = self._loop.call(self._connect(self._hop), self._connect_timeout_s)
                except TimeoutError as error:
                    raise PassingTargetError(
                        f"{self.label} cannot be reached",
                        why=f"it did not answer within {self._connect_timeout_s:g} s",
                        fix="check that it is on, and its address, network and firewall",
                    ) from error
            return self._loop, self._client

    async def _connect(
        self, hop: _Hop, via: asyncssh.SSHClientConnection | None = None, before: tuple[str, ...] = ()
    ) -> asyncssh.SSHClientConnection:
        """Connect to a host, by way of ``via`` or else of its jump hosts; those in ``before`` wait for it."""
        import asyncssh

        keys = [self._identity_file] if self._identity_file and hop is self._hop else ()
        options: dict[str, Any] = {
            "config": () if self._config_file is None else [self._config_file],
            "username": hop.user or (),
            "port": hop.port or (),
            "client_keys": keys,
            # One with a passphrase can be in the agent.
            "ignore_encrypted": True,
        }
        try:
            settings = asyncssh.SSHClientConnectionOptions(host=hop.name, **options)
            files = self._files_of_known_hosts(settings)
            known_hosts = asyncssh.read_known_hosts(files)
        except (OSError, ValueError) as error:
            raise TargetError(
                f"the settings for connecting to {hop.name} cannot be used",
                why=str(error),
                fix="correct that file, or name another one",
            ) from error
        if via is None:
            given = self._jump if hop is self._hop else None
            for jump in _Hop.parse(settings.tunnel if given is None else given):
                # A pattern that gives a jump host often matches that host too.
                if given is not None or jump.name not in (*before, hop.name):
                    via = await self._connect(jump, via, (*before, hop.name))
        try:
            client = await asyncssh.connect(
                hop.name,
                tunnel=via,
                known_hosts=known_hosts,
                keepalive_interval=KEEPALIVE_S,
                keepalive_count_max=KEEPALIVE_COUNT,
                **options,
            )
        except asyncssh.HostKeyNotVerifiable as error:
            raise self._unverified(hop, settings, files, error) from error
        except (asyncssh.Error, OSError) as error:
            raise _unreachable(hop, settings, error) from error
        else:
            # The last connection closes those that it goes through.
            client.set_tunnel(via)
            via = None
            return client
        finally:
            if via is not None:
                via.abort()

    def _files_of_known_hosts(self, settings: asyncssh.SSHClientConnectionOptions) -> list[str]:
        """The files with keys of hosts that there are, also where the configuration says ``none``."""
        if self._known_hosts is not None:
            return [str(self._known_hosts)]
        named = [
            *_or(settings.config.get("UserKnownHostsFile"), _KNOWN_HOSTS),
            *_or(settings.config.get("GlobalKnownHostsFile"), _GLOBAL_KNOWN_HOSTS),
        ]
        return [str(path) for path in (Path(name).expanduser() for name in named) if path.is_file()]

    def _unverified(
        self,
        hop: _Hop,
        settings: asyncssh.SSHClientConnectionOptions,
        files: Sequence[str],
        error: asyncssh.HostKeyNotVerifiable,
    ) -> TargetError:
        """Tell a key that has changed from one that is not known, with the command that mends it."""
        import asyncssh

        address = settings.host_key_alias or settings.host
        name = address if settings.port == _SSH_PORT else f"[{address}]:{settings.port}"
        by_hand = ["ssh"]
        if self._config_file is not None:
            by_hand += ["-F", str(self._config_file)]
        if self._known_hosts is not None:
            by_hand += ["-o", f"UserKnownHostsFile={self._known_hosts}"]
        if hop is self._hop and self._jump is not None:
            by_hand += ["-J", self._jump]
        if hop.port is not None:
            by_hand += ["-p", str(hop.port)]
        by_hand += [f"{hop.user}@{hop.name}" if hop.user else hop.name, "true"]
        accept = f"run '{shlex.join(by_hand)}' once, compare the fingerprint that it shows, and accept it"
        for file in files:
            port = None if settings.port == _SSH_PORT else settings.port
            if any(asyncssh.match_known_hosts(file, address, "", port)):
                forget = shlex.join(["ssh-keygen", "-f", file, "-R", name])
                return TargetError(
                    f"the host key of {hop.name} has changed",
                    why=f"it is not the one in {file} ({error.reason}): the device was set up anew, or "
                    "something else answers in its place",
                    fix=f"if you know that it was, run '{forget}'; then {accept}",
                )
        return TargetError(
            f"the host key of {hop.name} is not known",
            why=f"there is none for {name} in {listed(files or _KNOWN_HOSTS, 'or')} ({error.reason})",
            fix=accept,
        )


@dataclass(frozen=True)
class _Hop:
    """A host to connect to, on the way or at its end."""

    name: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, jumps: object) -> list[_Hop]:
        """Read the ``[user@]host[:port]``, with commas between, of a ``ProxyJump``."""
        if not isinstance(jumps, str) or jumps.lower() == "none":
            return []
        hops = []
        for text in jumps.split(","):
            user, _, place = text.strip().removeprefix("ssh://").rpartition("@")
            name, _, port = place.rpartition(":")
            bare_ipv6 = place.count(":") > 1 and "]" not in place
            if bare_ipv6 or not port.isdecimal():
                name, port = place, ""
            hops.append(cls(name.strip("[]"), user or None, int(port) if port else None))
        return hops


def _unreachable(hop: _Hop, settings: asyncssh.SSHClientConnectionOptions, error: Exception) -> TargetError:
    """What it means that connecting failed, and what can be done."""
    import asyncssh

    place = f"{settings.host} port {settings.port}"
    match error:
        case asyncssh.PermissionDenied():
            return TargetError(
                f"{hop.name} refused the login of '{settings.username}'",
                why=error.reason,
                fix="put your public key there with ssh-copy-id, or name another user or key; a key with a "
                "passphrase has to be in the agent: ssh-add",
            )
        case socket.gaierror():
            return TargetError(
                f"there is no host '{settings.host}'",
                why=error.strerror or str(error),
                fix="correct the name, or give the address, or a Host of ~/.ssh/config",
            )
        case ConnectionRefusedError():
            return PassingTargetError(
                f"no SSH server answers at {place}",
                why="the connection was refused",
                fix="start the server there (Debian: apt install openssh-server), or correct the port",
            )
        case asyncssh.ChannelOpenError():
            return PassingTargetError(
                f"the jump host of {hop.name} does not reach {place}",
                why=error.reason,
                fix="check from the jump host that the device answers, and that it lets you forward",
            )
    return PassingTargetError(
        f"{hop.name} cannot be reached",
        why=f"{place}: {error}",
        fix=f"see what 'ssh -v {shlex.quote(hop.name)}' says",
    )


def _or(value: object, otherwise: Sequence[str]) -> Sequence[str]:
    return value if isinstance(value, list) else otherwise


class _Loop:
    """An event loop in a thread of its own, in which everything of one connection happens."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Event
        self._begun = threading.Event()
        self._ended: Future[Any] = Future()
        threading.Thread(target=self._run, name="lathe-ssh", daemon=True).start()
        self._begun.wait()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._ended.set_result(None)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self._begun.set()
        await self._over.wait()

    def call(self, work: Coroutine[Any, Any, Answer], timeout_s: float) -> Answer:
        """Do this in the loop.

        Raises:
            TimeoutError: it took longer; it is cancelled.
            DeviceLostError: the loop has ended, since another thread closed the connection.
        """
        limited = asyncio.wait_for(work, timeout_s)
        try:
            future = asyncio.run_coroutine_threadsafe(limited, self._loop)
        except RuntimeError as error:
            limited.close()
            work.close()
            raise DeviceLostError("the connection was closed") from error
        try:
            # A loop that is just ending accepts work that it never begins.
            wait([future, self._ended], return_when=FIRST_COMPLETED)
        except BaseException:
            future.cancel()
            raise
        if not future.done():
            raise DeviceLostError("the connection was closed")
        try:
            return future.result()
        except CancelledError as error:
            raise DeviceLostError("the connection was closed") from error

    def end(self) -> None:
        """Cancel what is under way, and end the thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._over.set)


class _Process(RemoteProcess):
    """A command in a channel of its own; it is read ahead a little, then the device has to wait."""

    def __init__(self, loop: _Loop, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._loop = loop
        self._process = process
        self._read: asyncio.Queue[Output | int | DeviceLostError] = asyncio.Queue(_PIECES_AHEAD)
        self._following = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, loop: _Loop, client: asyncssh.SSHClientConnection, command: str) -> _Process:
        import asyncssh

        # A server counts a session for a moment after it has ended.
        for pause_s in _PAUSES_S:
            with contextlib.suppress(asyncssh.ChannelOpenError):
                return cls(loop, await client.create_process(command, encoding=None, request_pty=False))
            await asyncio.sleep(pause_s)
        return cls(loop, await client.create_process(command, encoding=None, request_pty=False))

    async def _follow(self) -> None:
        import asyncssh

        error = "the connection ended"
        try:
            await asyncio.gather(
                self._hand_on(self._process.stdout, is_error=False),
                self._hand_on(self._process.stderr, is_error=True),
            )
            await self._process.wait_closed()
        except (asyncssh.Error, OSError) as caught:
            error = str(caught)
        status = self._process.returncode
        await self._read.put(DeviceLostError(error) if status is None else status)

    async def _hand_on(self, reader: asyncssh.SSHReader[bytes], *, is_error: bool) -> None:
        while data := await reader.read(_PIECE_BYTES):
            await self._read.put(Output(data, is_error))

    def read(self, timeout_s: float) -> Output | int | None:
        try:
            got = self._loop.call(self._read.get(), timeout_s)
        except TimeoutError:
            return None
        if isinstance(got, DeviceLostError):
            raise got
        return got

    def write(self, data: bytes, timeout_s: float) -> None:
        self._loop.call(self._write(data), timeout_s)

    async def _write(self, data: bytes) -> None:
        import asyncssh

        # Whether the command has ended or the connection has is known to, and told by, ``read``.
        with contextlib.suppress(OSError, asyncssh.Error):
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    def close_input(self) -> None:
        with contextlib.suppress(DeviceLostError, TimeoutError):
            self._loop.call(self._close_input(), _REPLY_S)

    async def _close_input(self) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.write_eof()

    def close(self) -> None:
        with contextlib.suppress(DeviceLostError, TimeoutError):
            self._loop.call(self._close(), _REPLY_S)

    async def _close(self) -> None:
        self._following.cancel()
        self._process.close()
        await self._process.wait_closed()


async def _abort(client: asyncssh.SSHClientConnection) -> None:
    client.abort()


async def _close(client: asyncssh.SSHClientConnection) -> None:
    client.close()
    await client.wait_closed()
