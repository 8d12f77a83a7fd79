"""The emulated arm64 board of tools/arm64_device, for tests: Linux on x86-64, root and Debian packages."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.devices.ports import free_port
from tests.places import ROOT

TOOL = ROOT / "tools" / "arm64_device"
BINFMT = Path("/proc/sys/fs/binfmt_misc")


@dataclass(frozen=True)
class Board:
    """A board that is being served; ``options`` reach it with ``SshConnection("127.0.0.1", **options)``."""

    server: subprocess.Popen[str]
    output: str
    port: int
    identity_file: Path
    known_hosts: Path

    @property
    def options(self) -> dict[str, Any]:
        return {
            "user": "lathe",
            "port": self.port,
            "identity_file": self.identity_file,
            "known_hosts": self.known_hosts,
        }

    def write_devices(self, path: Path, **more: str) -> None:
        """Make it 'board' of a devices.toml, which does not say that it is emulated."""
        values = {"connection": "ssh", "host": "127.0.0.1", **self.options, **more}
        lines = [
            f"{key} = {value if isinstance(value, int) else repr(str(value))}"
            for key, value in values.items()
        ]
        path.write_text("[devices.board]\n" + "\n".join(lines) + "\n")


def require_emulation() -> None:
    """Skip where a board cannot be emulated; CI can."""
    programs = ("debootstrap", "sshd", "ssh-keygen", "qemu-aarch64-static")
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or os.geteuid() != 0 or missing:
        pytest.skip(f"an arm64 board needs Linux on x86-64, root and packages; missing: {missing or 'none'}")


def arm64_tree(folder: Path) -> Path:
    """The tree that LATHE_ARM64_TREE names, or one built in ``folder``, after a first try that was killed.

    Processes with the same folder build it once.
    """
    require_emulation()
    kept = os.environ.get("LATHE_ARM64_TREE")
    tree = Path(kept) if kept else folder / "board"
    with FileLock(folder / "board.lock"):
        if not tree.exists():
            _build_at_the_second_try(tree)
        subprocess.run([sys.executable, TOOL, "build", tree], check=True, timeout=600)
    return tree


def _build_at_the_second_try(tree: Path) -> None:
    killed = subprocess.Popen([sys.executable, TOOL, "build", tree])
    wait_for(lambda: (tree.parent / f".{tree.name}.unfinished").exists() or killed.poll() is not None)
    killed.kill()
    killed.wait()


@contextlib.contextmanager
def served(tree: Path, folder: Path, *arguments: str) -> Iterator[Board]:
    """Serve the tree on a free port with keys of its own, until the end of the block."""
    folder.mkdir()
    identity = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", identity], check=True)
    port = free_port()
    server = subprocess.Popen(
        [
            *(sys.executable, TOOL, "serve", tree, f"--authorized-keys={identity}.pub", f"--port={port}"),
            *arguments,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        output = ""
        while "stop with" not in output:
            line = server.stdout.readline()
            assert line, f"the server ended with {server.wait()}"
            output += line
        known_hosts = folder / "known_hosts"
        known_hosts.write_text(next(line for line in output.splitlines(True) if line.startswith("[127")))
        yield Board(server, output, port, identity, known_hosts)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
        server.stdout.close()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.02)
