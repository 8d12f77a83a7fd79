"""Published tables of latencies, read in bounded memory, screened, and kept.

Three kinds of files are understood, by their suffix:

- ``.csv``, ``.csv.gz``: one block or network in each row. One column has the latency, ``latency_ms`` or
  ``mean_ms`` (also with ``_s``, ``_us``, ``_ns``; or without, and ``unit`` is given); ``count`` and ``var``
  (variance, in the square of that unit), and ``device``, may be there. All others describe the workload.
- ``.yaml``, ``.yml``: block tables as OFA and ProxylessNAS publish them, a key for each block, with ``mean``
  in milliseconds, ``count`` and ``var``.
- ``.npz``: arrays as HW-NAS-Bench style collections have them: ``latency_ms`` (architectures x devices),
  ``device`` (names), and ``arch_ops`` (architectures x decisions), where there is one.

Pickles are never read.
"""

from __future__ import annotations

import csv
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, repeat
from pathlib import Path

from devices.digests import file_digest
from devices.untrusted import regular_size
from latency_db.errors import StoreError
from latency_db.published.arrays import read_arrays
from latency_db.published.readers import UNITS, Published, Reader
from latency_db.published.screening import Cells, Screening, ScreeningFinding
from latency_db.published.text import read_csv, read_yaml
from latency_db.store.published import Page, PublishedLatency, PublishedSource, add_published, devices_of
from latency_db.store.store import Store

Progress = Callable[[int, int], None]
"""Called with the bytes that were read so far, and those that will be read in all."""

_PLAUSIBLE_NS = (100.0, 1e12)
"""No block or network has a median outside: the unit must be another."""

_PASSES = 3  # to screen, to count failed runs, to keep

# A ``RuntimeError`` is raised for an encrypted archive, and for a compression that is unknown.
_DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


@dataclass(frozen=True)
class ImportedTable:
    """What an import did.

    Attributes:
        source: name of the table.
        cells: latencies in the file.
        added: how many of them the database did not have.
        findings: what is wrong with them.
    """

    source: str
    cells: int
    added: int
    findings: tuple[ScreeningFinding, ...]


def import_table(
    store: Store,
    path: Path,
    *,
    device: str | None = None,
    unit: str | None = None,
    name: str | None = None,
    on_progress: Progress | None = None,
) -> ImportedTable:
    """Screen a published table and keep it; what is there already is left out.

    Args:
        store: where to keep it.
        path: the file.
        device: what it was measured on, where the file does not say.
        unit: of its latencies, ``s``, ``ms``, ``us`` or ``ns``, where the file does not say.
        name: what to call the table; the file's name if not given.
        on_progress: told how far the file was read. It is read up to three times.

    Raises:
        StoreError: the file cannot be read or understood, its unit cannot be right, or the database cannot be
            written. Nothing was kept then, or, if the database failed, what a repeated import goes on from.
    """
    if unit is not None and unit not in UNITS:
        raise StoreError(
            f"the unit {unit} is unknown", why=f"known: {', '.join(UNITS)}", fix="give one of them"
        )
    read = _reader(path)
    try:
        size = regular_size(path)
        table = read(path, device, unit)
        passes = _Passes(table, size, on_progress or (lambda done, total: None))
        screening = Screening()
        for cells in chain.from_iterable(passes.batches(0)):
            screening.see(cells)
        _require_plausible(path, screening, table.unit)
        if screening.seeks_failed_runs:
            for cells in chain.from_iterable(passes.batches(1)):
                screening.count_failed(cells)
        findings = tuple(screening.findings())
        source = PublishedSource(
            name=name or path.name,
            file_digest=file_digest(path),
            format=table.format,
            unit=table.unit,
            cells=screening.cells,
            findings=tuple(asdict(finding) for finding in findings),
        )
        _require_same_devices(path, devices_of(store, source.digest), screening.devices)
        pages = ([_page(each, screening) for each in batch] for batch in passes.batches(2))
        added = add_published(store, source, pages)
    except (OSError, ValueError, KeyError, csv.Error, *_DAMAGED_ARCHIVE) as error:
        raise StoreError(
            f"{path} cannot be imported",
            why=" ".join(str(error).split()) or type(error).__name__,
            fix="see docs/concepts/database.md for the formats that are understood",
        ) from error
    return ImportedTable(source.name, source.cells, added, findings)


@dataclass(frozen=True)
class _Passes:
    """Reads a table several times, and tells how far it is with all of them."""

    table: Published
    size_bytes: int
    on_progress: Progress

    def batches(self, number: int) -> Iterator[list[Cells]]:
        for batch in self.table.batches():
            yield batch.cells
            self.on_progress(number * self.size_bytes + batch.read_bytes, _PASSES * self.size_bytes)


def _page(cells: Cells, screening: Screening) -> Page:
    columns = zip(
        cells.rows,
        cells.workloads,
        cells.latency_ns.tolist(),
        cells.counts or repeat(None),
        cells.variances_ns2 or repeat(None),
        screening.flags(cells),
        strict=False,
    )
    rows: list[PublishedLatency] = [
        {
            "row": row,
            "workload": workload,
            "latency_ns": None if flag in ("missing", "impossible") else latency_ns,
            "count": count,
            "variance_ns2": variance_ns2,
            "flag": flag,
        }
        for row, workload, latency_ns, count, variance_ns2, flag in columns
    ]
    return Page(cells.device, rows)


def _require_plausible(path: Path, screening: Screening, unit: str) -> None:
    median_ns = screening.median_ns()
    if math.isnan(median_ns):
        raise StoreError(
            f"{path} holds no latency",
            why=f"none of its {screening.cells} values is a time",
            fix="check the file",
        )
    if not _PLAUSIBLE_NS[0] <= median_ns <= _PLAUSIBLE_NS[1]:
        raise StoreError(
            f"the latencies of {path} cannot be in {unit}",
            why=f"their median would be {median_ns:.3g} ns",
            fix=f"give the right unit, one of {', '.join(UNITS)}: --unit where no column names it",
        )


def _require_same_devices(path: Path, stored: set[str], given: set[str]) -> None:
    if others := sorted(stored - given):
        raise StoreError(
            f"{path} is in the database already, as measured on {', '.join(others)}",
            why=f"the same latencies cannot also be those of {', '.join(sorted(given))}",
            fix=f"give --device {others[0]!r}, or import it into another database, with --db",
        )


def _reader(path: Path) -> Reader:
    name = path.name.lower()
    readers: tuple[tuple[tuple[str, ...], Reader], ...] = (
        ((".csv", ".csv.gz"), read_csv),
        ((".yaml", ".yml"), read_yaml),
        ((".npz",), read_arrays),
    )
    for suffixes, reader in readers:
        if name.endswith(suffixes):
            return reader
    pickle = name.endswith((".pickle", ".pkl", ".pt", ".pth"))
    raise StoreError(
        f"the format of {path.name} is unknown",
        why="it is a pickle, which can run any code when it is read"
        if pickle
        else "its suffix is not a known one",
        fix="convert it to .csv or .npz; docs/concepts/database.md describes them",
    )
