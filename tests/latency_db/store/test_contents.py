from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from devices.measurement.measurement import Verdict
from latency_db.published.importers import import_table
from latency_db.store.contents import info
from latency_db.store.store import Store
from tests.latency_db.measurement_samples import DEVICE, PROTOCOL, RUNTIME, block, failure, measurement

TARGET = "host/onnxruntime:fp32@1"


def test_info_counts_outcomes_by_target_and_verdict_and_marks_emulated_devices(store: Store) -> None:
    for row in range(3):
        store.add(block(str(row)), RUNTIME, DEVICE, PROTOCOL, measurement(row + 1))
    store.add(block("0"), RUNTIME, DEVICE, PROTOCOL, measurement(5, Verdict.INVALID))
    store.add(block("0"), RUNTIME, DEVICE, PROTOCOL, failure())
    board = replace(measurement(), device=replace(DEVICE, emulated=True), target="board/litert:fp32@1")
    store.add(block("0"), RUNTIME, board.device, PROTOCOL, board)
    found = info(store)
    assert found.outcomes == {
        TARGET: {"failed": 1, "invalid": 1, "valid": 3},
        "board/litert:fp32@1": {"valid": 1},
    }
    assert found.emulated == ("board/litert:fp32@1",)
    assert found.parts == {"workload": 3, "runtime": 1, "device": 2, "protocol": 1}
    assert found.published == ()
    assert found.size_bytes is not None and found.size_bytes > 0


def test_info_counts_published_latencies_by_device_and_shows_what_screening_found(
    store: Store, tmp_path: Path
) -> None:
    two, one = tmp_path / "two.csv", tmp_path / "one.csv"
    two.write_text("block,device,latency_ms\na,phone,1.5\na,board,-1\nb,phone,2.5\n")
    one.write_text("device,mean_us\nx,70\n")
    for path in (two, one):
        import_table(store, path, name="a table")
    first, second = sorted(info(store).published, key=lambda table: -table.cells)
    assert (first.name, first.cells, first.devices) == ("a table", 3, {"board": 1, "phone": 2})
    assert [(each["device"], each["code"], each["count"]) for each in first.findings] == [
        ("board", "impossible", 1)
    ]
    assert (second.name, second.devices, second.findings) == ("a table", {"x": 1}, ())
    assert first.digest != second.digest
