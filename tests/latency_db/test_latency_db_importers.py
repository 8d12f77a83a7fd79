from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from latency_db import schema
from latency_db.errors import StoreError
from latency_db.importers import import_table
from latency_db.store import Store, open_store

SHARED = Path(os.environ.get("LATHE_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

CSV = """block,in_h,stride,count,mean_ms,var
Conv,224,,949,4.5,0.25
Logits,7,,949,0.5,0.01
broken,7,,,-1,
lost,7,,,,
"""


def table(path: Path, content: str = CSV) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)
    return path


def cells(store: Store) -> list[tuple[object, ...]]:
    names = ("row", "device", "workload", "latency_ns", "count", "variance_ns2", "flag")
    query = select(*(schema.evidence.c[name] for name in names)).order_by(schema.evidence.c.id)
    with store.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query)]


def refusal(path: Path, **options: str) -> StoreError:
    with open_store("sqlite://") as store:
        with pytest.raises(StoreError) as caught:
            import_table(store, path, **options)
        assert caught.value.fix
        assert cells(store) == []
    return caught.value


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_csv_becomes_evidence_and_never_a_measurement(store: Store, tmp_path: Path, name: str) -> None:
    imported = import_table(store, table(tmp_path / name), device="Pixel 1")
    assert (imported.cells, imported.added) == (4, 4)
    assert [finding.code for finding in imported.findings] == ["missing", "impossible"]
    assert cells(store) == [
        (0, "Pixel 1", "block=Conv in_h=224", 4.5e6, 949, 0.25e12, ""),
        (1, "Pixel 1", "block=Logits in_h=7", 0.5e6, 949, 0.01e12, ""),
        (2, "Pixel 1", "block=broken in_h=7", None, None, None, "impossible"),
        (3, "Pixel 1", "block=lost in_h=7", None, None, None, "missing"),
    ]
    assert store.count() == 0


def test_importing_again_adds_nothing_and_goes_on_where_a_killed_import_ended(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latency_db.importers.BATCH", 10)
    lines = "".join(f"b{n},{n + 1}.5\n" for n in range(45))
    path = table(tmp_path / "t.csv", "block,latency_ms\n" + lines)
    calls = 0

    from latency_db import evidence

    insert = evidence._insert

    def dying(*arguments: object, **named: object) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return insert(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(evidence, "_insert", dying)
    with pytest.raises(KeyboardInterrupt):
        import_table(store, path, device="d")
    assert len(cells(store)) == 20
    assert import_table(store, path, device="d").added == 25
    assert import_table(store, path, device="d").added == 0
    assert [row[0] for row in cells(store)] == list(range(45))


def test_ofa_yaml_is_read_in_both_of_its_styles(store: Store, tmp_path: Path) -> None:
    content = """# table
Conv-input:224x224x3-output:112x112x32:
  count: 949
  mean: 4.5
  var: 0.25
"expanded_conv-input:112x112x16-expand:6": {count: 10, mean: 0.5, var: 0.0}
"""
    import_table(store, table(tmp_path / "t.yaml", content), device="d")
    assert cells(store) == [
        (0, "d", "Conv-input:224x224x3-output:112x112x32", 4.5e6, 949, 0.25e12, ""),
        (1, "d", "expanded_conv-input:112x112x16-expand:6", 0.5e6, 10, 0.0, ""),
    ]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_become_one_cell_for_each_architecture_and_device(
    store: Store, tmp_path: Path, order: str, save: object
) -> None:
    latency = np.array([[1.5, 2.5], [np.nan, 3.5], [4.5, 0.0]], order=order)  # type: ignore[call-overload]
    assert callable(save)
    save(
        tmp_path / "t.npz",
        latency_ms=latency,
        device=np.array(["phone", "board"]),
        arch_ops=np.array([[0, 1], [2, 3], [1, 1]], np.uint8),
    )
    assert import_table(store, tmp_path / "t.npz").added == 6
    assert sorted((row[1], row[0], row[2], row[3], row[6]) for row in cells(store)) == [
        ("board", 0, "architecture 0 0-1", 2.5e6, ""),
        ("board", 1, "architecture 1 2-3", 3.5e6, ""),
        ("board", 2, "architecture 2 1-1", None, "impossible"),
        ("phone", 0, "architecture 0 0-1", 1.5e6, ""),
        ("phone", 1, "architecture 1 2-3", None, "missing"),
        ("phone", 2, "architecture 2 1-1", 4.5e6, ""),
    ]


@pytest.mark.parametrize(
    ("content", "options", "why"),
    [
        ("block,latency_ms\na,fast\n", {"device": "d"}, "row 1: latency_ms is 'fast', which is no number"),
        ("block,latency_ms\na,1.5,2\n", {"device": "d"}, "another number of columns"),
        ("block,latency_ms\na\n", {"device": "d"}, "another number of columns"),
        ("block,time\na,1\n", {"device": "d"}, "there is none"),
        ("block,latency_ms,mean_ms\na,1,1\n", {"device": "d"}, "latency_ms, mean_ms"),
        ("block,latency\na,1\n", {"device": "d"}, "names no unit"),
        ("block,latency_ms\na,1\n", {"device": "d", "unit": "us"}, "is in ms, and us was given"),
        ("block,latency_ms\na,1\n", {}, "no device was given"),
        ("block,latency\na,3000000\n", {"device": "d", "unit": "s"}, "median would be 3e+15 ns"),
        ("block,latency\na,0.004\n", {"device": "d", "unit": "us"}, "median would be 4 ns"),
        ("block,latency\na,1\n", {"device": "d", "unit": "weeks"}, "known: s, ms, us, ns"),
        ("block,latency_ms\na,-1\nb,nan\nc,0\n", {"device": "d"}, "none of its 3 values is a time"),
        ("", {"device": "d"}, "there is none"),
    ],
)
def test_import_table_refuses_what_cannot_be_right_and_keeps_nothing(
    tmp_path: Path, content: str, options: dict[str, str], why: str
) -> None:
    assert why in refusal(table(tmp_path / "t.csv", content), **options).why


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("a: 1\n", "where count, mean and var must be"),
        ("a:\n  count: 1\n", "a has no mean"),
        ("  mean: 1\n", "belongs to no key"),
        ("nonsense\n", "neither a key nor a value"),
    ],
)
def test_import_table_refuses_yaml_of_another_form(tmp_path: Path, content: str, why: str) -> None:
    assert why in refusal(table(tmp_path / "t.yaml", content), device="d").why


