from __future__ import annotations

import csv
import json
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from devices.installing import how_to_install
from devices.measurement.measurement import Measurement, Verdict
from latency_db.errors import StoreError
from latency_db.store import exchange, reading, row_files, schema
from latency_db.store.exchange import COLUMNS, Imported, export_file, import_file
from latency_db.store.keys import Workload
from latency_db.store.reading import Filter
from latency_db.store.store import Store, open_store
from tests.latency_db.measurement_samples import (
    DEVICE,
    PROTOCOL,
    RUNTIME,
    block,
    failure,
    key_of,
    measurement,
    measurements,
    workloads,
)

SUFFIXES = (".parquet", ".csv", ".json")


def fill(store: Store) -> None:
    emulated = replace(DEVICE, emulated=True)
    store.add(block("a"), RUNTIME, DEVICE, PROTOCOL, measurement(1000))
    store.add(block('b "quoted", with\nlines'), RUNTIME, DEVICE, PROTOCOL, measurement(2000, Verdict.INVALID))
    store.add(block("c"), RUNTIME, DEVICE, PROTOCOL, failure())
    store.add(block("a"), RUNTIME, emulated, PROTOCOL, replace(measurement(7), device=emulated))


def rows(store: Store) -> list[dict[str, Any]]:
    query = select(schema.measurements).order_by(schema.measurements.c.id)
    with store.engine.connect() as connection:
        return [
            {k: v for k, v in row.items() if k not in ("id", "launches")}
            for row in connection.execute(query).mappings()
        ]


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    with open_store(str(tmp_path / "source.db")) as store:
        fill(store)

        def export(suffix: str) -> Path:
            path = tmp_path / f"rows{suffix}"
            assert export_file(store, path).rows == 4
            return path

        yield export


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_import_brings_back_exactly_what_was_exported_and_adds_nothing_twice(
    new_location: Callable[[], str], tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"rows{suffix}"
    with open_store(new_location()) as store, open_store(new_location()) as other:
        fill(store)
        assert export_file(store, path).rows == 4
        assert import_file(other, path) == Imported(4, 4)
        assert rows(other) == rows(store)
        assert other.find(key_of(block("a"))) == measurement(1000)
        assert import_file(other, path) == Imported(4, 0)
        assert import_file(store, path) == Imported(4, 0)
        assert rows(other) == rows(store)


@settings(max_examples=15, deadline=None)
@given(entries=st.lists(st.tuples(workloads, measurements), max_size=3), suffix=st.sampled_from(SUFFIXES))
def test_any_measurement_survives_export_and_import(
    entries: list[tuple[Workload, Measurement]], suffix: str
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        open_store("sqlite://") as store,
        open_store("sqlite:///file::memory:?uri=true") as other,
    ):
        store.add_all([(each, m.runtime, m.device, m.protocol, m) for each, m in entries])
        path = Path(folder) / f"rows{suffix}"
        assert export_file(store, path).rows == len(entries)
        assert import_file(other, path) == Imported(len(entries), len(entries))
        assert rows(other) == rows(store)


def test_columns_carry_their_unit_and_the_summary_is_right(exported: Callable[[str], Path]) -> None:
    with exported(".csv").open(newline="") as stream:
        written = list(csv.DictReader(stream))
    assert list(written[0]) == list(COLUMNS)
    assert [row["latency_ns"] for row in written] == ["1000.0", "2000.0", "", "7.0"]
    assert [row["emulated"] for row in written] == ["false", "false", "false", "true"]
    assert "samples_ns" in json.loads(written[0]["launches_json"])[0]


def test_export_writes_only_what_the_filter_lets_through(tmp_path: Path) -> None:
    with open_store("sqlite://") as store:
        fill(store)
        target = "host/onnxruntime:fp32@1"
        for wanted, count in (
            (Filter(), 4),
            (Filter(target=target), 4),
            (Filter(target="host/litert:fp32@1"), 0),
            (Filter(workload="quoted"), 1),
            (Filter(workload="%"), 0),
            (Filter(verdict="failed"), 1),
            (Filter(verdict="valid", since="2025-01-01"), 2),
            (Filter(verdict="valid", since="2025-01-02"), 0),
        ):
            assert export_file(store, tmp_path / "rows.json", wanted).rows == count, wanted


def changed(path: Path, change: Callable[[list[dict[str, str]]], Any]) -> Path:
    with path.open(newline="") as stream:
        content = list(csv.DictReader(stream))
    content = change(content) or content
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, content[0])
        writer.writeheader()
        writer.writerows(content)
    return path


