"""Speed of the latency database, as JSON: ``python tools/bench/store.py [ROWS]``.

Rows are what the default protocol gives for a block: five launches of a few hundred samples each.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from devices.measurement import (
    Conditions,
    DeviceIdentity,
    Launch,
    Measurement,
    MeasuringProtocol,
    RuntimeIdentity,
    Verdict,
)
from latency_db.keys import Key, Workload
from latency_db.store import open_store

RUNTIME = RuntimeIdentity("onnxruntime", "1.20.0", "ab" * 32, "fp32", 1)
DEVICE = DeviceIdentity("host", "some cpu", 2, "linux", "6.1", "machine-1")
PROTOCOL = MeasuringProtocol()
SAMPLES_PER_LAUNCH = 400


def measurement(generator: random.Random) -> Measurement:
    conditions = Conditions(0.1, 8 << 30, (2_000_000,), "performance", (45_000,), 0)
    launches = tuple(
        Launch(
            process_start_ns=50_000_000,
            load_ns=10_000_000,
            first_inference_ns=300_000,
            samples_ns=tuple(
                int(60_000 * generator.lognormvariate(0, 0.05)) for _ in range(SAMPLES_PER_LAUNCH)
            ),
            peak_memory_bytes=100 << 20,
            before=conditions,
            after=conditions,
        )
        for _ in range(PROTOCOL.launches)
    )
    started_at = "2025-01-01T00:00:00+00:00"
    target = "host/onnxruntime:fp32@1"
    return Measurement("cd" * 32, target, RUNTIME, DEVICE, PROTOCOL, launches, Verdict.VALID, (), started_at)


def elapsed_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


def main(rows: int = 1000) -> None:
    generator = random.Random(0)
    outcomes = [measurement(generator) for _ in range(20)]
    workloads = [Workload.of("block", f"block {row}", row) for row in range(rows)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latency.db"
        started = time.perf_counter()
        with open_store(str(path)) as store:
            create_ms = elapsed_ms(started)
            started = time.perf_counter()
            for row, workload in enumerate(workloads):
                store.add(workload, RUNTIME, DEVICE, PROTOCOL, outcomes[row % len(outcomes)])
            insert_s = elapsed_ms(started) / 1e3
        started = time.perf_counter()
        with open_store(str(path)) as store:
            open_ms = elapsed_ms(started)
            hits, misses = [], []
            for row in range(rows):
                key = Key.of(workloads[row], RUNTIME, DEVICE, PROTOCOL)
                started = time.perf_counter()
                assert store.find(key) == outcomes[row % len(outcomes)]
                hits.append(elapsed_ms(started))
                started = time.perf_counter()
                assert store.find(Key(key.protocol, key.runtime, key.device, key.workload)) is None
                misses.append(elapsed_ms(started))
        figures = {
            "rows": rows,
            "samples_per_row": SAMPLES_PER_LAUNCH * PROTOCOL.launches,
            "create_ms": create_ms,
            "open_ms": open_ms,
            "inserts_per_s": rows / insert_s,
            "find_hit_median_ms": statistics.median(hits),
            "find_miss_median_ms": statistics.median(misses),
            "bytes_per_row": path.stat().st_size / rows,
        }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
