"""What is wanted on several targets: exported once, and measured on all devices at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from devices.measurement import DeviceIdentity, Measurement, MeasuringProtocol, Outcome, RuntimeIdentity
from devices.measuring import Job
from devices.target import Target
from latency_db.store import Workload, open_store
from pipeline.progress import SilentReporter
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.measuring import ModuleWorkload, look_up, measure
from tests.made_up_measurer import MadeUpMeasurer, exported_to

BOARDS = tuple(Target(f"board{number}", "onnxruntime") for number in range(3))
WANTED = [
    ModuleWorkload(Workload.of("block", f"block {number}", {"number": number}), nn.Identity, (1, 8, 8))
    for number in range(40)
]


@dataclass
class Meeting(MadeUpMeasurer):
    """Begins when all boards want to."""

    all_there: threading.Barrier = field(default_factory=lambda: threading.Barrier(len(BOARDS), timeout=60))

    def probe(self, target: Target) -> tuple[RuntimeIdentity, DeviceIdentity]:
        runtime, device = super().probe(target)
        return runtime, replace(device, machine=target.device)

    def measure(
        self, jobs: Sequence[Job], target: Target, protocol: MeasuringProtocol, **callbacks: Any
    ) -> dict[str, Outcome]:
        if len(self.measured) < len(BOARDS):
            self.all_there.wait()
        return super().measure(jobs, target, protocol, **callbacks)


def test_devices_measure_at_once_what_was_exported_once_and_all_of_it_is_stored(tmp_path: Path) -> None:
    exports: list[Mapping[Any, Any]] = []

    def export(wanted: Any, what: str, reporter: Any) -> Any:
        exports.append(wanted)
        return exported_to(tmp_path, wanted, what, reporter)

    with open_store(str(tmp_path / "latency.db")) as store:
        bench = Bench(store, MeasuringProtocol(), SilentReporter(), Meeting({}), export)
        found = measure(bench, dict.fromkeys(BOARDS, WANTED), "blocks")
        assert list(found) == list(BOARDS)
        (exported,) = exports
        assert [len(each) for each in exported.values()] == [len(WANTED)]
        for target in BOARDS:
            stored = look_up(bench, target, [each.workload for each in WANTED])
            assert stored.keys() == found[target].keys() == {each.workload.identity for each in WANTED}
            assert all(isinstance(outcome, Measurement) for outcome in stored.values())
