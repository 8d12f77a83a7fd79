"""A farm of phones and boards, simulated; and a real database under the rate at which the farm writes.

    python -m tools.bench.farm simulate
    python -m tools.bench.farm load URL [--rate ROWS_PER_S] [--seconds 600]

``simulate`` tells by discrete events how long the tables of all devices take with 1, 4 and 16 hosts, and when
rows reach the database. A host exports every file once, with all its cores. Then each of its devices takes a
batch and is busy with it, the host takes processor time for what it is told, in the order of asking, and the
rows of the batch go to the database at once. Either each device has a table of its own, or those of a model
are a pool and share one. Nothing here ran on such a farm: the times that it starts from are in ``Farm``.

``load`` has processes, as many as hosts, write rows in batches to the empty database at URL, at a constant
rate in all; then every row that was reported as stored must be there, once and whole. JSON is on standard
output.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import multiprocessing
import random
import statistics
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from latency_db.store import Workload, check, open_store, records
from tools.bench.store import DEVICE, PROTOCOL, RUNTIME, SAMPLES_PER_LAUNCH, measurement

HOSTS = (1, 4, 16)
WINDOW_S = 10.0
"""Over which the highest rate is told."""


@dataclass(frozen=True)
class Farm:
    """What the simulation starts from.

    ``files`` and ``device_s`` are those of the tables at 96x96 on one machine (docs/results/accuracy.md),
    ``export_s`` and ``host_s`` of 24 blocks for ONNX Runtime, the latter over SSH, ``row_s`` of ``load`` with
    one writer. How fast the models of a farm are is assumed.

    Attributes:
        files: blocks and networks of a table, for each target of a device.
        targets: of a device, each with a format of its own.
        batch: files that are measured together.
        cores: of a host.
        export_s: processor seconds to export a file.
        device_s: seconds that machine is busy with a file, over all launches.
        fastest, slowest: how many times as long the models take, those between them in equal ratios.
        host_s: processor seconds of the host for a file.
        row_s: seconds that the database takes for a row, one after the other.
    """

    devices: int = 50
    models: int = 10
    files: int = 300
    targets: int = 2
    batch: int = 64
    cores: int = 2
    export_s: float = 0.36
    device_s: float = 0.94
    fastest: float = 1.0
    slowest: float = 8.0
    host_s: float = 0.076
    row_s: float = 0.012


class Resource:
    """So many servers, asked in order; for use in ``Events``."""

    def __init__(self, servers: int) -> None:
        self.free = servers
        self.waiting: deque[tuple[Process, float]] = deque()
        self.busy_s = 0.0


Process = Generator[tuple[Resource | None, float], None, None]
"""Yields what it uses and for how many seconds; nothing means that time only passes."""


class Events:
    """A clock that jumps from event to event."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Process, Resource | None]] = []
        self._ordinal = itertools.count()

    def begin(self, process: Process) -> None:
        """Start a process now."""
        self._advance(process)

    def run(self) -> None:
        """Until nothing happens any more."""
        while self._heap:
            self.now, _, process, used = heapq.heappop(self._heap)
            if used is not None:
                used.free += 1
                if used.waiting:
                    self._use(*used.waiting.popleft(), used)
            self._advance(process)

    def _advance(self, process: Process) -> None:
        asked = next(process, None)
        if asked is None:
            return
        used, seconds = asked
        if used is None:
            self._after(seconds, process, None)
        elif used.free:
            self._use(process, seconds, used)
        else:
            used.waiting.append((process, seconds))

    def _use(self, process: Process, seconds: float, used: Resource) -> None:
        used.free -= 1
        used.busy_s += seconds
        self._after(seconds, process, used)

    def _after(self, seconds: float, process: Process, used: Resource | None) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._ordinal), process, used))


