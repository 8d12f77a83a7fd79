from __future__ import annotations

from pathlib import Path

import pytest

from latency_db.published.importers import import_table
from latency_db.store.store import Store
from tests.latency_db.published.published_tables import cells, refusal, table


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
        ("block,latency_ms\n", {"device": "d"}, "none of its 0 values is a time"),
        ("block,device,latency_ms\na,,1.5\n", {}, "row 1 names no device"),
        ("source_digest,device,latency_ns\na,d,1\n", {}, "lathe db merge"),
        ('block,latency_ms\n"a,1.5\n', {"device": "d"}, "unexpected end of data"),
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


def test_import_table_refuses_a_truncated_gzip_file(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv.gz", "block,latency_ms\n" + "".join(f"b{n},{n}\n" for n in range(1, 999)))
    path.write_bytes(path.read_bytes()[:-500])
    assert refusal(path, device="d").why


def test_repeated_rows_are_kept_and_reported(store: Store, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "block,latency_ms\na,1.5\nb,2.5\na,1.5\na,9.5\n")
    imported = import_table(store, path, device="d")
    assert imported.added == 4
    assert [(each.code, each.count) for each in imported.findings] == [("duplicate", 2)]
    assert "1 with another latency" in imported.findings[0].detail


def test_a_heading_may_begin_with_a_byte_order_mark(store: Store, tmp_path: Path) -> None:
    import_table(store, table(tmp_path / "t.csv", "\ufefflatency_ms,block\n1.5,a\n"), device="d")
    assert [row[2:4] for row in cells(store)] == [("block=a", 1.5e6)]


@pytest.mark.parametrize(
    "line",
    [
        "a" + ": " * 60_000,
        "a:" + " " * 120_000,
        "a:{" * 40_000,
        "a: {" + "}" * 120_000,
        "'" * 120_000 + ": {}",
    ],
)
def test_a_line_of_yaml_takes_no_quadratic_time(tmp_path: Path, line: str) -> None:
    assert refusal(table(tmp_path / "t.yaml", line + "\n"), device="d").why


def test_import_table_refuses_what_unpacks_to_far_more_than_it_has(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv.gz", "block,latency_ms\n" + "a,1\n" * (25 << 20))
    assert "suspiciously small" in refusal(path, device="d").why


def test_import_table_refuses_a_heading_without_end(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", "block,latency_ms" + "," * 100_000 + "\n")
    assert "more than 1000" in refusal(path, device="d").why
