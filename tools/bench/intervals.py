"""Whether intervals hold for a later measurement: ``python tools/bench/intervals.py FOLDER [MINUTES]``.

For MINUTES (90), at random times, measures four models in one batch of five launches, the runtimes in turn,
and every eight minutes or so all of them in a batch of ten times the launches. FOLDER keeps the models and a
latency database, so the same command goes on after a stop; with 0 minutes it only judges what is there.

A case is one model of a short batch and the first longer batch of it that began at least ten minutes later.
Printed as JSON: the share of narrow and of wide intervals that hold the longer batch's value, and their
median widths. A wide interval is made from what the database held before its batch began, and nothing later.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from models import make_models

from devices.digests import file_digest
from devices.measurement import Measurement, MeasuringProtocol
from devices.measuring import Job, measure
from devices.target import Target
from latency_db.store import Store, Workload, open_store

MODELS = ("c1", "c2", "c3", "c4")
SHORT = MeasuringProtocol(max_launches=5)
LONG = replace(SHORT, launches=10 * SHORT.launches, max_launches=10 * SHORT.launches)
LATER_S = 600.0
GAPS_S = (40.0, 200.0)
LONG_EVERY_S = 480.0


def collect(folder: Path, minutes: float) -> None:
    """Measure for so many minutes."""
    files = make_models(folder, MODELS)
    clock = random.Random()
    end = time.monotonic() + 60 * minutes
    next_long = time.monotonic() + clock.uniform(0, LONG_EVERY_S)
    with open_store(str(folder / "latency.db")) as store:
        turn = 0
        while time.monotonic() < end:
            if time.monotonic() >= next_long:
                for runtime in clock.sample(list(files), len(files)):
                    batch(store, files, runtime, LONG)
                next_long = time.monotonic() + clock.uniform(0.5, 1.5) * LONG_EVERY_S
            batch(store, files, list(files)[turn % len(files)], SHORT)
            turn += 1
            time.sleep(clock.uniform(*GAPS_S))


def batch(store: Store, files: dict[str, dict[str, Path]], runtime: str, protocol: MeasuringProtocol) -> None:
    """Measure the models in one batch, and store it."""
    jobs = [Job(name, files[runtime][name]) for name in MODELS]
    outcomes = measure(jobs, Target("host", runtime), protocol)
    entries = []
    for name, outcome in outcomes.items():
        assert isinstance(outcome, Measurement), outcome
        workload = Workload.of("network", name, file_digest(files[runtime][name]))
        entries.append((workload, outcome.runtime, outcome.device, protocol, outcome))
        print(f"{outcome.started_at} {protocol.launches} {runtime} {name} {outcome.latency}", file=sys.stderr)
    store.add_all(entries)


if __name__ == "__main__":
    collect(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 90.0)
