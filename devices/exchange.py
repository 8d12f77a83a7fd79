"""One exchange with the agent on a device: a request goes in, events come out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.connections import Completed, Connection
from devices.errors import MeasurementError
from devices.runtimes import Runtime
from devices.target import Target

AGENT = Path(__file__).parent / "agent" / "agent.py"

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """Everything that one agent said, and how its process ended; lines that are not events are left out."""

    events: tuple[Event, ...]
    ended: Completed

    def all(self, kind: str) -> list[Event]:
        """The events of one kind, in order."""
        return [event for event in self.events if event["event"] == kind]

    def only(self, kind: str) -> Event:
        """The one event of a kind.

        Raises:
            MeasurementError: there is none, or more; with how the process ended.
        """
        found = self.all(kind)
        if len(found) != 1:
            code, detail = describe_end(self.ended)
            raise MeasurementError(f"the agent gave no {kind} ({code})", why=detail)
        return found[0]


def exchange(
    connection: Connection,
    runtime: Runtime,
    target: Target,
    request: Mapping[str, Any],
    *,
    timeout_s: float,
    silence_s: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Reply:
    """Start a fresh agent, hand it a request, and collect its events until it ends.

    Raises:
        TargetError: the runtime, or Python, is not installed on the device.
    """
    events: list[Event] = []

    def read(line: str) -> None:
        event = _event(line)
        if event is not None:
            events.append(event)
            if on_event is not None:
                on_event(event)

    settings = {"threads": target.threads, "precision": target.precision, "options": target.options}
    engine, agent = connection.push(runtime.engine), connection.push(AGENT)
    message = {**request, "engine": engine, "settings": settings, "spawned_ns": time.monotonic_ns()}
    ended = connection.run(
        (*connection.python, agent),
        stdin=json.dumps(message).encode(),
        timeout_s=timeout_s,
        silence_s=silence_s,
        on_line=read,
    )
    reply = Reply(tuple(events), ended)
    for event in reply.all("fatal"):
        raise runtime.missing(target.device, str(event.get("detail", "")))
    return reply


def describe_end(ended: Completed) -> tuple[str, str]:
    """A machine-readable code for how a process ended without an answer, and the tail of its errors."""
    if ended.timed_out:
        code = "timeout"
    elif ended.returncode < 0:
        code = f"crashed-signal-{-ended.returncode}"
    elif ended.returncode > 0:
        code = f"crashed-exit-{ended.returncode}"
    else:
        code = "truncated-output"
    return code, ended.stderr_tail or "nothing was written on standard error"


def _event(line: str) -> Event | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("event"), str) else None