def set_first(**values: str) -> Callable[[list[dict[str, str]]], Any]:
    return lambda content: content[0].update(values)


def slower(content: list[dict[str, str]]) -> None:
    content[0]["launches_json"] = content[0]["launches_json"].replace("1000", "9000")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (slower, "row 1: it was changed"),
        (set_first(latency_ns="0.001"), "latency_ns says 0.001"),
        (set_first(latency_ns="-1000"), "latency_ns says -1000.0"),
        (set_first(latency_ns="0"), "latency_ns says 0.0"),
        (set_first(latency_ns="nan"), "latency_ns says nan"),
        (set_first(latency_ns=""), "latency_ns says None"),
        (set_first(latency_ns="fast"), "could not convert"),
        (set_first(verdict="degraded"), "it was changed"),
        (set_first(launches_json=""), "launches_json has no value"),
        (set_first(runtime_json='{"name": "another"}'), "its runtime does not fit its digest"),
        (set_first(reasons_json="{"), "row 1:"),
        (set_first(reasons_json="[" * 3000), "row 1:"),
        (set_first(workload_json="null"), "its workload does not fit"),
        (set_first(workload_json='{"kind": "network", "description": "a"}'), "its workload does not fit"),
        (set_first(workload_json='{"kind": "block", "description": "b"}'), "its workload does not fit"),
        (set_first(workload_digest="0"), "its workload does not fit"),
        (set_first(workload_description="another"), "says other than workload_json"),
        (set_first(emulated="true"), "says other than device_json"),
        (lambda content: [*content, content[1]], "row 5: it is there twice"),
        (lambda content: [{k.replace("latency_ns", "latency_ms"): v for k, v in r.items()} for r in content],
         "missing: latency_ns; unknown: latency_ms"),
    ],
)  # fmt: skip
def test_import_refuses_a_changed_file_and_adds_nothing(
    exported: Callable[[str], Path], change: Callable[[list[dict[str, str]]], Any], why: str
) -> None:
    path = changed(exported(".csv"), change)
    with open_store("sqlite://") as store:
        with pytest.raises(StoreError) as caught:
            import_file(store, path)
        assert why in caught.value.why
        assert caught.value.fix
        assert store.count() == 0


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_import_refuses_a_truncated_file_and_adds_nothing(
    exported: Callable[[str], Path], suffix: str, kept: float
) -> None:
    path = exported(suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with open_store("sqlite://") as store:
        with pytest.raises(StoreError):
            import_file(store, path)
        assert store.count() == 0


def test_import_refuses_files_that_are_none(tmp_path: Path) -> None:
    with open_store("sqlite://") as store:
        for name in ("rows.csv", "rows.json", "rows.parquet"):
            with pytest.raises(StoreError, match="does not exist"):
                import_file(store, tmp_path / name)
            (tmp_path / name).write_bytes(b"\xff\xfe nonsense")
            with pytest.raises(StoreError):
                import_file(store, tmp_path / name)
        with pytest.raises(StoreError, match="format of rows"):
            import_file(store, tmp_path / "rows.xlsx")


def test_export_leaves_the_old_file_when_it_cannot_be_finished(
    exported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported(".csv")
    before = path.read_bytes()

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(row_files._WRITERS, ".csv", full)
    with open_store("sqlite://") as store, pytest.raises(StoreError, match="cannot be written"):
        export_file(store, path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.glob("*rows*")] == ["rows.csv"]


def test_parquet_names_the_extra_when_pyarrow_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with open_store("sqlite://") as store, pytest.raises(StoreError) as caught:
        export_file(store, tmp_path / "rows.parquet")
    assert how_to_install("exchange") in caught.value.fix


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_memory_does_not_grow_with_the_number_of_rows(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five times the rows: the same peak, but for the digests by which repeated rows are seen."""
    for module in (exchange, reading):
        monkeypatch.setattr(module, "BATCH", 100)
    peaks = []
    for count in (100, 500):
        with open_store(str(tmp_path / f"{count}.db")) as store, open_store("sqlite://") as other:
            entries = [(block(str(n)), RUNTIME, DEVICE, PROTOCOL, measurement(n + 1)) for n in range(count)]
            store.add_all(entries)
            del entries
            tracemalloc.start()
            export_file(store, tmp_path / f"rows{suffix}")
            import_file(other, tmp_path / f"rows{suffix}")
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
