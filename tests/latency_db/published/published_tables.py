"""A small published table, and what a database holds after its import."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from latency_db.errors import StoreError
from latency_db.published.importers import import_table
from latency_db.store.published import published_rows
from latency_db.store.store import Store, open_store

CSV = """block,in_h,stride,count,mean_ms,var
Conv,224,,949,4.5,0.25
Logits,7,,949,0.5,0.01
broken,7,,,-1,
lost,7,,,,
"""


def table(path: Path, content: str = CSV) -> Path:
    """Write a table to a file, compressed where its suffix says so."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)
    return path


def cells(store: Store) -> list[tuple[object, ...]]:
    """All published latencies: row, device, workload, latency, count, variance, flag."""
    names = ("row", "device", "workload", "latency_ns", "count", "variance_ns2", "flag")
    return [tuple(row[name] for name in names) for batch in published_rows(store) for row in batch]


def refusal(path: Path, **options: str) -> StoreError:
    """The error of an import, of which nothing was kept."""
    with open_store("sqlite://") as store:
        with pytest.raises(StoreError) as caught:
            import_table(store, path, **options)
        assert caught.value.fix
        assert cells(store) == []
    return caught.value
