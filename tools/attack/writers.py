"""Processes that write to one database at once for some time, of which now and then one is killed.

Every row that ``add`` has reported must be there in the end, once and whole.
"""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from latency_db.store import Workload, check, open_store, records
from tools.attack.samples import DEVICE, PROTOCOL, RUNTIME, measurement

_KILL_EVERY_S = 5.0


class _Writer:
    """A process that writes, and says on a pipe what is stored."""

    def __init__(self, location: str, name: int) -> None:
        self.said, writer = os.pipe()
        self._rest = b""
        self._pid = os.fork()
        if self._pid == 0:
            _write(location, name, writer)
        os.close(writer)

    def rows(self) -> set[str]:
        """Rows that were reported since the last call."""
        *lines, self._rest = (self._rest + os.read(self.said, 1 << 16)).split(b"\n")
        return {line.decode() for line in lines}

    def end(self) -> set[str]:
        """Kill it; the rows that it had reported."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        rows: set[str] = set()
        while found := self.rows():
            rows |= found
        os.close(self.said)
        return rows


def writers(
    location: str, count: int, seconds: float, seed: int, on_progress: Callable[[str], None]
) -> dict[str, Any]:
    """So many processes write to a database; counts, and rows that are missing or damaged.

    Args:
        location: path or URL of an empty database.
        count: of processes.
        seconds: for which they write.
        seed: decides which of them are killed.
        on_progress: called with a line now and then.
    """
    open_store(location).close()
    chosen, names = random.Random(f"{seed} writers"), iter(range(1_000_000))
    living = [_Writer(location, next(names)) for _ in range(count)]
    stored: set[str] = set()
    kills, began = 0, time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        ready, _, _ = select.select([each.said for each in living], [], [], 0.5)
        stored |= {row for each in living if each.said in ready for row in each.rows()}
        if now - began > _KILL_EVERY_S * (kills + 1):
            stored |= living.pop(chosen.randrange(len(living))).end()
            living.append(_Writer(location, next(names)))
            kills += 1
            on_progress(f"{len(stored)} rows, {kills} kills")
    for each in living:
        stored |= each.end()
    with open_store(location, must_exist=True) as store:
        found = [each.parts["workload"]["description"] for batch in records(store) for each in batch]
        problems = check(store).problems
    return {
        "writers": count,
        "seconds": round(seconds),
        "kills": kills,
        "stored": len(stored),
        "lost": len(stored - set(found)),
        "twice": len(found) - len(set(found)),
        "problems": list(problems),
    }


def _write(location: str, name: int, said: int) -> None:
    code = 1
    try:
        with open_store(location) as store:
            for row in range(10_000_000):
                text = f"{name}/{row}"
                store.add(
                    Workload.of("block", text, text), RUNTIME, DEVICE, PROTOCOL, measurement(1000 + row)
                )
                os.write(said, f"{text}\n".encode())
    finally:
        os._exit(code)
