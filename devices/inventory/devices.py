"""The devices that targets may name, alone or as a pool."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from devices.connections import Connection, LocalConnection
from devices.errors import LatheError, TargetError
from devices.inventory.devices_file import Definition, project_file, read_definitions, user_file
from devices.inventory.pools import Pool, read_pools
from devices.runtimes import Runtime, find_runtime
from devices.runtimes.base import Call, Event
from devices.target import Target
from devices.words import nearest

_ANSWER_S = 60.0


@dataclass(frozen=True)
class Device:
    """A machine by the name that targets use, and how to open a connection to it.

    Attributes:
        emulated: its processor is emulated, so that its times say nothing of a real one.
        has_python: Lathe's agent can run there.
        tools: paths of native tools by name: ``trtexec`` on the device; ``benchmark_model`` and
            ``onnxruntime_perf_test`` on this host, from which they are pushed.
        definition: what devices.toml says of it; ``None`` for ``host`` and for a pool.
    """

    name: str
    connect: Callable[[], Connection]
    emulated: bool = False
    has_python: bool = True
    tools: Mapping[str, str] = field(default_factory=dict, hash=False)
    definition: Definition | None = field(default=None, hash=False)


HOST = Device("host", LocalConnection)


def known_devices() -> tuple[Device, ...]:
    """All devices: ``host``, the machine that Lathe runs on, and those of devices.toml.

    One whose entry there is wrong is among them, with the ``fault`` in its definition.

    Raises:
        TargetError: a devices.toml cannot be read, or is not a list of devices.
    """
    return (HOST, *(_device(definition) for definition in read_definitions().values()))


def find_device(name: str) -> Device:
    """The device of that name. ``host`` is found whatever a devices.toml says.

    A pool is a device too, for what one machine has to do: its connection is to the first of its members that
    can be reached. ``members_of`` tells all of them.

    Raises:
        TargetError: no such device; the known ones are listed. Or its entry in devices.toml is wrong, or that
            file cannot be read.
    """
    if name == HOST.name:
        return HOST
    devices = {device.name: device for device in known_devices()}
    if (pool := find_pool(name)) is not None:
        first = devices[pool.members[0]]
        members = [devices[member].connect for member in pool.members]
        return Device(name, partial(_any_of, name, members), first.emulated, first.has_python, first.tools)
    if name in devices:
        device = devices[name]
        if device.definition is not None and device.definition.fault is not None:
            raise device.definition.fault
        return device
    known = list(dict.fromkeys((*devices, *read_pools())))
    raise TargetError(
        f"there is no device '{name}'",
        why=f"known devices are {', '.join(known)}{nearest(name, known)} "
        f"(others would be in {user_file()} or {project_file()})",
        fix="choose one of them, or see 'lathe devices add --help'",
    )


def known_pools() -> tuple[Pool, ...]:
    """All pools of devices.toml; one whose entry there is wrong is among them, with its ``fault``.

    Raises:
        TargetError: a devices.toml cannot be read, or is not a list of devices.
    """
    return tuple(read_pools().values())


def find_pool(name: str) -> Pool | None:
    """The pool of that name, if it is that of a pool; a device goes before a pool that is called as it.

    Raises:
        TargetError: its entry in devices.toml is wrong, or that file cannot be read.
    """
    pool = None if name == HOST.name else read_pools().get(name)
    if pool is None or name in read_definitions():
        return None
    if pool.fault is not None:
        raise pool.fault
    return pool


def members_of(name: str) -> tuple[str, ...]:
    """The devices that measure for a target with this device: the members of a pool, or it alone.

    Raises:
        TargetError: as ``find_pool``.
    """
    pool = find_pool(name)
    return (name,) if pool is None else pool.members


def _any_of(pool: str, members: Sequence[Callable[[], Connection]]) -> Connection:
    """An open connection to the first of them that can be reached."""
    reasons = []
    for connect in members:
        connection = connect()
        try:
            connection.run(("true",), timeout_s=_ANSWER_S)
        except LatheError as error:
            reasons.append(error.what)
            connection.close()
        else:
            return connection
    raise no_member_left(pool, reasons)


def no_member_left(pool: str, reasons: Sequence[str]) -> TargetError:
    """The error of a pool of which no member can be measured on, with what is wrong with each."""
    return TargetError(
        f"no member of the pool '{pool}' can be used",
        why="\n     ".join(reasons),
        fix=f"see what 'lathe devices check {pool}' says",
    )


def is_this_machine(name: str) -> bool:
    """Whether a device is the machine that Lathe runs on, by whatever name; not where nobody knows it."""
    if name == HOST.name:
        return True
    definition = read_definitions().get(name)
    return definition is not None and definition.connection == "local"


def _device(definition: Definition) -> Device:
    return Device(
        definition.name,
        definition.connect,
        definition.emulated,
        definition.has_python,
        definition.tools,
        definition,
    )


def runtime_of(target: Target) -> Runtime:
    """The runtime of a target, driven by the agent or, where there is no Python, by its makers' tool.

    The option ``native`` asks for that tool where there is Python too.

    Raises:
        TargetError: device or runtime unknown, precision or option unsupported.
    """
    device = find_device(target.device)
    runtime = find_runtime(target.runtime, native="native" in target.settings or not device.has_python)
    runtime.check(target)
    return runtime


def uses_accelerator(target: Target) -> bool:
    """Whether a target's options choose another place for the operations than the runtime's default, the CPU.

    Raises:
        TargetError: device or runtime unknown, precision or option unsupported.
    """
    runtime = runtime_of(target)
    return runtime.delegate(target) != runtime.delegate(replace(target, options=()))


def call_to(
    target: Target,
    connection: Connection,
    *,
    timeout_s: float,
    silence_s: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Call:
    """A call to a target over a connection, with the tools that devices.toml names for its device.

    Raises:
        TargetError: no such device.
    """
    tools = find_device(target.device).tools
    return Call(connection, target, timeout_s, silence_s, on_event, tools)


@contextlib.contextmanager
def connected(name: str, connection: Connection | None = None) -> Iterator[Connection]:
    """A connection to a device, closed at the end; one that is handed in is used instead, and stays open.

    Raises:
        TargetError: no such device.
    """
    device = find_device(name)
    if connection is not None:
        yield connection
        return
    with device.connect() as opened:
        yield opened
