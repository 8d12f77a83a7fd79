"""How much of a machine's drift the canary sees: ``python tools/bench/drift.py [ROUNDS] > drift.json``.

Each round measures the same six models on each runtime in a batch of the usual protocol, a minute or so apart
from the next. For each model: the standard deviation over the rounds of its log latency, as measured and
after division by the canary of its own batch (``Measurement.canary_ns``), which no other model has a part in.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

from models import make_models

from devices.measurement import Measurement, MeasuringProtocol
from devices.measuring import Job, measure
from devices.target import Target

MODELS = ("c1", "c2", "c3", "c4", "c5", "c6")
PAUSE_S = 20.0


def main(rounds: int) -> None:
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = make_models(Path(folder), MODELS)
        for number in range(rounds):
            for runtime in files:
                jobs = [Job(name, files[runtime][name]) for name in MODELS]
                for name, outcome in measure(jobs, Target("host", runtime), MeasuringProtocol()).items():
                    assert isinstance(outcome, Measurement) and outcome.canary_ns is not None
                    found.setdefault((runtime, name), []).append(
                        (outcome.latency.value_ns, outcome.canary_ns)
                    )
            print(f"{number + 1}/{rounds}", file=sys.stderr)
            time.sleep(PAUSE_S)
    rows = [
        {
            "runtime": runtime,
            "model": name,
            "latencies_ms": [latency / 1e6 for latency, _ in values],
            "canaries_ms": [canary / 1e6 for _, canary in values],
            "deviation": statistics.stdev(math.log(latency) for latency, _ in values),
            "deviation_corrected": statistics.stdev(math.log(latency / canary) for latency, canary in values),
        }
        for (runtime, name), values in found.items()
    ]
    summary = {
        key: statistics.fmean(row[key] for row in rows) for key in ("deviation", "deviation_corrected")
    }
    print(json.dumps({"rounds": rounds, **summary, "models": rows}, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
