"""How well a table predicts this machine, as JSON: ``python tools/bench/own_device.py FOLDER [OPTIONS]``.

Builds the mobile space's table for each target and input, with the number of measured workloads kept within
``--workloads`` (200), and times that, exports included; where measurements stay invalid, the build goes on,
up to three times. Not before ``--later`` (20) minutes after a table was finished, ``--networks`` (100) random
networks that its model has not seen are measured twice: share within 5 % and 10 %, mean absolute percentage
error, Spearman, coverage of the intervals, the noise ceiling by repeated measurements, and baselines. Then
the vectorised model is timed on a million architectures.

FOLDER keeps a latency database, which all tables share, and a file for each table and for each result, so
the same command goes on after a stop.

Further options: ``--targets`` (both runtimes of the host, in fp32 and in int8), ``--inputs`` (32x32, 48x48),
and ``--stop NAME ...``: processes of these names that are not its own are stopped while it measures, so that
other work can go on meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from alone import alone
from vectorised import Decomposition, VectorisedModel

from devices.measurement import MeasuringProtocol, Outcome
from devices.measuring import OtherLoad
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.store import open_store
from latency_db.tables import default_measurer
from pipeline.progress import ConsoleReporter
from pipeline.spaces.base import Space
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.space_table import SpaceTable, build
from pipeline.tables.spaces import find_space
from pipeline.tables.validation.table import verify
from pipeline.work.disk import write_atomically

TARGETS = ("host/onnxruntime:fp32@1", "host/litert:fp32@1", "host/onnxruntime:int8@1", "host/litert:int8@1")
ARCHITECTURES = 1_000_000
BUILDS = 3


class Alone:
    """The machine's measurer, with processes of some names stopped while it measures."""

    def __init__(self, names: Collection[str]) -> None:
        self._measurer, self._names = default_measurer(), names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._measurer, name)

    def measure(self, *given: Any, **options: Any) -> Mapping[str, Outcome]:
        with alone(self._names):
            return self._measurer.measure(*given, **options)

    def busy_with(self, device: str) -> OtherLoad:
        """As what is stopped would be quiet now, nobody waits for it."""
        with alone(self._names):
            return self._measurer.busy_with(device)


@dataclass(frozen=True)
class Study:
    """One target and input.

    Attributes:
        bench: where everything is measured and kept.
        folder: of the results.
    """

    bench: Bench
    folder: Path
    target: Target
    shape: str
    workloads: int

    @property
    def name(self) -> str:
        return "-".join([*re.findall(r"\w+", str(self.target)), self.shape])

    @property
    def space(self) -> Space:
        return find_space("mobile", self.shape, 10)

    def built(self) -> SpaceTable:
        """The table; what the database has of it is not measured again."""
        calibration = min(self.workloads - len(self.space.distinct_blocks()), 60)
        for attempt in range(BUILDS):
            try:
                return build(self.space, [self.target], self.bench, networks=calibration)[self.target]
            except EstimateError:
                if attempt == BUILDS - 1:
                    raise
        raise AssertionError

    def table(self) -> dict[str, Any]:
        """What it took, and when it was finished."""
        file = self.folder / "tables" / f"{self.name}.json"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            started = time.perf_counter()
            self.built()
            found = {"build_s": round(time.perf_counter() - started, 1), "finished_at": time.time()}
            write_atomically(file, json.dumps(found).encode())
        known: dict[str, Any] = json.loads(file.read_bytes())
        return known

    def result(self, networks: int, later_s: float) -> dict[str, Any]:
        """All figures; waits until the table is old enough."""
        file = self.folder / f"{self.name}.json"
        if not file.exists():
            table = self.table()
            time.sleep(max(table["finished_at"] + later_s - time.time(), 0.0))
            built, waited_s = self.built(), time.time() - table["finished_at"]
            verified = verify(self.space, self.target, built, self.bench, count=networks).to_json()
            model = built.model
            figures = {
                "input": self.shape,
                "blocks": len(built.table.rows),
                "failed_blocks": len(built.table.failed),
                "fitted_networks": model.fitted_networks,
                "build_s": table["build_s"],
                "verified_after_s": round(waited_s),
                "scale": model.scale,
                "per_block_ns": model.per_block_ns,
                "fixed_ns": model.fixed_ns,
                "boundary_ns_per_byte": model.boundary_ns_per_byte,
                "weights_ns_per_byte": model.weights_ns_per_byte,
                "upper_factor": model.upper_factor,
                "upper_factor_against_each_other": model.with_level(0.0).upper_factor,
                **verified,
                "architectures_per_s": round(per_second(self.shape, built)),
            }
            write_atomically(file, json.dumps(figures, indent=1).encode())
        known: dict[str, Any] = json.loads(file.read_bytes())
        return known


def per_second(shape: str, built: SpaceTable) -> float:
    """Architectures estimated in a second."""
    decomposition = Decomposition(find_space("mobile", shape, 10))
    model = VectorisedModel(decomposition, built.model)
    indices = decomposition.sample(np.random.default_rng(0), ARCHITECTURES)
    started = time.perf_counter()
    model.values_ns(indices)
    return ARCHITECTURES / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--inputs", nargs="+", default=["32x32", "48x48"])
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--workloads", type=int, default=200)
    parser.add_argument("--later", type=float, default=20.0)
    parser.add_argument("--stop", nargs="+", default=[])
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.stop:
        # The machine's lock is held outside of the measurement.
        os.environ["LATHE_STATE_DIR"] = str(given.folder.absolute())
    measurer = Alone(given.stop) if given.stop else default_measurer()
    with open_store(str(given.folder / "latency.db")) as store:
        bench = Bench(store, MeasuringProtocol(), ConsoleReporter(), measurer)
        studies = [
            Study(bench, given.folder, target, shape, given.workloads)
            for target in map(Target.parse, given.targets)
            for shape in given.inputs
        ]
        for study in studies:
            study.table()
        results = [study.result(given.networks, 60 * given.later) for study in studies]
    json.dump({"own_device": results}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
