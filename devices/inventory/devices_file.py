"""devices.toml: which devices there are besides this machine, and how each is reached.

``devices.inventory.pools`` reads the pools in it.

There may be one for the user and one in the current folder, which counts only where the user trusts it: its
programs are started. Of two devices with one name that of the folder counts. Relative paths on this host are
taken from the folder of the file, ``~`` is the user's home. The keys are the fields of the tables below;
docs/devices/connecting.md shows them at work.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_config_path
from pydantic import ValidationError

from devices.added import added
from devices.connections import Connection
from devices.errors import TargetError
from devices.inventory.entries import TABLES, DeviceTable, reasons_of, unknown_key
from devices.trust import is_trusted, trust
from devices.untrusted import MOST_TOML_BYTES, file_bytes, toml_from
from devices.words import cause_of

_ignored: set[Path] = set()

ENTRY_POINTS = "lathe.connections"
"""Group of entry points by which other distributions add kinds of connections.

The name of an entry is what ``connection`` says in devices.toml. What it loads is called with the table's
other keys as keyword arguments (but ``emulated``, ``note`` and ``tools``, which every device may have), and
returns a ``Connection``, so that the class of a connection will do. It must not open the connection yet; what
is wrong with a key it says by TypeError or ValueError.
"""

SECTIONS = ("devices", "pool")
"""The tables that a file may hold: of devices by name, and of pools of them by name."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Names that a target can hold."""


@dataclass(frozen=True)
class Definition:
    """One device of a devices.toml.

    Attributes:
        file: where it is defined.
        table: its keys, as written there.
        connect: makes a connection, which opens itself when it is used.
        has_python: Lathe's agent can run there.
        tools: paths of native tools by name, see ``devices.inventory.entries.Tools``.
        fault: what is wrong with the entry, of one that cannot be used; its ``connect`` raises it.
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
    fault: TargetError | None = None


def user_file() -> Path:
    """The user's devices.toml; the environment variable LATHE_DEVICES names another one."""
    chosen = os.environ.get("LATHE_DEVICES")
    return Path(chosen).absolute() if chosen else user_config_path("lathe", appauthor=False) / "devices.toml"


def project_file() -> Path:
    """The devices.toml of the current folder."""
    return Path("devices.toml").absolute()


@dataclass(frozen=True)
class DevicesFile:
    """What one devices.toml says; ``fault`` is why nothing in it can be used, as it is not trusted."""

    path: Path
    devices: Mapping[str, Any]
    pools: Mapping[str, Any]
    fault: TargetError | None = None

    def definitions(self) -> dict[str, Definition]:
        """Its devices by name; one whose entry is wrong has a ``fault``, and harms no other."""
        if self.fault is not None:
            return {name: _faulty(name, table, self.path, self.fault) for name, table in self.devices.items()}
        return {name: _define_or_blame(name, table, self.path) for name, table in self.devices.items()}


def read_files() -> tuple[DevicesFile, ...]:
    """The user's file and that of the current folder, as far as they are there.

    Raises:
        TargetError: a file cannot be read, or is not a list of devices.
    """
    user, project = user_file(), project_file()
    contents = [(user, _content(user)), *([] if _passed_over(project) else [(project, _content(project))])]
    found = []
    for path, content in contents:
        if content is None:
            continue
        text = _text(content, path)
        trusted = path == user or is_trusted(path, content)
        found.append(_parse(text, path, None if trusted else _untrusted(path)))
    return tuple(found)


def read_definitions() -> dict[str, Definition]:
    """All devices of both files by name, those of the project last; a file that is absent defines none.

    Raises:
        TargetError: a file cannot be read, or is not a list of devices.
    """
    return {name: found for file in read_files() for name, found in file.definitions().items()}


def ignore_project_file_in(folder: Path) -> None:
    """Never read a devices.toml in this folder or below it again, as long as this process lives."""
    _ignored.add(folder.resolve())


def trust_project_file() -> tuple[Path, dict[str, Definition]]:
    """Trust the devices.toml of the current folder as it is now; returns it with the devices in it.

    Raises:
        TargetError: it is not there or wrong, or the list of trusted files cannot be written.
    """
    path = project_file()
    content = _content(path)
    if content is None:
        raise TargetError(
            f"there is no {path}", why="a folder's devices are trusted in that folder", fix="go there first"
        )
    found = parse_devices(_text(content, path), path)
    trust(path, hashlib.sha256(content).hexdigest())
    return path, found


def _passed_over(path: Path) -> bool:
    """Whether the devices.toml of the current folder is the user's own, or is never to be read."""
    return path == user_file() or any(path.resolve().is_relative_to(folder) for folder in _ignored)


def _untrusted(path: Path) -> TargetError:
    return TargetError(
        f"{path} is not trusted",
        why="a devices.toml names programs that Lathe starts, and this one is new or was changed",
        fix="look at it, then run 'lathe devices trust' in its folder",
    )


def read_file(path: Path) -> dict[str, Definition]:
    """The devices of one file by name; one whose entry is wrong has a ``fault``, and harms no other.

    Raises:
        TargetError: naming the file, and the line that is no TOML.
    """
    content = _content(path)
    return {} if content is None else parse_devices(_text(content, path), path)


