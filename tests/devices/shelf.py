"""A shelf of devices that are shells on this machine: each with its own lock and its own identity."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import ClassVar

import pytest

import devices.added
import devices.inventory.devices_file
from devices.errors import TargetError
from devices.measuring.agreement import gather
from devices.measuring.probing import probe
from tests.devices.local_shell import ShellConnection, _Process

_AS_MACHINE = 'mount --bind "$1" /etc/machine-id && shift && exec "$@"'


def as_machine(folder: Path, name: str) -> list[str]:
    """The words that make a command see another ``/etc/machine-id``."""
    path = folder / f"machine-id of {name}"
    path.write_text(f"{name}\n")
    return ["unshare", "-m", "sh", "-c", _AS_MACHINE, "sh", str(path)]


def needs_machine_ids() -> None:
    """Skip where this user may not give a process its own mounts."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs root, to give each device an identity of its own")


class Member(ShellConnection):
    """A shell that is one device of a shelf, by its folder there; ``GONE`` are those out of reach."""

    GONE: ClassVar[set[str]] = set()
    OPEN: ClassVar[list[Member]] = []

    def __init__(self, *, at: str, python: list[str] | None = None) -> None:
        super().__init__(tuple(python or (sys.executable,)))
        self.at = at
        Member.OPEN.append(self)

    @classmethod
    def lose(cls, at: str) -> None:
        """Cut all connections to a device, which does not come back."""
        cls.GONE.add(at)
        for connection in cls.OPEN:
            if connection.at == at:
                connection.cut()

    def _execute(self, command: str) -> _Process:
        if self.at in self.GONE:
            raise TargetError(f"no route to {Path(self.at).name}")
        return super()._execute(f"export LATHE_STATE_DIR='{self.at}'; {command}")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the devices a, b and c, which devices.toml names; its pool ``all`` has them all."""
    needs_machine_ids()
    entry = EntryPoint("member", "tests.devices.shelf:Member", devices.inventory.devices_file.ENTRY_POINTS)
    monkeypatch.setattr(devices.added, "entry_points", lambda group: [entry] * (group == entry.group))
    monkeypatch.setattr(Member, "GONE", set())
    monkeypatch.setattr(Member, "OPEN", [])
    text = ""
    for name in "abc":
        (tmp_path / name).mkdir()
        python = [*as_machine(tmp_path, name), sys.executable]
        text += f'[devices.{name}]\nconnection = "member"\nat = "{tmp_path / name}"\npython = {python!r}\n'
    (tmp_path / "devices.toml").write_text(text + '[pool.all]\nmembers = ["a", "b", "c"]\n')
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
    gather.cache_clear()
    probe.cache_clear()
    return tmp_path
