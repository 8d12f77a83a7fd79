"""devices.toml: which devices there are besides this machine, and how each is reached.

There may be one for the user and one in the current folder; of two devices with one name that of the folder
counts. Relative paths on this host are taken from the folder of the file, ``~`` is the user's home. The keys
are the fields of the tables below; docs/devices/connecting.md shows them at work.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_config_path
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
from devices.errors import TargetError

ENTRY_POINTS = "lathe.connections"
"""Group of entry points by which other distributions add kinds of connections.

The name of an entry is what ``connection`` says in devices.toml. What it loads is called with the table's
other keys as keyword arguments (but ``emulated``, ``note`` and ``tools``, which every device may have), and
returns a ``Connection``, so that the class of a connection will do. It must not open the connection yet; what
is wrong with a key it says by TypeError or ValueError.
"""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Names that a target can hold."""

Text = Annotated[str, Field(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
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
        return {name: path if name == "trtexec" else _host_path(base, path) for name, path in given.items()}


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
        return LocalConnection(_host_command(base, self.python))


class SshTable(DeviceTable):
    """A machine reached by SSH; ``host`` may be an alias of the user's ssh configuration."""

    connection: Literal["ssh"]
    host: Text
    user: Text | None = None
    port: Port | None = None
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
            include={"user", "port", "folder", "connect_timeout_s"}, exclude_none=True
        )
        for key in ("identity_file", "known_hosts", "config_file"):
            path = getattr(self, key)
            if path is not None:
                options[key] = Path(_host_path(base, path))
        return SshConnection(self.host, python=self.python, **options)


class AdbTable(DeviceTable):
    """An Android device by its serial number, or one on the network by its address."""

    connection: Literal["adb"]
    serial: Text | None = None
    address: Annotated[str, AfterValidator(_check_address)] | None = None
    adb: Command | None = None
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
            include={"serial", "address", "server_port", "folder", "connect_timeout_s"}, exclude_none=True
        )
        if self.adb is not None:
            options["adb"] = _host_command(base, self.adb)
        return AdbConnection(python=self.python, **options)


TABLES: Mapping[str, type[LocalTable | SshTable | AdbTable]] = {
    "local": LocalTable,
    "ssh": SshTable,
    "adb": AdbTable,
}


@dataclass(frozen=True)
class Definition:
    """One device of a devices.toml.

    Attributes:
        file: where it is defined.
        table: its keys, as written there.
        connect: makes a connection, which opens itself when it is used.
        has_python: Lathe's agent can run there.
        tools: paths of native tools by name, see ``Tools``.
    """

    name: str
    file: Path
    connection: str
    table: Mapping[str, Any]
    connect: Callable[[], Connection]
    has_python: bool
    emulated: bool
    note: str
    tools: Mapping[str, str]


def user_file() -> Path:
    """The user's devices.toml; the environment variable LATHE_DEVICES names another one."""
    chosen = os.environ.get("LATHE_DEVICES")
    return Path(chosen).absolute() if chosen else user_config_path("lathe", appauthor=False) / "devices.toml"


def project_file() -> Path:
    """The devices.toml of the current folder."""
    return Path("devices.toml").absolute()


def read_definitions() -> dict[str, Definition]:
    """All devices of both files by name, those of the project last; a file that is absent defines none.

    Raises:
        TargetError: a file cannot be read, or something in it is wrong.
    """
    return {**read_file(user_file()), **read_file(project_file())}


def read_file(path: Path) -> dict[str, Definition]:
    """The devices of one file by name.

    Raises:
        TargetError: naming file, device and key, or the line that is no TOML.
    """
    return parse_devices(_read(path), path)


