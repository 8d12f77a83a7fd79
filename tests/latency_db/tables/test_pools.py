"""Tables of a pool: every row is that of the member that measured it, and all are found under one key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import devices.measuring.agreement
import devices.runtimes
from devices.measurement import Measurement
from devices.target import Target
from latency_db.store import Workload, open_store
from latency_db.store.reading import records
from latency_db.tables import measured
from tests.contracts.runtime import QUICK
from tests.devices.hostile_runtime import hostile_runtime
from tests.devices.shelf import shelf

__all__ = ["shelf"]


@pytest.mark.usefixtures("quiet_machine")
def test_rows_name_the_member_that_measured_and_are_found_for_the_pool(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.runtimes, "RUNTIMES", (*devices.runtimes.RUNTIMES, hostile_runtime()))
    monkeypatch.setattr(devices.measuring.agreement, "canary_ns", lambda target: 1.0)
    workloads = [Workload.of("block", f"block {number}", number) for number in range(12)]

    def export(wanted: Sequence[Workload]) -> dict[str, Path]:
        files = {each.identity: shelf / f"{each.identity}.script" for each in wanted}
        for workload in wanted:
            refused = workload.description == "block 5"
            files[workload.identity].write_text("refuse" if refused else "run")
        return files

    target = Target("all", "hostile")
    with open_store(str(shelf / "latency.db")) as store:
        first = measured(workloads, target, store=store, exporter=export, protocol=QUICK)
        again = measured(workloads, target, store=store, exporter=lambda wanted: {}, protocol=QUICK)
        assert again == first
        rows = [row for part in records(store) for row in part]
    assert len(rows) == 12
    assert [each for each in first.values() if not isinstance(each, Measurement)] == [
        first[workloads[5].identity]
    ]
    assert len({row.columns["device"] for row in rows}) == 1
    by_target = {row.columns["target"]: row.columns["instance"] for row in rows}
    assert set(by_target) == {f"{name}/hostile:fp32@1" for name in "abc"}
    assert len(set(by_target.values())) == 3
