"""Finds the command-line tools of this machine that are pushed to devices without Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_cache_path

from devices.agent.machine import elf_machine
from devices.errors import TargetError

_MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
"""``e_machine`` of an ELF file, elf(5)."""
_RUNS_TOO = {"aarch64": ("aarch64", "arm"), "x86_64": ("x86_64", "x86")}


def native_folder() -> Path:
    """Where tools for devices are looked for on this machine, as ``PLATFORM/TOOL``."""
    return user_cache_path("lathe") / "native"


def native_tool(name: str, platform: str, own: Mapping[str, str]) -> Path:
    """The file of this machine that is a tool for one platform.

    Args:
        name: of the tool.
        platform: as ``devices.runtimes.native.shell.read_platform`` gives it, e.g. android-aarch64.
        own: paths of tools by name, as devices.toml gives them for the device; they go before those of
            ``native_folder``.

    Raises:
        TargetError: there is none, or it is built for another processor.
    """
    path = Path(own.get(name, native_folder() / platform / name))
    machine = platform.partition("-")[2]
    if not path.is_file():
        raise TargetError(
            f"there is no {name} for {platform}",
            why=f"there is no file {str(path)!r}",
            fix=f"put one there with tools/fetch_native, or name yours for the device in devices.toml as "
            f'tools.{name} = "/path/to/{name}"',
        )
    built_for = _built_for(path)
    if built_for is not None and built_for not in _RUNS_TOO.get(machine, (machine,)):
        raise TargetError(
            f"{str(path)!r} cannot run on {platform}",
            why=f"it is built for {built_for}",
            fix=f"give a {name} that is built for {machine}",
        )
    return path


def _built_for(path: Path) -> str | None:
    """The processor that an ELF file is built for; ``None`` for another kind of file."""
    machine = elf_machine(str(path))
    if machine is None:
        return None
    return _MACHINES.get(machine, f"processor {machine} of elf(5)")
