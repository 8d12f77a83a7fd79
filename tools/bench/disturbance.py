"""How far disturbances move a headline, and whether the interval knows: batches beside hogs, and calm ones.

    python tools/bench/disturbance.py collect FOLDER [MINUTES]   # adds to what is there
    python tools/bench/disturbance.py judge FOLDER               # prints figures as JSON

A round measures three of seven models, drawn at random, in three batches: without hogs, beside hogs, without.
One to three hogs compute, move memory, or work and sleep by turns; they stay for the whole batch, or come
and go every few seconds. Hogs run where the bench does, so bind it to one core (``taskset -c 1``) to have
them take the processor from the models.

A case is one model in one batch. What it takes undisturbed is the median over all launches without hogs that
hardly waited for a processor; a case has moved by its headline over that. ``as_seen`` are intervals from the
launches alone, without what was seen beside them.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from models import make_models
from pydantic import TypeAdapter

from devices.measurement import Launch, Measurement, MeasuringProtocol, Verdict
from devices.measurement.headline import launch_interval
from devices.measuring import Comparison, Job, measure
from devices.target import Target

MOVED = 0.05
SHORT, LONG = ("c1", "c2", "c3", "c4"), ("c5", "c6", "c7")
HOGS = {
    "computing": "while True: pass",
    "memory": "import numpy as n\na = n.zeros(1 << 24)\nwhile True: a[:] = a + 1",
    "bursts": "import time as t\nwhile True:\n s = t.time()\n while t.time() < s + 5e-3: 0\n t.sleep(5e-3)",
}
PROTOCOL = MeasuringProtocol(launches=6, max_launches=6)
HARDLY = 0.02
"""Share of its time for which a launch may wait to count as undisturbed."""
LARGE = 8.0
"""A ratio that a comparison should be sure of under any load."""

_MEASUREMENT = TypeAdapter(Measurement)


@dataclass(frozen=True)
class Case:
    """One model in one batch."""

    model: tuple[str, str]
    hogs: tuple[str, ...]
    measurement: Measurement


@contextlib.contextmanager
def hogs(kinds: tuple[str, ...], steady: bool, clock: random.Random) -> Iterator[None]:
    """Hogs beside the body: all the time, or coming and going at moments that the generator draws."""
    over = threading.Event()

    def hog(code: str, own: random.Random) -> None:
        while not over.is_set():
            process = subprocess.Popen([sys.executable, "-c", code])
            over.wait(None if steady else own.uniform(0.2, 4.0))
            process.kill()
            process.wait()
            over.wait(own.uniform(0.2, 4.0))

    threads = [
        threading.Thread(target=hog, args=(HOGS[kind], random.Random(clock.random()))) for kind in kinds
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def collect(folder: Path, minutes: float) -> None:
    """Measure round after round for so many minutes."""
    files = make_models(folder / "models", SHORT + LONG)
    clock = random.Random()
    end = time.monotonic() + 60 * minutes
    with (folder / "rounds.jsonl").open("a") as out:
        while time.monotonic() < end:
            runtime = clock.choice(list(files))
            names = (*clock.sample(SHORT, 2), clock.choice(LONG))
            kinds = tuple(clock.choices(list(HOGS), k=clock.randint(1, 3)))
            steady = clock.random() < 0.5
            for beside in ((), kinds, ()):
                with hogs(beside, steady, clock) if beside else contextlib.nullcontext():
                    jobs = [Job(name, files[runtime][name]) for name in names]
                    outcomes = measure(jobs, Target("host", runtime), PROTOCOL)
                measured = {name: json.loads(_MEASUREMENT.dump_json(outcomes[name])) for name in names}
                out.write(json.dumps({"runtime": runtime, "hogs": beside, "measured": measured}) + "\n")
                out.flush()
                print(
                    f"{runtime} {beside} {[str(each.latency) for each in outcomes.values()]}", file=sys.stderr
                )


def judge(folder: Path) -> dict[str, Any]:
    """Which intervals hold what the models take undisturbed, and how wide they are."""
    batches = [read(json.loads(line)) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    usual = undisturbed([case for batch in batches for case in batch])
    found = [
        {
            "hogs": case.hogs,
            "model": case.model,
            "moved": case.measurement.latency.value_ns / usual[case.model],
            "verdict": case.measurement.verdict.value,
            "holds": measured.low_ns <= usual[case.model] <= measured.high_ns,
            "under": measured.high_ns < usual[case.model],
            "width": measured.relative_width,
            "as_seen": seen.low_ns <= usual[case.model] <= seen.high_ns,
        }
        for batch in batches
        for case in batch
        if case.model in usual
        for measured in [case.measurement.latency]
        for seen in [launch_interval(case.measurement.headlines_ns).widened(PROTOCOL.drift)]
    ]
    ratios = [
        each
        for batch in batches
        for one, other in permutations(batch, 2)
        for each in compared(one, other, usual)
    ]
    beside = [each for each in found if each["hogs"]]
    if not ratios:
        raise SystemExit(
            "no two models of a batch have launches without hogs that hardly waited: collect more"
        )
    return {
        "undisturbed_ms": {" ".join(model): value / 1e6 for model, value in sorted(usual.items())},
        "beside_hogs": summary(beside),
        "without_hogs": summary([each for each in found if not each["hogs"]]),
        "ratios": {
            "cases": len(ratios),
            "held": sum(each["holds"] for each in ratios),
            "as_seen_held": sum(each["as_seen"] for each in ratios),
            "median_width": statistics.median(each["width"] for each in ratios),
            "large": sum(each["ratio"] >= LARGE for each in ratios),
            "large_and_sure": sum(each["ratio"] >= LARGE and each["sure"] for each in ratios),
        },
        "cases": found,
    }


def read(row: dict[str, Any]) -> list[Case]:
    """The cases of a batch."""
    return [
        Case((row["runtime"], name), tuple(row["hogs"]), _MEASUREMENT.validate_python(content))
        for name, content in row["measured"].items()
    ]


def undisturbed(cases: list[Case]) -> dict[tuple[str, str], float]:
    """What models take undisturbed, nanoseconds, where at least six launches tell."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for case in cases:
        found[case.model] += [
            launch.quantile_ns(PROTOCOL.headline_quantile)
            for launch in case.measurement.launches
            if not case.hogs and waited(launch) <= HARDLY
        ]
    return {model: statistics.median(values) for model, values in found.items() if len(values) >= 6}


