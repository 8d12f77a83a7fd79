"""Whether intervals hold: is the value of a ten times longer batch inside the interval of one batch?

python tools/bench/intervals.py [CASES] > intervals.json

Each round measures six models in one batch of the usual protocol and in one of ten times the launches, in
random order, so every round gives six cases.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from models import make_models

from devices.measurement import Measurement, MeasuringProtocol
from devices.measuring import Job, measure
from devices.target import Target

MODELS = ("c1", "c2", "c3", "c4", "c5", "c6")


def main(cases: int) -> None:
    usual = MeasuringProtocol()
    longer = replace(usual, launches=10 * usual.launches, max_launches=10 * usual.max_launches)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = make_models(Path(folder), MODELS)
        for number in range(-(-cases // len(MODELS))):
            runtime = list(files)[number % len(files)]
            jobs = [Job(name, files[runtime][name]) for name in MODELS]
            order = [usual, longer]
            random.Random(number).shuffle(order)
            found = {protocol: measure(jobs, Target("host", runtime), protocol) for protocol in order}
            for name in MODELS:
                short, long = found[usual][name], found[longer][name]
                assert isinstance(short, Measurement) and isinstance(long, Measurement)
                interval, truth = short.latency, long.latency
                rows.append(
                    {
                        "runtime": runtime,
                        "model": name,
                        "interval_ms": [interval.low_ns / 1e6, interval.high_ns / 1e6],
                        "stated_confidence": interval.confidence,
                        "long_value_ms": truth.value_ns / 1e6,
                        "long_interval_ms": [truth.low_ns / 1e6, truth.high_ns / 1e6],
                        "contains": interval.low_ns <= truth.value_ns <= interval.high_ns,
                        "miss": max(interval.low_ns - truth.value_ns, truth.value_ns - interval.high_ns, 0.0)
                        / truth.value_ns,
                        "verdict": short.verdict.value,
                    }
                )
            print(f"{len(rows)}/{cases} {sum(row['contains'] for row in rows)}", file=sys.stderr)
    document = {
        "cases": len(rows),
        "contained_share": sum(row["contains"] for row in rows) / len(rows),
        "stated_confidence_mean": sum(row["stated_confidence"] for row in rows) / len(rows),
        "worst_miss": max(row["miss"] for row in rows),
        "detail": rows,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