def simulate(farm: Farm, hosts: int, *, pools: bool) -> dict[str, float]:
    """How long it takes and what the database bears.

    Args:
        farm: what to simulate.
        hosts: on which the devices are spread, those of a model together as far as that goes.
        pools: devices of a model share one table; else each has its own.

    Returns:
        ``hours``, ``rows``, ``rows_per_s`` on average and ``peak_rows_per_s`` over ``WINDOW_S``; the shares
        of time in which the hosts' cores and the database are busy.
    """
    events, database = Events(), Resource(1)
    cores = [Resource(farm.cores) for _ in range(hosts)]
    stored: list[tuple[float, int]] = []
    tables: dict[int, int] = {}
    """Files that are left, by what shares them."""

    def host(number: int, own: list[int]) -> Process:
        seconds = farm.export_s * farm.files * farm.targets / farm.cores
        exports = [export(number, seconds) for _ in range(farm.cores)]
        for each in exports:
            events.begin(each)
        yield None, 0.0
        yield cores[number], 0.0  # Free when the exports are done.
        for each in own:
            events.begin(device(number, each))

    def export(number: int, seconds: float) -> Process:
        yield cores[number], seconds

    def device(number: int, own: int) -> Process:
        model = own * farm.models // farm.devices
        pace = farm.fastest * (farm.slowest / farm.fastest) ** (model / max(1, farm.models - 1))
        table = model if pools else own
        while count := min(farm.batch, tables[table]):
            tables[table] -= count
            yield None, count * farm.device_s * pace
            yield cores[number], count * farm.host_s
            yield database, count * farm.row_s
            stored.append((events.now, count))

    owners = farm.models if pools else farm.devices
    tables.update(dict.fromkeys(range(owners), farm.files * farm.targets))
    for number in range(hosts):
        own = [each for each in range(farm.devices) if each * hosts // farm.devices == number]
        events.begin(host(number, own))
    events.run()
    windows: Counter[int] = Counter()
    for moment, count in stored:
        windows[int(moment // WINDOW_S)] += count
    rows = sum(windows.values())
    assert rows == owners * farm.files * farm.targets
    return {
        "hours": events.now / 3600,
        "rows": rows,
        "rows_per_s": rows / events.now,
        "peak_rows_per_s": max(windows.values()) / WINDOW_S,
        "hosts_busy": sum(each.busy_s for each in cores) / (events.now * hosts * farm.cores),
        "database_busy": database.busy_s / events.now,
    }


def load(url: str, *, rate: float, seconds: float, writers: int, batch: int) -> dict[str, Any]:
    """Processes write to a database at a constant rate in all; what was stored, lost and damaged.

    Args:
        url: of an empty database.
        rate: rows per second, of all writers.
        seconds: how long.
        writers: how many processes.
        batch: rows that a writer stores one after the other, as when a batch was measured.
    """
    open_store(url).close()
    context = multiprocessing.get_context("spawn")
    with context.Pool(writers) as pool:
        written = pool.starmap(
            _write, [(url, name, rate / writers, seconds, batch) for name in range(writers)]
        )
    took_ms = sorted(each for _, some, _ in written for each in some)
    reported = {description for descriptions, *_ in written for description in descriptions}
    longest_s = max(seconds, *(took_s for *_, took_s in written))
    with open_store(url, must_exist=True) as store:
        found = Counter(each.parts["workload"]["description"] for part in records(store) for each in part)
        problems = check(store).problems
    return {
        "asked_rows_per_s": rate,
        "rows_per_s": len(reported) / longest_s,
        "seconds": longest_s,
        "writers": writers,
        "rows": len(reported),
        "lost": len(reported - found.keys()),
        "twice": sum(count > 1 for count in found.values()),
        "problems": [str(each) for each in problems],
        "median_ms": statistics.median(took_ms),
        "in_99_of_100_ms": took_ms[int(0.99 * (len(took_ms) - 1))],
        "longest_ms": took_ms[-1],
    }


def _write(
    url: str, name: int, rate: float, seconds: float, batch: int
) -> tuple[list[str], list[float], float]:
    """Store rows as their time comes; their names, how many milliseconds each took, and seconds in all."""
    outcome = measurement(random.Random(name), SAMPLES_PER_LAUNCH, PROTOCOL.launches)
    names: list[str] = []
    took_ms: list[float] = []
    with open_store(url) as store:
        began = time.monotonic()
        for number, due_s in enumerate(_moments(rate, seconds, batch)):
            time.sleep(max(0.0, began + due_s - time.monotonic()))
            before = time.perf_counter()
            workload = Workload.of("block", f"writer {name}, row {number}", [name, number])
            store.add(workload, RUNTIME, DEVICE, PROTOCOL, outcome)
            took_ms.append((time.perf_counter() - before) * 1e3)
            names.append(workload.description)
        took_s = time.monotonic() - began
    return names, took_ms, took_s


def _moments(rate: float, seconds: float, batch: int) -> Iterator[float]:
    """When rows are due: a batch together."""
    count = int(rate * seconds)
    for number in range(count):
        yield (number // batch + 1) * batch / rate - batch / rate


def main() -> None:
    """Simulate or load."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("simulate")
    loading = commands.add_parser("load")
    loading.add_argument("url")
    loading.add_argument("--rate", type=float, default=100.0, help="rows per second in all")
    loading.add_argument("--seconds", type=float, default=600.0)
    loading.add_argument("--writers", type=int, default=16)
    given = parser.parse_args()
    farm = Farm()
    if given.command == "load":
        found = load(
            given.url, rate=given.rate, seconds=given.seconds, writers=given.writers, batch=farm.batch
        )
    else:
        found = {
            "starts_from": asdict(farm),
            "simulated": {
                "a table for each device": {hosts: simulate(farm, hosts, pools=False) for hosts in HOSTS},
                "a table for each model, shared by its pool": {
                    hosts: simulate(farm, hosts, pools=True) for hosts in HOSTS
                },
            },
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
