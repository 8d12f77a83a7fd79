"""The tables of devices.toml: which keys each kind of connection has, and what they become."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from devices.connections import Connection, LocalConnection
from devices.words import nearest

Text = Annotated[str, Field(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Command = Annotated[
    tuple[Text, ...],
    BeforeValidator(
        lambda value: (
            (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        )
    ),
    Field(min_length=1),
]
"""First words of an argument list: one program, or a list of it and its arguments."""


_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?"
_JUMP = re.compile(rf"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?({_HOST})(:[0-9]{{1,5}})?")


def _check_host(text: str) -> str:
    if not re.fullmatch(_HOST, text):
        raise ValueError("it should be the name or address of a host")
    return text


def _check_no_port(text: str) -> str:
    if found := re.fullmatch(r"[^:]+:([0-9]+)", text):
        raise ValueError(
            f"it should be a host without its port, which is given apart (port, --port {found[1]})"
        )
    return text


def _check_jump(text: str) -> str:
    if text != "none" and not all(_JUMP.fullmatch(hop) for hop in text.split(",")):
        raise ValueError(
            "it should be [USER@]HOST[:PORT], several with commas between, or none, such as me@bastion"
        )
    return text


def _check_address(text: str) -> str:
    if not re.fullmatch(r"([^\s:\[\]]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", text):
        raise ValueError("it should be HOST or HOST:PORT, such as 192.168.1.5:5555")
    return text


class Tools(BaseModel):
    """Programs by which their makers run and time models, where they are not found by their name.

    ``trtexec`` belongs to what is installed on the device: its path there. The others are built for the
    device and kept on this host: their paths here, from which they are pushed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    trtexec: Text | None = None
    benchmark_model: Text | None = None
    onnxruntime_perf_test: Text | None = None

    def paths(self, base: Path) -> dict[str, str]:
        """The tools that are given, by name; those on this host with absolute paths."""
        given: dict[str, str] = self.model_dump(exclude_none=True)
        return {name: path if name == "trtexec" else host_path(base, path) for name, path in given.items()}


class DeviceTable(BaseModel):
    """What every device may have."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    connection: Text
    emulated: bool = False
    note: str = ""
    tools: Tools = Tools()


class LocalTable(DeviceTable):
    """This machine with another Python, a path here or the name of a program."""

    connection: Literal["local"]
    python: Command

    def connect(self, base: Path) -> Connection:
        """See ``LocalConnection``."""
        return LocalConnection(host_command(base, self.python))


class SshTable(DeviceTable):
    """A machine reached by SSH; ``host`` may be an alias of the user's ssh configuration."""

    connection: Literal["ssh"]
    host: Annotated[Text, AfterValidator(_check_no_port)]
    user: Text | None = None
    port: Port | None = None
    jump: Annotated[str, AfterValidator(_check_jump)] | None = None
    identity_file: Text | None = None
    known_hosts: Text | None = None
    config_file: Text | None = None
    python: Command = ("python3",)
    folder: Text | None = None
    connect_timeout_s: Seconds | None = None

    def connect(self, base: Path) -> Connection:
        """See ``SshConnection``."""
        from devices.connections.ssh import SshConnection

        options: dict[str, Any] = self.model_dump(
            include={"user", "port", "jump", "folder", "connect_timeout_s"}, exclude_none=True
        )
        for key in ("identity_file", "known_hosts", "config_file"):
            path = getattr(self, key)
            if path is not None:
                options[key] = Path(host_path(base, path))
        return SshConnection(self.host, python=self.python, **options)


class AdbTable(DeviceTable):
    """An Android device by its serial number, or one on the network by its address."""

    connection: Literal["adb"]
    serial: Text | None = None
    address: Annotated[str, AfterValidator(_check_address)] | None = None
    adb: Command | None = None
    server_host: Annotated[str, AfterValidator(_check_host)] | None = None
    server_port: Port | None = None
    python: Command | None = None
    folder: Text | None = None
    connect_timeout_s: Seconds | None = None

    @model_validator(mode="after")
    def _one_way(self) -> AdbTable:
        if (self.serial is None) == (self.address is None):
            raise ValueError("give exactly one of serial (from 'adb devices') and address")
        return self

    def connect(self, base: Path) -> Connection:
        """See ``AdbConnection``."""
        from devices.connections.adb import AdbConnection

        options: dict[str, Any] = self.model_dump(
            include={"serial", "address", "server_host", "server_port", "folder", "connect_timeout_s"},
            exclude_none=True,
        )
        if self.adb is not None:
            options["adb"] = host_command(base, self.adb)
        return AdbConnection(python=self.python, **options)


TABLES: Mapping[str, type[LocalTable | SshTable | AdbTable]] = {
    "local": LocalTable,
    "ssh": SshTable,
    "adb": AdbTable,
}


def reasons_of(error: ValidationError, model: type[DeviceTable]) -> list[str]:
    """What is wrong with a table, key by key."""
    reasons = []
    for detail in error.errors():
        where = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "missing":
            reasons.append(f"{where} is missing")
        elif detail["type"] == "extra_forbidden":
            known = Tools.model_fields if len(detail["loc"]) > 1 else model.model_fields
            reasons.append(unknown_key(str(detail["loc"][-1]), known, where))
        else:
            message = detail["msg"].removeprefix("Value error, ").replace("Input should", "it should")
            given = detail["input"]
            shown = f" (got {given!r})" if isinstance(given, str | int | float | list) else ""
            reasons.append(f"{where}: {message}{shown}" if where else message)
    return reasons


def unknown_key(key: str, known: Iterable[str], where: str = "") -> str:
    """What to say of a key that is not among the known ones: the nearest of them, and all."""
    return f"'{where or key}' is not a key{nearest(key, known)} (keys are {', '.join(known)})"


def host_command(base: Path, words: tuple[str, ...]) -> tuple[str, ...]:
    """A command of this host, whose program is looked for in PATH unless it is a path."""
    program, *arguments = words
    return (host_path(base, program) if "/" in program else program, *arguments)


def host_path(base: Path, text: str) -> str:
    """A path of this host, absolute; links in it stay, since an environment's Python is one."""
    try:
        return str(base / Path(text).expanduser())
    except RuntimeError:  # the home of a user who does not exist
        return str(base / text)