def parse_devices(text: str, path: Path) -> dict[str, Definition]:
    """The devices in the text of a file.

    Raises:
        TargetError: as ``read_file``.
    """
    return _parse(text, path).definitions()


def _parse(text: str, path: Path, fault: TargetError | None = None) -> DevicesFile:
    try:
        document = toml_from(text)
    except ValueError as error:
        raise TargetError(
            f"{path} is not valid TOML", why=cause_of(error), fix="correct that line"
        ) from error
    wrong = [unknown_key(key, SECTIONS) for key in document if key not in SECTIONS]
    sections = [document.get(section, {}) for section in SECTIONS]
    wrong += [
        f"{name} is not a table"
        for name, section in zip(SECTIONS, sections, strict=True)
        if not isinstance(section, dict)
    ]
    if wrong:
        raise TargetError(
            f"{path} is not a list of devices",
            why="; ".join(wrong),
            fix="begin each device with a line [devices.NAME], and each pool with [pool.NAME]",
        )
    devices, pools = sections
    return DevicesFile(path, devices, pools, fault)


def _define_or_blame(name: str, table: object, path: Path) -> Definition:
    try:
        return define(name, table, path)
    except TargetError as error:
        return _faulty(name, table, path, error)


def _faulty(name: str, table: object, path: Path, fault: TargetError) -> Definition:
    def connect() -> Connection:
        raise fault

    return Definition(
        name=name,
        file=path,
        connection="",
        table=table if isinstance(table, dict) else {},
        connect=connect,
        has_python=False,
        emulated=False,
        note="",
        tools={},
        fault=fault,
    )


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
    others = {entry.name: entry for entry in added(ENTRY_POINTS)}
    if not isinstance(kind, str) or kind not in {**TABLES, **others}:
        said = "missing" if kind is None else repr(kind)
        raise refuse(f"connection is {said}; known ones are {', '.join({**TABLES, **others})}")
    if kind not in TABLES:
        return _define_other(name, table, path, others[kind], refuse)
    try:
        checked = TABLES[kind].model_validate(table)
    except ValidationError as error:
        raise refuse(*reasons_of(error, TABLES[kind])) from error
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
        raise refuse(*reasons_of(error, DeviceTable)) from error
    try:
        factory: Callable[..., Connection] = entry.load()
        has_python = factory(**own).python is not None
    except (Exception, SystemExit) as error:  # the distribution is somebody's own, and may raise anything
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
        TargetError: the device is there already and ``replace`` is false, a pool has its name, the table or
            the file is wrong, or the file cannot be written.
    """
    with _alone(path):
        content = _content(path)
        text = "" if content is None else _text(content, path)
        known = parse_devices(text, path)
        if name in known and not replace:
            raise TargetError(
                f"{path} has a device '{name}' already",
                why=f"its connection is {known[name].connection or 'not well defined'}",
                fix="choose another name, or give --replace",
            )
        pools = {each: file.path for file in read_files() for each in file.pools}
        if name in pools and name not in known:
            raise TargetError(
                f"{pools[name]} has a pool '{name}' already",
                why="targets name devices and pools alike",
                fix="choose another name, or rename the pool in that file",
            )
        define(name, dict(table), path)
        result = _with_device(text, name, table)
        definition = parse_devices(result, path)[name]
        _replace(path.resolve(), result)
        if path != user_file() and (content is None or is_trusted(path, content)):
            trust(path, hashlib.sha256(result.encode()).hexdigest())
    return definition


def _with_device(text: str, name: str, table: Mapping[str, Any]) -> str:
    """The text of a file with one device more, or changed; its comments and all else stay."""
    import tomlkit
    from tomlkit.items import Table

    document = tomlkit.parse(text)
    devices = document.setdefault("devices", tomlkit.table(is_super_table=True))
    if not isinstance(devices.get(name), dict):
        devices.pop(name, None)
        devices[name] = tomlkit.table() if isinstance(devices, Table) else tomlkit.inline_table()
    for key in set(devices[name]) - set(table):
        del devices[name][key]
    devices[name].update(table)
    return tomlkit.dumps(document)


def printable_name(name: str) -> str:
    """A name that may be anything, fit for a message."""
    return name if NAME.fullmatch(name) else repr(name)[1:-1]


def _content(path: Path) -> bytes | None:
    """The bytes of a file; ``None`` if there is none."""
    try:
        return file_bytes(path, MOST_TOML_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TargetError(
            f"{path} cannot be read", why=error.strerror or str(error), fix="make it a readable file"
        ) from error
    except ValueError as error:
        raise TargetError(f"{path} cannot be read", why=str(error), fix="make it a readable file") from error


def _text(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TargetError(f"{path} is not UTF-8 text", why=str(error), fix="save it as UTF-8") from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Change a file: of two processes that do so at once, one would undo what the other did.

    One lock in the user's folder stands for all files, so that none is left in a project.

    Raises:
        TargetError: it cannot be written.
    """
    lock = user_config_path("lathe", appauthor=False) / ".devices.toml.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            yield
    except OSError as error:
        raise TargetError(
            f"{path} cannot be written",
            why=error.strerror or str(error),
            fix="make its folder writable, or name another file by the environment variable LATHE_DEVICES",
        ) from error


def _replace(final: Path, text: str) -> None:
    """A whole new file in the place of the old.

    Raises:
        OSError: it cannot be written.
    """
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
