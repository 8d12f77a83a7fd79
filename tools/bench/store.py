"""Speed of the latency database, as JSON: ``python tools/bench/store.py [OPTIONS]``.

Three parts, each in a new database in the folder for temporary files:

- ``rows``: ``--rows`` measurements (a million) are stored in batches, opening and look-ups are timed, then
  eight processes write for ``--seconds`` (60). Rows are what the default protocol gives for a block: five
  launches of a few hundred samples each. Those beyond the first 20 000 only fill the database and have one
  launch of ten samples, so that a million of them fit on a small disk.
- ``npz`` and ``csv``: ``--cells`` published latencies of twenty devices (a hundred million) are imported by a
  process of its own, whose memory is told. A hundred million take some 15 GB.

``--parts`` says which. With ``--out FOLDER`` each part leaves a file there as soon as it is finished, and one
that has a file is taken from it: the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from devices.measurement import (
    Conditions,
    DeviceIdentity,
    Launch,
    Measurement,
    MeasuringProtocol,
    RuntimeIdentity,
    Verdict,
)
from latency_db.errors import StoreError
from latency_db.published import import_table
from latency_db.store import Key, Workload, info, open_store
from pipeline.work.disk import write_atomically

RUNTIME = RuntimeIdentity("onnxruntime", "1.20.0", "ab" * 32, "fp32", 1)
DEVICE = DeviceIdentity("host", "some cpu", 2, "linux", "6.1", "machine-1")
PROTOCOL = MeasuringProtocol()
SAMPLES_PER_LAUNCH = 400
PARTS = ("rows", "npz", "csv")
BATCH = 500
BATCHED_ROWS = 20_000
LOOKUPS = 500
WRITERS = 8
DEVICES = [f"device {number}" for number in range(20)]
DECISIONS = 20


def measurement(generator: random.Random, samples: int, launches: int) -> Measurement:
    conditions = Conditions(0.1, 8 << 30, (2_000_000,), "performance", (45_000,), 0)
    drawn = tuple(
        Launch(
            process_start_ns=50_000_000,
            load_ns=10_000_000,
            first_inference_ns=300_000,
            samples_ns=tuple(int(60_000 * generator.lognormvariate(0, 0.05)) for _ in range(samples)),
            peak_memory_bytes=100 << 20,
            before=conditions,
            after=conditions,
        )
        for _ in range(launches)
    )
    started_at = "2025-01-01T00:00:00+00:00"
    target = "host/onnxruntime:fp32@1"
    return Measurement("cd" * 32, target, RUNTIME, DEVICE, PROTOCOL, drawn, Verdict.VALID, (), started_at)


def workload(row: object) -> Workload:
    return Workload.of("block", f"block {row}", row)


def elapsed_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1e3


def batched(count: int) -> Iterator[range]:
    for start in range(0, count, BATCH):
        yield range(start, min(start + BATCH, count))


def insert_batches(location: str, name: str, rows: int, outcomes: list[Measurement]) -> dict[str, int]:
    """Rows per second, each batch in one transaction; also of processor time, for a machine that is busy."""
    with open_store(location) as store:
        started, cpu_started = time.perf_counter(), time.process_time()
        for batch in batched(rows):
            store.add_all(
                [
                    (workload(f"{name} {row}"), RUNTIME, DEVICE, PROTOCOL, outcomes[row % len(outcomes)])
                    for row in batch
                ]
            )
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        return {"per_s": round(rows / seconds), "per_cpu_s": round(rows / cpu_seconds)}


def write_for(
    location: str, writer: int, seconds: float, results: multiprocessing.Queue[tuple[int, str]]
) -> None:
    outcome = measurement(random.Random(writer), SAMPLES_PER_LAUNCH, PROTOCOL.launches)
    rows = 0
    try:
        with open_store(location) as store:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                store.add(workload(f"writer {writer} {rows}"), RUNTIME, DEVICE, PROTOCOL, outcome)
                rows += 1
    except StoreError as error:
        results.put((rows, str(error)))
    else:
        results.put((rows, ""))


def write_at_once(location: str, seconds: float) -> dict[str, object]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    writers = [
        context.Process(target=write_for, args=(location, writer, seconds, results))
        for writer in range(WRITERS)
    ]
    with open_store(location) as store:
        before = store.count()
        for writer in writers:
            writer.start()
        said = [results.get() for _ in writers]
        for writer in writers:
            writer.join()
        stored = store.count() - before
    reported = sum(rows for rows, _ in said)
    return {
        "writers": WRITERS,
        "seconds": seconds,
        "rows": reported,
        "rows_per_s": round(reported / seconds, 1),
        "errors": [error for _, error in said if error],
        "lost": reported - stored,
    }


def open_ms(location: str) -> dict[str, float]:
    """Opening the store: in this process again, and for the first time in a new one, imports apart."""
    again = []
    for _ in range(20):
        started = time.perf_counter()
        open_store(location).close()
        again.append(elapsed_ms(started))
    code = (
        "import sys, time; from latency_db.store.store import open_store; started = time.perf_counter();"
        "open_store(sys.argv[1]); print((time.perf_counter() - started) * 1e3)"
    )
    command = [sys.executable, "-c", code, location]
    first = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(5)
    ]
    return {"again": round(statistics.median(again), 3), "first": round(statistics.median(first), 3)}


def lookups(location: str, rows: int) -> dict[str, float]:
    generator = random.Random(1)
    hits, misses = [], []
    with open_store(location) as store:
        for _ in range(LOOKUPS):
            known = workload(f"full {generator.randrange(min(rows, BATCHED_ROWS))}")
            key = Key.of(known, RUNTIME, DEVICE, PROTOCOL)
            started = time.perf_counter()
            assert store.find(key) is not None
            hits.append(elapsed_ms(started))
            unknown = workload(f"missing {generator.randrange(rows)}")
            key = Key.of(unknown, RUNTIME, DEVICE, PROTOCOL)
            started = time.perf_counter()
            assert store.find(key) is None
            misses.append(elapsed_ms(started))
    found = {}
    for name, times in (("hit", hits), ("miss", misses)):
        found |= {
            f"{name}_median": round(statistics.median(times), 3),
            f"{name}_p99": round(statistics.quantiles(times, n=100)[98], 3),
        }
    return found


def published(file: Path, cells: int) -> None:
    """Write a published table of noisy sums over the decisions of random architectures."""
    generator = np.random.default_rng(0)
    rows = cells // len(DEVICES)
    choices = generator.integers(0, 4, (rows, DECISIONS), np.uint8)
    parts_ms = generator.uniform(0.1, 1.0, (DECISIONS, 4, len(DEVICES)))
    latency_ms = np.zeros((rows, len(DEVICES)))
    for decision in range(DECISIONS):
        latency_ms += parts_ms[decision][choices[:, decision]]
    latency_ms *= generator.lognormal(0, 0.02, rows)[:, None]
    if file.suffix == ".npz":
        np.savez(file, latency_ms=latency_ms, device=np.array(DEVICES), arch_ops=choices)
        return
    with file.open("w") as stream:
        stream.write("architecture,device,latency_ms\n")
        for row, values in enumerate(latency_ms):
            name = "".join(map(str, choices[row]))
            stream.writelines(f"{name},{each},{ms:.6f}\n" for each, ms in zip(DEVICES, values, strict=True))


def import_published(location: str, file: Path, results: multiprocessing.Queue[dict[str, float]]) -> None:
    """In a process of its own, so that the most memory it ever had is what the import took."""
    with open_store(location) as store:
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, cpu_started = time.perf_counter(), time.process_time()
        added = import_table(store, file).added
        figures = {
            "cells": added,
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu_started,
        }
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        figures |= {"peak_memory_mb": peak_kb / 1e3, "memory_growth_mb": (peak_kb - before_kb) / 1e3}
        started = time.perf_counter()
        info(store)
        results.put({**figures, "info_seconds": time.perf_counter() - started})


def imports(folder: Path, suffix: str, cells: int) -> dict[str, float]:
    file, location = folder / f"published.{suffix}", folder / "latency.db"
    published(file, cells)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=import_published, args=(str(location), file, results))
    process.start()
    figures = results.get()
    process.join()
    figures["file_mb"] = file.stat().st_size / 1e6
    figures["database_mb"] = location.stat().st_size / 1e6
    return {name: round(value, 2) for name, value in figures.items()}


def stored(folder: Path, rows: int, seconds: float) -> dict[str, object]:
    generator = random.Random(0)
    full = [measurement(generator, SAMPLES_PER_LAUNCH, PROTOCOL.launches) for _ in range(20)]
    small = [measurement(generator, 10, 1) for _ in range(20)]
    location = str(folder / "latency.db")
    started = time.perf_counter()
    open_store(location).close()
    create_ms = elapsed_ms(started)
    full_rate = insert_batches(location, "full", min(rows, BATCHED_ROWS), full)
    bytes_per_row = Path(location).stat().st_size / min(rows, BATCHED_ROWS)
    small_rate = insert_batches(location, "small", max(0, rows - BATCHED_ROWS), small)
    return {
        "rows": rows,
        "samples_per_row": SAMPLES_PER_LAUNCH * PROTOCOL.launches,
        "bytes_per_row": round(bytes_per_row),
        "create_ms": round(create_ms, 3),
        "inserts": {"full_rows": full_rate, "small_rows": small_rate},
        "open_ms": open_ms(location),
        "find_ms": lookups(location, rows),
        "writers": write_at_once(location, seconds),
        "database_mb": round(Path(location).stat().st_size / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the latency database, as JSON.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cells", type=int, default=100_000_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    figures: dict[str, object] = {}
    for part in given.parts:
        file = given.out and given.out / f"{part}.json"
        if file and file.exists():
            figures[part] = json.loads(file.read_bytes())
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            figures[part] = (
                stored(folder, given.rows, given.seconds)
                if part == "rows"
                else imports(folder, part, given.cells)
            )
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(figures[part], indent=1).encode())
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
