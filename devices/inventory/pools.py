"""Pools: devices of one model that share out what there is to measure, under one name in targets.

In devices.toml::

    [pool.pixel8]
    members = ["pixel8-a", "pixel8-b"]

What can be told from the file is checked here; whether the members are of one model, and equally fast, is
seen when they are asked (``devices.measuring.agreement``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.errors import TargetError
from devices.inventory.devices_file import NAME, Definition, printable_name, read_definitions, read_files
from devices.inventory.entries import unknown_key
from devices.words import listed, nearest

MEMBERS = "members"


@dataclass(frozen=True)
class Pool:
    """A pool of a devices.toml; ``fault`` is what is wrong with its entry, if it cannot be used."""

    name: str
    file: Path
    members: tuple[str, ...]
    fault: TargetError | None = None


def read_pools() -> dict[str, Pool]:
    """All pools of both files by name, those of the project last. Members may be in either file.

    One that is called as a device has a fault, and harms neither that device nor other pools.

    Raises:
        TargetError: a file cannot be read, or is not a list of devices.
    """
    files = read_files()
    tables = {name: (file, table) for file in files for name, table in file.pools.items()}
    if not tables:
        return {}
    devices = read_definitions()
    taken = {"host", *devices}
    members = {name: _members(table) for name, (_, table) in tables.items()}
    pools = {}
    for name, (file, table) in tables.items():
        if name in taken:
            reasons = [f"a device is called '{name}' already"]
        else:
            # What an untrusted file says counts for its own pools alone.
            believed = [other for other in members if other not in taken and tables[other][0].fault is None]
            others = {other: members[other] for other in believed if other != name}
            reasons = [*_wrong_table(name, table), *_wrong_members(members[name], devices, others)]
        fault = file.fault or (_fault(name, file.path, reasons) if reasons else None)
        pools[name] = Pool(name, file.path, members[name], fault)
    return pools


def _members(table: object) -> tuple[str, ...]:
    """The members as far as they are names."""
    names = table.get(MEMBERS) if isinstance(table, dict) else None
    return tuple(each for each in names if isinstance(each, str)) if isinstance(names, list) else ()


def _fault(name: str, path: Path, reasons: Sequence[str]) -> TargetError:
    return TargetError(
        f"{path}: pool '{printable_name(name)}' is not well defined",
        why="\n     ".join(reasons),
        fix="correct that; docs/devices/connecting.md says what a pool is",
    )


def _wrong_table(name: str, table: Any) -> list[str]:
    """What is wrong with the entry itself."""
    if not NAME.fullmatch(name):
        return ["a name is made of letters, digits, '_', '.' and '-', and begins with a letter or digit"]
    if not isinstance(table, dict):
        return ["it is not a table of keys"]
    wrong = [unknown_key(key, [MEMBERS]) for key in table if key != MEMBERS]
    names = table.get(MEMBERS)
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        return [*wrong, 'members should be a list of names of devices, such as ["a", "b"]']
    if len(set(names)) < 2:
        wrong.append(f"it has {'one member' if names else 'no member'}: a pool has at least two")
    if len(set(names)) < len(names):
        wrong.append("a member is named twice")
    return wrong


def _wrong_members(
    names: Sequence[str], devices: Mapping[str, Definition], others: Mapping[str, Sequence[str]]
) -> list[str]:
    """What is wrong with the members, as far as the files tell; ``others`` are the members of other pools."""
    wrong = []
    known: dict[str, Definition] = {}
    remote = [name for name, device in devices.items() if device.connection != "local"]
    for each in dict.fromkeys(names):
        if elsewhere := [f"'{pool}'" for pool in others if each in others[pool]]:
            word = "pool" if len(elsewhere) == 1 else "pools"
            wrong.append(f"'{each}' is in the {word} {listed(elsewhere)} too")
        if each == "host" or (each in devices and devices[each].connection == "local"):
            wrong.append(f"'{each}' is this machine, which cannot be measured while it serves other members")
        elif each in others:
            wrong.append(f"'{each}' is a pool, and members are devices")
        elif each not in devices:
            known_ones = f"(known ones are {listed(remote) or 'none'})"
            wrong.append(f"there is no device '{each}'{nearest(each, remote)} {known_ones}")
        elif (fault := devices[each].fault) is not None:
            wrong.append(f"'{each}' cannot be used: {fault.why or fault.what}")
        else:
            known[each] = devices[each]
    traits: Mapping[str, Mapping[str, object]] = {
        "connection": {name: device.connection for name, device in known.items()},
        "python": {name: "given" if device.has_python else "none" for name, device in known.items()},
        "emulated": {name: device.emulated for name, device in known.items()},
        "tools": {name: dict(device.tools) for name, device in known.items()},
    }
    for trait, values in traits.items():
        if any(value != next(iter(values.values())) for value in values.values()):
            told = ", ".join(f"{value} of '{name}'" for name, value in values.items())
            wrong.append(f"its members are unlike, {trait} is {told}")
    return wrong
