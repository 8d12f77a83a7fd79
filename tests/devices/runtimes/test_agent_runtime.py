"""What the host makes of agents that say odd things."""

from __future__ import annotations

from pathlib import Path

from devices.connections import LocalConnection
from devices.runtimes.answers import MALFORMED
from devices.runtimes.base import Call, Event, Identify
from devices.target import Target
from tests.devices.hostile_runtime import hostile_runtime


def test_an_agent_that_talks_without_an_end_is_stopped_at_its_first_odd_event(tmp_path: Path) -> None:
    talking = tmp_path / "python"
    talking.write_text('#!/bin/sh\nexec yes \'{"event": "started", "job": -1}\'\n')
    talking.chmod(0o700)
    heard: list[Event] = []
    with LocalConnection((str(talking),)) as connection:
        call = Call(connection, Target("host", "hostile"), timeout_s=60, on_event=heard.append)
        reply = hostile_runtime().exchange(call, Identify())
    assert not reply.ended.timed_out
    assert reply.end[0] == MALFORMED
    assert list(reply.events) == heard
    assert len(heard) == 1
