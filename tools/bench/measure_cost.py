"""What measuring costs: one 1 ms model from the command line, a batch of 100 small ones, and each inference.

    python tools/bench/measure_cost.py [BLOCKS] > measure_cost.json

The overhead of the agent per inference is the wall time of its timing loop over an empty model, minus that
of a bare loop which only reads the clock twice and appends, per turn; both are run in turns.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from models import make_models

import devices
from devices.measurement import Measurement, MeasuringProtocol, Verdict, quantile
from devices.measuring import Job, measure
from devices.target import Target

TURNS = 100_000


def command_line(artifact: Path, runtime: str) -> dict[str, object]:
    """Seconds of ``lathe profile`` on one model, start of Python included."""
    command = [Path(sys.executable).with_name("lathe"), "profile", artifact]
    start = time.perf_counter()
    ended = subprocess.run(
        [*command, "--target", f"host/{runtime}:fp32@1", "--json"], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - start
    verdicts = [result["verdict"] for result in json.loads(ended.stdout)["results"]]
    return {"runtime": runtime, "seconds": seconds, "verdicts": verdicts}


def batch(artifact: Path, runtime: str, count: int, folder: Path) -> dict[str, object]:
    """Seconds per model of a batch of so many small ones."""
    jobs = []
    for index in range(count):
        copy = folder / f"{index}{artifact.suffix}"
        shutil.copyfile(artifact, copy)
        jobs.append(Job(str(index), copy))
    start = time.perf_counter()
    outcomes = measure(jobs, Target("host", runtime), MeasuringProtocol())
    seconds = time.perf_counter() - start
    found = [outcome for outcome in outcomes.values() if isinstance(outcome, Measurement)]
    return {
        "runtime": runtime,
        "models": count,
        "seconds_per_model": seconds / count,
        "launches_per_model": sum(len(outcome.launches) for outcome in found) / count,
        "valid_share": sum(outcome.verdict is Verdict.VALID for outcome in found) / count,
    }


def overhead() -> dict[str, float]:
    """Nanoseconds per inference that the agent's loop adds to a bare one, and that a sample holds."""
    path = Path(devices.__file__).parent / "agent" / "agent.py"
    spec = importlib.util.spec_from_file_location("agent", path)
    assert spec is not None and spec.loader is not None
    agent = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(agent)
    gc.freeze()  # as the agent does before its first model
    protocol = {"min_count": TURNS, "min_ns": 0, "max_count": TURNS, "max_ns": 10**12}
    ours, bare, empty = [], [], []
    clock = time.perf_counter_ns
    for _ in range(7):
        start = clock()
        samples = agent.time_steadily(lambda: None, protocol)
        ours.append((clock() - start) / TURNS)
        empty.append(quantile(samples, 0.5))
        run, times = (lambda: None), []
        start = clock()
        for _turn in range(TURNS):
            before = clock()
            run()
            times.append(clock() - before)
        bare.append((clock() - start) / TURNS)
    return {
        "agent_loop_ns": quantile(ours, 0.5),
        "bare_loop_ns": quantile(bare, 0.5),
        "added_ns": quantile(ours, 0.5) - quantile(bare, 0.5),
        "inside_a_sample_ns": quantile(empty, 0.5),
    }


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_models(folder, ("c1", "c5"))
        document = {
            "one_model_of_1_to_2_ms": [command_line(files[runtime]["c5"], runtime) for runtime in files],
            "batch": [batch(files[runtime]["c1"], runtime, count, folder) for runtime in files],
            "overhead_per_inference": overhead(),
        }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
