"""A real OpenSSH server on loopback with keys, port and configuration of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.devices.ports import free_port

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/sbin")
USER = getpass.getuser()


class SshServer:
    """``sshd`` in the foreground, for the user who runs the tests; listens from ``start`` to ``stop``.

    Attributes:
        port: where it listens.
        identity: the private key that it accepts.
        known_hosts: a file with its host key.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        if SSHD is None:
            pytest.skip("needs OpenSSH's server: apt install openssh-server")
        self.folder = folder
        self.port = free_port()
        self.identity = make_key(folder / "identity")
        self.host_key = make_key(folder / "host_key")
        (folder / "authorized_keys").write_text(public(self.identity))
        self.known_hosts = folder / "known_hosts"
        self.write_known_hosts(self.host_key)
        (folder / "sshd_config").write_text(
            "\n".join(
                [
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.host_key}",
                    f"AuthorizedKeysFile {folder}/authorized_keys",
                    f"PidFile {folder}/sshd.pid",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "PermitRootLogin prohibit-password",
                    "StrictModes no",
                    "UsePAM no",
                    *settings,
                ]
            )
            + "\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def write_known_hosts(self, host_key: Path) -> None:
        kind, key, *_ = public(host_key).split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")

    def start(self) -> SshServer:
        if os.getuid() == 0:
            # Started by root, Debian's locks those who are not logged in yet up in this empty folder.
            Path("/run/sshd").mkdir(exist_ok=True)
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", self.folder / "sshd_config"], stdout=log, stderr=log
        )
        log.close()
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        raise AssertionError("sshd does not listen")

    def sessions(self) -> list[int]:
        """The processes that serve its connections."""
        assert self._process is not None
        found, parents = [], [self._process.pid]
        while parents:
            parents = [child for parent in parents for child in children(parent) if is_sshd(child)]
            found += parents
        return found

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def make_key(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def public(key: Path) -> str:
    return key.with_name(key.name + ".pub").read_text()


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_sshd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("sshd")
    except OSError:
        return False