def waited(launch: Launch) -> float:
    assert launch.queue is not None
    return launch.queue.waiting_ns / sum(launch.samples_ns)


def compared(one: Case, other: Case, usual: dict[tuple[str, str], float]) -> Iterator[dict[str, Any]]:
    """The slower of two models over the faster, as a comparison gives it, beside hogs."""
    if not one.hogs or not {one.model, other.model} <= usual.keys() or usual[one.model] < usual[other.model]:
        return
    comparison = Comparison(other.measurement, one.measurement)
    ratio, true = comparison.ratio, usual[one.model] / usual[other.model]
    assert ratio is not None
    pairs = zip(one.measurement.headlines_ns, other.measurement.headlines_ns, strict=True)
    seen = launch_interval([mine / theirs for mine, theirs in pairs])
    yield {
        "ratio": true,
        "holds": ratio.low <= true <= ratio.high,
        "as_seen": seen.low_ns <= true <= seen.high_ns,
        "width": (ratio.high - ratio.low) / ratio.value,
        "sure": comparison.finding.value == "faster",
    }


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    if not found:
        return {"cases": 0}
    moved = [each for each in found if abs(each["moved"] - 1) > MOVED]
    return {
        "cases": len(found),
        "held": sum(each["holds"] for each in found),
        "as_seen_held": sum(each["as_seen"] for each in found),
        "upper_end_too_low": sum(each["under"] for each in found),
        "moved_by_more_than_5_percent": len(moved),
        "of_these_not_valid": sum(each["verdict"] != Verdict.VALID for each in moved),
        "of_these_held": sum(each["holds"] for each in moved),
        "farthest": max(each["moved"] for each in found),
        "invalid": sum(each["verdict"] == Verdict.INVALID for each in found),
        "median_width": statistics.median(each["width"] for each in found),
        "width_at_most_10_percent": sum(each["width"] <= 0.1 for each in found),
    }


if __name__ == "__main__":
    where = Path(sys.argv[2])
    where.mkdir(parents=True, exist_ok=True)
    if sys.argv[1] == "collect":
        collect(where, float(sys.argv[3]) if len(sys.argv) > 3 else 30.0)
    else:
        print(json.dumps(judge(where), indent=1))