def test_import_table_refuses_arrays_that_do_not_fit_together(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, latency_ms=np.ones((3, 2)), device=np.array(["one"]))
    assert "2 columns for 1 devices" in refusal(path).why
    np.savez(path, latency_ms=np.array([{"a": 1}], dtype=object))
    assert "not an array of numbers" in refusal(path, device="d").why
    np.savez(path, latency_ms=np.ones(3), device=np.array([{"a": 1}], dtype=object))
    assert "allow_pickle" in refusal(path).why
    np.savez(path, latency_ms=np.ones((1000, 1)))
    path.write_bytes(path.read_bytes()[:3000])
    assert refusal(path, device="d").why


def test_import_table_refuses_pickles_and_unknown_files(tmp_path: Path) -> None:
    assert "pickle" in refusal(table(tmp_path / "t.pickle"), device="d").why
    assert "suffix" in refusal(table(tmp_path / "t.xlsx"), device="d").why
    assert "No such file" in refusal(tmp_path / "missing.csv", device="d").why


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_cells(tmp_path: Path) -> None:
    """Held as objects, the further cells would take more than twice the allowed difference."""
    peaks = []
    for architectures in (5_000, 30_000):
        latency = np.random.default_rng(0).uniform(1, 9, (architectures, 2))
        np.savez(tmp_path / "t.npz", latency_ms=latency, device=np.array(["a", "b"]))
        del latency
        with open_store("sqlite://") as store:
            tracemalloc.start()
            import_table(store, tmp_path / "t.npz")
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 3e6


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="LATHE_SHARED_DATA names no folder with the published tables")
def test_published_tables_are_imported_with_their_known_faults(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "latency.db")) as store:
        pixel = import_table(store, SHARED / "block_tables" / "proxyless_pixel1.csv", device="Pixel 1")
        assert (pixel.added, pixel.findings) == (72, ())
        xeon = import_table(store, SHARED / "block_tables" / "tfnas_xeon6130_bs1.csv.gz", device="Xeon")
        assert [finding.code for finding in xeon.findings] == ["impossible"]
        found = import_table(store, SHARED / "nasbench201" / "nasbench201.npz")
        assert found.added == 15625 * 19
        by_code: dict[str, set[str]] = {}
        for finding in found.findings:
            by_code.setdefault(finding.code, set()).add(finding.device)
        assert by_code["whole-milliseconds"] == {"samsung_a50", "samsung_s7", "essential_ph_1"}
        assert "pixel3" in by_code["failed-run"]
        assert "2080ti_256" in by_code["additive"]
