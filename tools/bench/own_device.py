"""How well a table predicts this machine, as JSON: ``python tools/bench/own_device.py [OPTIONS]``.

Builds the mobile space's table in a new database for each target and input, with the number of measured
workloads kept within ``--workloads`` (300), and times that, exports included; where measurements stay
invalid, the build goes on, up to three times. Then ``--networks`` (100) random networks that the model has
not seen are measured twice: share within 5 % and 10 %, mean absolute percentage error, Spearman, coverage of
the intervals, the noise ceiling by repeated measurements, and baselines. Then the vectorised model is timed
on a million architectures.

Options: ``--targets`` (both runtimes of the host, in fp32 and in int8), ``--inputs`` (32x32 96x96),
``--networks``, ``--workloads``, and ``--out FOLDER``: a file for each target and input, written as soon as
that one is finished. What has a file already is taken from it: the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from devices.measurement import MeasuringProtocol
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.store import open_store
from pipeline.progress import ConsoleReporter
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.space_table import SpaceTable, build
from pipeline.tables.prediction.vectorised import Decomposition, VectorisedModel
from pipeline.tables.spaces import find_space
from pipeline.tables.validation.table import verify
from pipeline.work.disk import write_atomically

TARGETS = ("host/onnxruntime:fp32@1", "host/litert:fp32@1", "host/onnxruntime:int8@1", "host/litert:int8@1")
ARCHITECTURES = 1_000_000
BUILDS = 3


def one(target: Target, shape: str, workloads: int, networks: int) -> dict[str, Any]:
    """All figures of one target and input."""
    space = find_space("mobile", shape, 10)
    calibration = min(workloads - len(space.distinct_blocks()), 60)
    with tempfile.TemporaryDirectory() as folder, open_store(f"{folder}/latency.db") as store:
        bench = Bench(store, MeasuringProtocol(), ConsoleReporter())
        started = time.perf_counter()
        for attempt in range(BUILDS):
            try:
                built = build(space, [target], bench, networks=calibration)[target]
                break
            except EstimateError:
                if attempt == BUILDS - 1:
                    raise
        build_s = time.perf_counter() - started
        verified = verify(space, target, built, bench, count=networks).to_json()
    model = built.model
    return {
        "input": shape,
        "blocks": len(built.table.rows),
        "failed_blocks": len(built.table.failed),
        "fitted_networks": model.fitted_networks,
        "build_s": round(build_s, 1),
        "scale": model.scale,
        "per_block_ns": model.per_block_ns,
        "fixed_ns": model.fixed_ns,
        "boundary_ns_per_byte": model.boundary_ns_per_byte,
        "weights_ns_per_byte": model.weights_ns_per_byte,
        "upper_factor": model.upper_factor,
        **verified,
        "architectures_per_s": round(per_second(shape, built)),
    }


def per_second(shape: str, built: SpaceTable) -> float:
    """Architectures estimated in a second."""
    decomposition = Decomposition(find_space("mobile", shape, 10))
    model = VectorisedModel(decomposition, built.model)
    indices = decomposition.sample(np.random.default_rng(0), ARCHITECTURES)
    started = time.perf_counter()
    model.values_ns(indices)
    return ARCHITECTURES / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--inputs", nargs="+", default=["32x32", "96x96"])
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--workloads", type=int, default=300)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = []
    for target in map(Target.parse, given.targets):
        for shape in given.inputs:
            name = "-".join([*re.findall(r"\w+", str(target)), shape])
            file = given.out and given.out / f"{name}.json"
            if file and file.exists():
                results.append(json.loads(file.read_bytes()))
                continue
            results.append(one(target, shape, given.workloads, given.networks))
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, json.dumps(results[-1], indent=1).encode())
    json.dump({"own_device": results}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
