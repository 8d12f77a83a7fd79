"""Whether disturbed measurements say so: 60 runs with hogs that start at random, 60 without, in random order.

python tools/bench/disturbance.py [RUNS] [LONGEST_S] > disturbance.json

A hog is a process that computes, or one that moves memory, without pause. One to four start at a random
moment, before or during the measurement, and stop after a random time of up to LONGEST_S (5) seconds. A run
has moved when its headline is more than 5 % from the median of the undisturbed runs of its model.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from models import make_models

from devices.measurement import Measurement, MeasuringProtocol, Verdict, quantile
from devices.measuring import Job, measure
from devices.target import Target

MOVED = 0.05
MODELS = ("c1", "c2", "c3", "c4", "c5")
HOGS = ("while True: pass", "import numpy as n\na = n.zeros(1 << 24)\nwhile True: a[:] = a + 1")


@contextlib.contextmanager
def hogs(generator: random.Random, longest_s: float) -> Iterator[None]:
    """Hogs that come and go beside the body, at moments that the generator draws."""
    plan = [
        (generator.uniform(-0.5, 1.5), generator.uniform(0.2, longest_s), generator.choice(HOGS))
        for _ in range(generator.randint(1, 4))
    ]
    over = threading.Event()

    def hog(delay_s: float, duration_s: float, code: str) -> None:
        if not over.wait(max(0.0, delay_s)):
            process = subprocess.Popen([sys.executable, "-c", code])
            over.wait(duration_s)
            process.kill()
            process.wait()

    threads = [threading.Thread(target=hog, args=each) for each in plan]
    for thread in threads:
        thread.start()
    time.sleep(0.5 if any(delay < 0 for delay, _, _ in plan) else 0.0)
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def main(count: int, longest_s: float) -> None:
    generator = random.Random(0)
    runs: list[tuple[str, str, bool, Measurement]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = make_models(Path(folder), MODELS)
        cases = [(runtime, name) for runtime in files for name in MODELS]
        plan = [(*cases[index % len(cases)], hogged) for index in range(count) for hogged in (False, True)]
        generator.shuffle(plan)
        for runtime, name, hogged in plan:
            with hogs(generator, longest_s) if hogged else contextlib.nullcontext():
                job = Job(name, files[runtime][name])
                outcome = measure([job], Target("host", runtime), MeasuringProtocol())[name]
            assert isinstance(outcome, Measurement), outcome
            runs.append((runtime, name, hogged, outcome))
            print(f"{len(runs)}/{len(plan)} {hogged} {outcome.latency} {outcome.verdict}", file=sys.stderr)
    calm: dict[tuple[str, str], list[float]] = {}
    for runtime, name, hogged, outcome in runs:
        if not hogged:
            calm.setdefault((runtime, name), []).append(outcome.latency.value_ns)
    rows = [
        {
            "runtime": runtime,
            "model": name,
            "hogs": hogged,
            "ratio": outcome.latency.value_ns / quantile(calm[runtime, name], 0.5),
            "launches": len(outcome.launches),
            "void": sum(launch.void is not None for launch in outcome.launches),
            "verdict": outcome.verdict.value,
            "reasons": [reason.code for reason in outcome.reasons],
        }
        for runtime, name, hogged, outcome in runs
    ]
    disturbed = [row for row in rows if row["hogs"]]
    moved = [row for row in disturbed if abs(row["ratio"] - 1) > MOVED]
    marked = [row for row in moved if row["verdict"] != Verdict.VALID]
    quiet = [row for row in rows if not row["hogs"]]
    document = {
        "runs_with_hogs": len(disturbed),
        "longest_hog_s": longest_s,
        "of_these_moved_by_more_than_5_percent": len(moved),
        "of_the_moved_marked_share": len(marked) / len(moved) if moved else None,
        "valid_with_hogs": sum(row["verdict"] == Verdict.VALID for row in disturbed),
        "worst_valid_ratio_with_hogs": max(
            (row["ratio"] for row in disturbed if row["verdict"] == Verdict.VALID), default=None
        ),
        "marked_without_hogs_share": sum(row["verdict"] != Verdict.VALID for row in quiet) / len(quiet),
        "detail": rows,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60, float(sys.argv[2]) if len(sys.argv) > 2 else 5.0)
