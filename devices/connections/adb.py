"""Phones and other Android devices that are reached by ADB, over USB or TCP.

The client is Android's own ``adb`` (documentation: https://developer.android.com/tools/adb; SERVICES.TXT of
AOSP's packages/modules/adb; messages as of version 29.0.6). It talks to the device through a server, on this
machine, where it starts one when there is none, or on the host to which the device is attached.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shlex
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import BinaryIO

from devices.connections.remote import (
    MOST_FILE_BYTES,
    POLL_S,
    STALL_S,
    DeviceLostError,
    Output,
    RemoteConnection,
    RemoteProcess,
)
from devices.errors import MeasurementError, PassingTargetError, TargetError
from devices.host import end, start

_DEFAULT_PORT = 5555
_SERVER_PORT = 5037
_ONLINE = "device"
_STARTING = threading.Lock()
"""Two clients that start a server at once disturb each other."""
_TRANSIENT = ("offline", "connecting", "authorizing")
_SLOWEST_BYTES_PER_S = 200_000
_PIECE_BYTES = 1 << 16
_MOST_GREETING_BYTES = 1 << 12
_INSTALL = "install it (Debian: apt-get install adb; others: https://developer.android.com/tools/releases/platform-tools)"

# The client ends with 0 or 255 when the device went away, as commands do too. So the shell there says when it
# begins, and last of all the true status, after a word that nothing else writes.
_REPORTING = "echo {mark} >&2; ( {command} ); echo {mark} $? >&2"
_STATUS_DIGITS = 3


class AdbConnection(RemoteConnection):
    """An Android device, 7.0 or later, with USB debugging or debugging over TCP switched on.

    A connection over TCP that was made stays in the adb server, also after ``close``.

    Args:
        serial: as ``adb devices`` lists it; always the whole of it.
        address: ``HOST`` or ``HOST:PORT`` of a device that listens on TCP, instead of a serial.
        adb: the command that starts the client, as the first words of an argument list.
        server_host: name or address of another host whose adb server has the device; by default what the
            environment says (``ADB_SERVER_SOCKET``), or this machine.
        server_port: TCP port of the adb server; by default what the environment says, or 5037.
        python: the command that starts Python 3.8+ there; phones have none.
        folder: where pushed files are kept; see ``RemoteConnection``.
        connect_timeout_s: how long it may take until the device can be used.

    Raises:
        TargetError: neither serial nor address is given, or both are.
    """

    def __init__(
        self,
        *,
        serial: str | None = None,
        address: str | None = None,
        adb: tuple[str, ...] = ("adb",),
        server_host: str | None = None,
        server_port: int | None = None,
        python: tuple[str, ...] | None = None,
        folder: str | None = "/data/local/tmp/lathe",
        connect_timeout_s: float = 15.0,
    ) -> None:
        if bool(serial) == bool(address):
            raise TargetError(
                "a device reached by ADB needs either a serial or an address",
                fix="give the serial that 'adb devices' shows, or HOST:PORT of a device that listens on TCP",
            )
        self._over_tcp = bool(address)
        self._serial = serial or _with_port(address or "")
        super().__init__(self._serial, python, folder)
        self._adb = (
            *adb,
            *(() if server_host is None else ("-H", server_host)),
            *(() if server_port is None else ("-P", str(server_port))),
        )
        self._server = None if server_host is None else f"{server_host}:{server_port or _SERVER_PORT}"
        self._connect_timeout_s = connect_timeout_s
        self._online = False

    def _execute(self, command: str) -> RemoteProcess:
        with self._lock:
            if not self._online:
                self._connect()
                self._online = True
        mark = f"lathe-{uuid.uuid4().hex}"
        reporting = _REPORTING.format(command=command, mark=mark)
        # -T: no terminal, so that every byte passes as it is, and the two outputs come apart.
        client = self._start_client("-s", self._serial, "shell", "-T", reporting)
        process = _Process(client, mark.encode(), self._lost)
        try:
            process.begin(self._connect_timeout_s)
        except BaseException:
            process.close()
            raise
        return process

    def _disconnect(self) -> None:
        self._online = False

    def _lost(self, why: str) -> DeviceLostError:
        """The error for a device that went away; the next command connects again."""
        self._online = False
        return DeviceLostError(why or f"{self.label} does not answer any more")

    def _upload(self, source: BinaryIO, size: int, remote: str) -> None:
        # The open file, by its number: whatever its name is or becomes, this content is sent.
        failure = self._transfer("push", f"/dev/fd/{source.fileno()}", remote, file=source, size=size)
        if failure:
            raise self._unwritable(failure)

    def _download(self, remote: str, sink: BinaryIO) -> None:
        found = bytearray()
        status, failure = self._script('wc -c < "$1"', remote, sink=found.extend)
        if status == 0:
            size = int(found) if re.fullmatch(rb"\s*\d{1,18}\s*", found) else MOST_FILE_BYTES + 1
            if size > MOST_FILE_BYTES:
                told = _text(bytes(found[:40]))
                raise MeasurementError(
                    f"the file {remote!r} of {self.label} is not copied",
                    why=f"its length is told as {told!r}, and may be {MOST_FILE_BYTES:,} bytes",
                )
            failure = self._transfer("pull", remote, f"/dev/fd/{sink.fileno()}", file=sink, size=size)
        if failure or status != 0:
            raise MeasurementError(f"there is no file {remote!r} to read on {self.label}", why=failure)

    def _transfer(self, verb: str, origin: str, destination: str, *, file: BinaryIO, size: int) -> str:
        """Copy a file; empty, or what the device has against it."""
        allowed_s = STALL_S + size / _SLOWEST_BYTES_PER_S
        ended = self._ask("-s", self._serial, verb, "--", origin, destination, timeout_s=allowed_s, file=file)
        if ended.returncode == 0:
            return ""
        said = ended.stdout + ended.stderr
        if reason := re.search(r": remote (.*)|stat failed when trying to push to (.*)", said):
            return reason[1] or reason[2]
        raise self._lost(said.strip())

    def _connect(self) -> None:
        deadline = time.monotonic() + self._connect_timeout_s
        with _STARTING:
            started = self._ask("start-server", timeout_s=self._connect_timeout_s)
            if started.returncode != 0:
                # Another process may have started one at the same moment, and that one answers now.
                started = self._ask("start-server", timeout_s=self._connect_timeout_s)
        if started.returncode != 0:
            raise self._no_server(started.stderr.strip())
        answer = ""
        states = self._states()
        if self._over_tcp and states.get(self._serial) != _ONLINE:
            # The server still lists a connection that broke, and makes no new one beside it.
            self._ask("disconnect", self._serial, timeout_s=self._connect_timeout_s)
            connecting = self._ask("connect", self._serial, timeout_s=self._connect_timeout_s)
            answer = (connecting.stdout + connecting.stderr).strip()
            states = self._states()
        while states.get(self._serial) in _TRANSIENT and time.monotonic() < deadline:
            time.sleep(POLL_S)
            states = self._states()
        if states.get(self._serial) != _ONLINE:
            raise self._unusable(states, answer)
        features = self._ask("-s", self._serial, "features", timeout_s=self._connect_timeout_s)
        if features.returncode == 0 and "shell_v2" not in features.stdout.split():
            raise TargetError(
                f"{self.label} has too old an Android",
                why="its shell does not tell how a command ended; Android 7.0 is the first whose does",
                fix="use a newer device",
            )

    def _states(self) -> dict[str, str]:
        """Devices that the server knows, by serial: device, offline, unauthorized, recovery ..."""
        lines = self._ask("devices", timeout_s=self._connect_timeout_s).stdout.splitlines()
        entries = (line.partition("\t") for line in lines)
        return {serial: state.strip() for serial, tab, state in entries if tab}

    def _ask(
        self, *arguments: str, timeout_s: float, file: BinaryIO | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the client to its end."""
        with self._start_client(*arguments, file=file) as client:
            try:
                outputs = client.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired as error:
                if arguments[0] == "start-server":
                    raise self._no_server(f"no answer in {timeout_s:g} s") from error
                raise PassingTargetError(
                    f"{self.label} does not answer",
                    why=f"'adb {shlex.join(arguments)}' was not done after {timeout_s:g} s",
                    fix="see whether it is awake and its cable or network good, then run 'adb reconnect'",
                ) from error
            finally:
                end(client)
        texts = [output.decode("utf-8", errors="replace") for output in outputs]
        return subprocess.CompletedProcess(client.args, client.returncode, *texts)

    def _start_client(self, *arguments: str, file: BinaryIO | None = None) -> subprocess.Popen[bytes]:
        try:
            return start(
                (*self._adb, *arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=(file.fileno(),) if file is not None else (),
            )
        except OSError as error:
            missing = shutil.which(self._adb[0]) is None
            raise TargetError(
                f"the adb client '{self._adb[0]}' "
                + ("is not installed" if missing else "cannot be started"),
                why=str(error),
                fix=f"{_INSTALL}, or name it as 'adb' for the device in devices.toml",
            ) from error

    def _no_server(self, why: str) -> TargetError:
        if self._server is not None:
            port = self._server.rpartition(":")[2]
            return TargetError(
                f"no adb server answers at {self._server}",
                why=why.splitlines()[-1] if why else "",
                fix=f"start it on that host with 'adb -a -P {port} nodaemon server', or reach it through "
                "'ssh -L'; docs/devices/connecting.md says how",
            )
        return TargetError(
            "the adb server cannot be started",
            why=why,
            fix="see whether something else uses its port (5037 unless set), run 'adb kill-server', or set "
            "'server_port' for the device in devices.toml",
        )

    def _unusable(self, states: dict[str, str], answer: str) -> TargetError:
        """Why the device is not there to be used.

        Args:
            states: of all devices, by serial.
            answer: what the client said to the attempt to connect over TCP.
        """
        state = states.get(self._serial)
        if state is None and self._over_tcp:
            return PassingTargetError(
                f"cannot connect to {self.label}",
                why=answer,
                fix="see that the phone is awake and in this network, and that it listens there: switch on "
                "wireless debugging (after 'adb pair'), or run 'adb tcpip 5555' with it on USB",
            )
        if state is None:
            return self._unknown(sorted(states))
        if state == "unauthorized":
            return TargetError(
                f"{self.label} does not let this computer in",
                why="nobody has accepted the key of this computer on it",
                fix="unlock its screen and accept 'Allow USB debugging'; if it does not ask, revoke its USB "
                "debugging authorisations in the developer options and connect it again",
            )
        if state in _TRANSIENT:
            return PassingTargetError(
                f"{self.label} is offline",
                why=answer or f"adb sees it, but it has not answered for {self._connect_timeout_s:g} s",
                fix="wake it up, connect it again, or run 'adb reconnect offline'",
            )
        if state.startswith("no permissions"):
            return TargetError(
                f"this user may not use {self.label}",
                why=state,
                fix="install the udev rules (Debian: apt-get install android-sdk-platform-tools-common), "
                "join the group plugdev, log in again, then run 'adb kill-server'",
            )
        return TargetError(
            f"{self.label} is in the state '{state}'", why="Android does not run", fix="boot it into Android"
        )

    def _unknown(self, serials: Sequence[str]) -> TargetError:
        alike = [serial for serial in serials if serial.startswith(self._serial)]
        why = f"there are {', '.join(serials)}" if serials else "no device is connected"
        if alike:
            why = f"serials are compared as a whole, and {', '.join(alike)} only begin with it"
        return PassingTargetError(
            f"there is no device with the serial '{self._serial}'",
            why=why,
            fix="connect it, switch its USB debugging on, and give its whole serial as 'adb devices' has it",
        )


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace").strip()


def _with_port(address: str) -> str:
    """The address in the form that the client makes a serial of: an IPv6 address in brackets."""
    if address.count(":") > 1 and not address.startswith("["):
        address = f"[{address}]"
    return address if re.search(r"(^[^:]+|\]):\d+$", address) else f"{address}:{_DEFAULT_PORT}"


class _Process:
    """A shell command there, behind a client here."""

    def __init__(
        self, client: subprocess.Popen[bytes], mark: bytes, lost: Callable[[str], DeviceLostError]
    ) -> None:
        assert client.stdin and client.stdout and client.stderr
        self._lost = lost
        self._client = client
        self._input, self._error_output = client.stdin, client.stderr
        os.set_blocking(self._input.fileno(), False)
        self._outputs = selectors.DefaultSelector()
        self._outputs.register(client.stdout, selectors.EVENT_READ, data=False)
        self._outputs.register(client.stderr, selectors.EVENT_READ, data=True)
        self._mark = mark
        self._report = re.compile(rb"(.*)%s (\d{1,%d})\n" % (mark, _STATUS_DIGITS), re.DOTALL)
        self._report_bytes = len(mark) + _STATUS_DIGITS + 2
        self._errors = b""
        """The end of standard error so far: it may be the report."""
        self._status: int | None = None

    def begin(self, timeout_s: float) -> None:
        """Wait until the shell there runs.

        Raises:
            DeviceLostError: it does not.
        """
        deadline = time.monotonic() + timeout_s
        beginning = self._mark + b"\n"
        with selectors.DefaultSelector() as selector:
            errors = selector.register(self._error_output, selectors.EVENT_READ)
            while beginning not in self._errors:
                # A shell that prints without an end never lets the wait run out.
                answers = selector.select(left) if (left := deadline - time.monotonic()) > 0 else []
                data = os.read(errors.fd, _PIECE_BYTES) if answers else b""
                if not data:
                    raise self._lost(_text(self._errors))
                self._errors = self._errors[-_MOST_GREETING_BYTES:] + data
        _, _, self._errors = self._errors.partition(beginning)

    def read(self, timeout_s: float) -> Output | int | None:
        """See ``RemoteProcess``."""
        deadline = time.monotonic() + timeout_s
        while self._outputs.get_map():
            ready = self._outputs.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            entry = ready[0][0]
            data = os.read(entry.fd, _PIECE_BYTES)
            if not data:
                self._outputs.unregister(entry.fileobj)
            elif not entry.data:
                return Output(data, is_error=False)
            else:
                known = self._errors + data
                data, self._errors = known[: -self._report_bytes], known[-self._report_bytes :]
                if data:
                    return Output(data, is_error=True)
        if self._status is None:
            report = self._report.fullmatch(self._errors)
            if report is None:
                raise self._lost(_text(self._errors))
            self._status = int(report[2])
            if report[1]:
                return Output(report[1], is_error=True)
        return self._status

    def write(self, data: bytes, timeout_s: float) -> None:
        """See ``RemoteProcess``."""
        deadline = time.monotonic() + timeout_s
        rest = memoryview(data)
        with selectors.DefaultSelector() as selector, contextlib.suppress(BrokenPipeError):
            selector.register(self._input, selectors.EVENT_WRITE)
            while rest:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                rest = rest[self._input.write(rest) or 0 :]

    def close_input(self) -> None:
        """See ``RemoteProcess``."""
        self._input.close()

    def close(self) -> None:
        """See ``RemoteProcess``."""
        end(self._client)
        self._outputs.close()
        for stream in (self._client.stdin, self._client.stdout, self._client.stderr):
            if stream is not None:
                stream.close()