def parse_devices(text: str, path: Path) -> dict[str, Definition]:
    """The devices in the text of a file.

    Raises:
        TargetError: as ``read_file``.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"{path} is not valid TOML", why=str(error), fix="mend that line") from error
    wrong = [_unknown(key, ["devices"]) for key in document if key != "devices"]
    tables = document.get("devices", {})
    if wrong or not isinstance(tables, dict):
        raise TargetError(
            f"{path} is not a list of devices",
            why="; ".join(wrong) or "devices is not a table",
            fix="begin each device with a line [devices.NAME]",
        )
    return {name: define(name, table, path) for name, table in tables.items()}


def define(name: str, table: object, path: Path) -> Definition:
    """One device from its table.

    Raises:
        TargetError: naming file, device and keys.
    """

    def refuse(*reasons: str) -> TargetError:
        return TargetError(
            f"{path}: device '{printable_name(name)}' is not well defined",
            why="\n     ".join(reasons),
            fix="correct that; docs/devices/connecting.md shows every key",
        )

    if name == "host":
        raise refuse("'host' is always the machine that Lathe runs on, with the Python that runs it")
    if not NAME.fullmatch(name):
        raise refuse("a name is made of letters, digits, '_', '.' and '-', and begins with a letter or digit")
    if not isinstance(table, dict):
        raise refuse("it is not a table of keys")
    kind = table.get("connection")
    others = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if not isinstance(kind, str) or kind not in {**TABLES, **others}:
        said = "missing" if kind is None else repr(kind)
        raise refuse(f"connection is {said}; known ones are {', '.join({**TABLES, **others})}")
    if kind not in TABLES:
        return _define_other(name, table, path, others[kind], refuse)
    try:
        checked = TABLES[kind].model_validate(table)
    except ValidationError as error:
        raise refuse(*_reasons(error, TABLES[kind])) from error
    base = path.parent
    return Definition(
        name=name,
        file=path,
        connection=kind,
        table=table,
        connect=lambda: checked.connect(base),
        has_python=checked.python is not None,
        emulated=checked.emulated,
        note=checked.note,
        tools=checked.tools.paths(base),
    )


def _define_other(
    name: str, table: dict[str, Any], path: Path, entry: EntryPoint, refuse: Callable[..., TargetError]
) -> Definition:
    """A device whose connection another distribution provides."""
    common = {key: value for key, value in table.items() if key in DeviceTable.model_fields}
    own = {key: value for key, value in table.items() if key not in DeviceTable.model_fields}
    try:
        checked = DeviceTable.model_validate(common)
    except ValidationError as error:
        raise refuse(*_reasons(error, DeviceTable)) from error
    try:
        factory: Callable[..., Connection] = entry.load()
        has_python = factory(**own).python is not None
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise refuse(f"connection '{entry.name}' ({entry.value}) does not take it: {error}") from error
    return Definition(
        name=name,
        file=path,
        connection=entry.name,
        table=table,
        connect=lambda: factory(**own),
        has_python=has_python,
        emulated=checked.emulated,
        note=checked.note,
        tools=checked.tools.paths(path.parent),
    )


def write_device(path: Path, name: str, table: Mapping[str, Any], *, replace: bool) -> Definition:
    """Write one device into a file, which keeps its comments and all else; atomically.

    Raises:
        TargetError: the device is there already and ``replace`` is false, the table or the file is wrong, or
            the file cannot be written.
    """
    import tomlkit
    from tomlkit.items import Table

    text = _read(path)
    known = parse_devices(text, path)
    if name in known and not replace:
        raise TargetError(
            f"{path} has a device '{name}' already",
            why=f"its connection is {known[name].connection}",
            fix="choose another name, or give --replace",
        )
    define(name, dict(table), path)
    document = tomlkit.parse(text)
    devices = document.setdefault("devices", tomlkit.table(is_super_table=True))
    if name not in devices:
        devices[name] = tomlkit.table() if isinstance(devices, Table) else tomlkit.inline_table()
    for key in set(devices[name]) - set(table):
        del devices[name][key]
    devices[name].update(table)
    result = tomlkit.dumps(document)
    definition = parse_devices(result, path)[name]
    _replace(path, result)
    return definition


def printable_name(name: str) -> str:
    """A name that may be anything, fit for a message."""
    return name if NAME.fullmatch(name) else repr(name)[1:-1]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise TargetError(
            f"{path} cannot be read", why=error.strerror or str(error), fix="make it a readable file"
        ) from error
    except UnicodeDecodeError as error:
        raise TargetError(f"{path} is not UTF-8 text", why=str(error), fix="save it as UTF-8") from error


def _replace(path: Path, text: str) -> None:
    """A whole new file in the place of the old, or of what a link there leads to."""
    final = path.resolve()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        mode = stat.S_IMODE(final.stat().st_mode) if final.exists() else 0o644
        descriptor, partial = tempfile.mkstemp(prefix=f".{final.name}.", dir=final.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            Path(partial).replace(final)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise TargetError(
            f"{path} cannot be written",
            why=error.strerror or str(error),
            fix="make its folder writable, or name another file by the environment variable LATHE_DEVICES",
        ) from error


def _reasons(error: ValidationError, model: type[DeviceTable]) -> list[str]:
    """What is wrong, key by key."""
    reasons = []
    for detail in error.errors():
        where = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "missing":
            reasons.append(f"{where} is missing")
        elif detail["type"] == "extra_forbidden":
            known = Tools.model_fields if len(detail["loc"]) > 1 else model.model_fields
            reasons.append(_unknown(str(detail["loc"][-1]), known, where))
        else:
            message = detail["msg"].removeprefix("Value error, ").replace("Input should", "it should")
            given = detail["input"]
            shown = f" (got {given!r})" if isinstance(given, str | int | float | list) else ""
            reasons.append(f"{where}: {message}{shown}" if where else message)
    return reasons


def _unknown(key: str, known: Iterable[str], where: str = "") -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"'{where or key}' is not a key{hint} (keys are {', '.join(known)})"


def _host_command(base: Path, words: tuple[str, ...]) -> tuple[str, ...]:
    """A command of this host, whose program is looked for in PATH unless it is a path."""
    program, *arguments = words
    return (_host_path(base, program) if "/" in program else program, *arguments)


def _host_path(base: Path, text: str) -> str:
    """A path of this host, absolute; links in it stay, since an environment's Python is one."""
    try:
        return str(base / Path(text).expanduser())
    except RuntimeError:  # the home of a user who does not exist
        return str(base / text)
