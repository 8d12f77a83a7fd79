"""``lathe devices watch``: what the commands on this machine do with devices, as they tell it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from devices.errors import TargetError
from devices.inventory import is_this_machine, known_devices, known_pools
from devices.locking import Doing, LockState, doings_here, lock_state_here
from devices.words import listed
from pipeline.progress import duration

EVERY_S = 1.0


@dataclass(frozen=True)
class Watched:
    """One device: who of this machine has it and who waits for it.

    Attributes:
        lock: of this machine itself.
        fault: why it cannot be used as it is defined.
        members: of a pool, each of which is held for itself.
        is_pool: it is one.
    """

    name: str
    holders: tuple[Doing, ...] = ()
    waiting: tuple[Doing, ...] = ()
    lock: LockState | None = None
    fault: TargetError | None = None
    members: tuple[str, ...] = ()
    is_pool: bool = False

    @property
    def state(self) -> str:
        """What it is where nobody holds it."""
        if self.fault is not None:
            return f"cannot be used: {'; '.join(map(str.strip, self.fault.why.splitlines()))}"
        return f"pool of {listed(self.members)}" if self.is_pool else "free, as far as this machine knows"

    @property
    def held_by_others(self) -> str:
        """Who holds this machine without saying what for; empty where nobody does."""
        if self.lock is None or not self.lock.taken or self.holders:
            return ""
        return self.lock.holder.who if self.lock.holder is not None else "another program"


def watch_devices(*, once: bool, as_json: bool) -> None:
    """``lathe devices watch``; goes on until it is interrupted."""
    if as_json:
        while True:
            # Whole lines, also where the output is a pipe.
            sys.stdout.write(json.dumps(watched_json(look())) + "\n")
            sys.stdout.flush()
            if once:
                return
            time.sleep(EVERY_S)
    console = Console(highlight=False)
    if once or not console.is_terminal:
        typer.echo(watched_text(look(), datetime.now(UTC)))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(Text(watched_text(look(), datetime.now(UTC))), refresh=True)
            time.sleep(EVERY_S)


def look() -> list[Watched]:
    """All devices that devices.toml names or a command uses, in that order, and the pools.

    Raises:
        TargetError: a devices.toml cannot be read.
    """
    found = doings_here()
    definitions = {device.name: device.definition for device in known_devices()}
    devices = [
        Watched(
            name,
            tuple(each for each in found if each.device == name and each.holds),
            tuple(each for each in found if each.device == name and not each.holds),
            lock_state_here() if is_this_machine(name) else None,
            None if (definition := definitions.get(name)) is None else definition.fault,
        )
        for name in dict.fromkeys([*definitions, *(each.device for each in found)])
    ]
    pools = [
        Watched(pool.name, fault=pool.fault, members=pool.members, is_pool=True) for pool in known_pools()
    ]
    return devices + pools


def watched_json(devices: Sequence[Watched]) -> dict[str, object]:
    """One line of ``--json``."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "devices": [
            {
                "name": each.name,
                "fault": None if each.fault is None else str(each.fault),
                "held": [asdict(doing) for doing in each.holders],
                "held_by_others": each.held_by_others or None,
                "waiting": [asdict(doing) for doing in each.waiting],
            }
            for each in devices
            if not each.is_pool
        ],
        "pools": [
            {
                "name": each.name,
                "fault": None if each.fault is None else str(each.fault),
                "members": list(each.members),
            }
            for each in devices
            if each.is_pool
        ],
    }


def watched_text(devices: Sequence[Watched], at: datetime) -> str:
    """A line for each device, one for each command that waits for it, and one for each pool.

    Args:
        devices: all of them.
        at: the moment, from which durations are told.
    """
    width = max(len(each.name) for each in devices)
    lines = []
    for each in devices:
        holders = [_holder(doing, at) for doing in each.holders]
        if each.held_by_others:
            holders.append(f"held by {each.held_by_others}")
        for number, text in enumerate(holders or [each.state]):
            lines.append(f"{'' if number else each.name:{width}}  {text}")
        lines += [f"{'':{width}}  waiting: {_waiter(doing, at)}" for doing in each.waiting]
    return "\n".join(lines)


def _holder(doing: Doing, at: datetime) -> str:
    count = f"{doing.done}/{doing.total} launches" if doing.total else ""
    facts = (doing.what or "in use", count, f"for {_since(doing.since, at)}", _state(doing, at), doing.who)
    return ", ".join(filter(None, facts))


def _waiter(doing: Doing, at: datetime) -> str:
    why = doing.waiting_for or "the device has not answered yet"
    return f"{doing.who} for {_since(doing.since, at)}, with {doing.what or 'something else'}: {why}"


def _state(doing: Doing, at: datetime) -> str:
    """Temperature and battery, with how old that is."""
    heat, battery = doing.temperature_millicelsius, doing.battery_percent
    told = [] if heat is None else [f"{heat / 1000:.0f} °C"]
    if battery is not None:
        told.append(f"battery {battery} %{' (charging)' if doing.charging else ''}")
    return f"{' and '.join(told)} {_since(doing.read_at, at)} ago" if told else ""


def _since(moment: str, at: datetime) -> str:
    try:
        begun = datetime.fromisoformat(moment)
        return duration(max(0.0, (at - begun).total_seconds()))
    except (TypeError, ValueError):
        return "a time"
