"""Whether intervals hold for a later measurement.

python tools/bench/intervals.py FOLDER [MINUTES [NAME ...]]

For MINUTES (90), at random times, measures four models in one batch of five launches, the runtimes in turn,
and every eight minutes or so all of them in a batch of ten times the launches. FOLDER keeps the models and a
latency database, so the same command goes on after a stop; with 0 minutes it only judges what is there.
Processes of these NAMEs that are not its own are stopped while a batch runs, so that other work can go on
between batches.

A case is one model of a short batch and the first longer batch of it that began at least ten minutes later.
Printed as JSON: the share of narrow and of wide intervals that hold the longer batch's value, and their
median widths. A wide interval is made from what the database held before its batch began, and nothing later;
beside it stand the same without the part between days, and with the prior alone.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from alone import alone
from models import make_models

from devices.digests import file_digest
from devices.measurement import BetweenBatches, Measurement, MeasuringProtocol
from devices.measuring import Job, measure
from devices.target import Target
from latency_db.history import PRIOR, History, history_of
from latency_db.store import Store, Workload, open_store, records

MODELS = ("c1", "c2", "c3", "c4")
SHORT = MeasuringProtocol(max_launches=5)
LONG = replace(SHORT, launches=10 * SHORT.launches, max_launches=10 * SHORT.launches)
LATER_S = 600.0
GAPS_S = (40.0, 200.0)
LONG_EVERY_S = 480.0


def collect(folder: Path, minutes: float, stopped: Collection[str]) -> None:
    """Measure for so many minutes, with processes of these names stopped meanwhile."""
    files = make_models(folder, MODELS)
    clock = random.Random()
    end = time.monotonic() + 60 * minutes
    next_long = time.monotonic() + clock.uniform(0, LONG_EVERY_S)
    with open_store(str(folder / "latency.db")) as store:
        turn = 0
        while time.monotonic() < end:
            if time.monotonic() >= next_long:
                for runtime in clock.sample(list(files), len(files)):
                    with alone(stopped):
                        batch(store, files, runtime, LONG)
                next_long = time.monotonic() + clock.uniform(0.5, 1.5) * LONG_EVERY_S
            with alone(stopped):
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


def judge(folder: Path) -> dict[str, Any]:
    """Which intervals hold the value of the first longer batch that began ``LATER_S`` after their own."""
    with open_store(str(folder / "latency.db"), must_exist=True) as store:
        found = [
            (record.columns["workload"], outcome)
            for batch in records(store)
            for record in batch
            if isinstance(outcome := record.outcome, Measurement)
        ]
        history = history_of(store, found[0][1].device)
    begins = sorted({moment(outcome) for _, outcome in found})
    middle = begins[0] + (begins[-1] - begins[0]) / 2
    cases = []
    for workload, short in found:
        later = [
            outcome
            for other, outcome in found
            if other == workload
            and outcome.protocol.launches == LONG.launches
            and (moment(outcome) - moment(short)).total_seconds() >= LATER_S
        ]
        if short.protocol.launches == SHORT.launches and later:
            known = before(history, moment(short)).between
            cases.append(case(short, min(later, key=moment), known) | {"half": 1 + (moment(short) > middle)})
    return {
        "minutes": (begins[-1] - begins[0]).total_seconds() / 60,
        "batches": len(begins),
        "longer_batches_judging": len({each["later_at"] for each in cases}),
        "all": summary(cases),
        "first_half": summary([each for each in cases if each["half"] == 1]),
        "second_half": summary([each for each in cases if each["half"] == 2]),
        "cases": cases,
    }


def before(history: History, when: datetime) -> History:
    """What was known then."""
    return replace(
        history,
        batches=tuple(each for each in history.batches if each.started_at < when),
        repeats=tuple(each for each in history.repeats if each.moment < when),
    )


def case(short: Measurement, later: Measurement, between: BetweenBatches) -> dict[str, Any]:
    """One interval of each kind against one later value."""
    truth = later.latency.value_ns
    today = replace(between, day=replace(between.day, deviation=0.0))
    intervals = {
        "narrow": short.latency,
        "wide_without_days": today.around(short.latency),
        "wide": between.around(short.latency),
        "assumed": PRIOR.around(short.latency),
    }
    return {
        "target": short.target,
        "started_at": short.started_at,
        "later_at": later.started_at,
        "verdict": short.verdict.value,
        "value_ms": short.latency.value_ns / 1e6,
        "later_ms": truth / 1e6,
        "batches_seen": between.batch.seen,
        "deviation": between.deviation,
        **{
            name: {"holds": each.low_ns <= truth <= each.high_ns, "width": each.relative_width}
            for name, each in intervals.items()
        },
    }


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares that hold and median widths, by kind of interval."""
    kinds = ("narrow", "wide_without_days", "wide", "assumed")
    return {
        "cases": len(cases),
        "invalid": sum(each["verdict"] == "invalid" for each in cases),
        **{
            kind: {
                "held": sum(each[kind]["holds"] for each in cases),
                "held_share": statistics.fmean(each[kind]["holds"] for each in cases),
                "median_width": statistics.median(each[kind]["width"] for each in cases),
            }
            for kind in (kinds if cases else ())
        },
    }


def moment(measurement: Measurement) -> datetime:
    return datetime.fromisoformat(measurement.started_at)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    others = sys.argv[3:]
    if others:
        # The machine's lock is held outside of the measurement.
        os.environ["LATHE_STATE_DIR"] = str(place)
    collect(place, float(sys.argv[2]) if len(sys.argv) > 2 else 90.0, others)
    print(json.dumps(judge(place), indent=1))
