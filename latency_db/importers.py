"""Published tables of latencies, read in bounded memory, screened, and kept as evidence.

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
import gzip
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from devices.digests import file_digest
from latency_db.errors import StoreError
from latency_db.evidence import BATCH, Evidence, Source, add_evidence
from latency_db.screening import Cell, Finding, Screening
from latency_db.store import Store

UNITS = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}
"""Nanoseconds in each unit that a table may be in."""

_PLAUSIBLE_NS = (100.0, 1e12)
"""No block or network has a median outside: the unit must be another."""


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
    findings: tuple[Finding, ...]


def import_table(
    store: Store, path: Path, *, device: str | None = None, unit: str | None = None, name: str | None = None
) -> ImportedTable:
    """Screen a published table and keep it as evidence; what is there already is left out.

    Args:
        store: where to keep it.
        path: the file.
        device: what it was measured on, where the file does not say.
        unit: of its latencies, ``s``, ``ms``, ``us`` or ``ns``, where the file does not say.
        name: what to call the table; the file's name if not given.

    Raises:
        StoreError: the file cannot be read or understood, its unit cannot be right, or the database cannot be
            written. Nothing was kept then, or, if the database failed, what a repeated import goes on from.
    """
    if unit is not None and unit not in UNITS:
        raise StoreError(
            f"the unit {unit} is unknown", why=f"known: {', '.join(UNITS)}", fix="give one of them"
        )
    kind, read = _format(path)
    try:
        found_unit, cells = read(path, device, unit)
        screening = Screening()
        for batch in _batches(cells):
            screening.see(batch)
        _require_plausible(path, screening, found_unit)
        for batch in _batches(read(path, device, unit)[1]):
            screening.count_failed(batch)
        findings = tuple(screening.findings())
        source = Source(
            name=name or path.name,
            file_digest=file_digest(path),
            format=kind,
            unit=found_unit,
            cells=screening.cells,
            findings=tuple(asdict(finding) for finding in findings),
        )
        rows = (
            [_evidence(cell, screening) for cell in batch] for batch in _batches(read(path, device, unit)[1])
        )
        added = add_evidence(store, source, rows)
    except (OSError, ValueError, KeyError, csv.Error, zipfile.BadZipFile, EOFError) as error:
        raise StoreError(
            f"{path} cannot be imported",
            why=" ".join(str(error).split()) or type(error).__name__,
            fix="see docs/concepts/database.md for the formats that are understood",
        ) from error
    return ImportedTable(source.name, source.cells, added, findings)


def _evidence(cell: Cell, screening: Screening) -> Evidence:
    flag = screening.flag(cell)
    latency_ns = None if flag in ("missing", "impossible") else cell.latency_ns
    return Evidence(cell.row, cell.device, cell.workload, latency_ns, cell.count, cell.variance_ns2, flag)


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


Cells = Iterator[Cell]
Reader = Callable[[Path, str | None, str | None], tuple[str, Cells]]


def _format(path: Path) -> tuple[str, Reader]:
    name = path.name.lower()
    for suffixes, kind, reader in (
        ((".csv", ".csv.gz"), "csv", _read_csv),
        ((".yaml", ".yml"), "ofa-yaml", _read_yaml),
        ((".npz",), "arrays", _read_arrays),
    ):
        if name.endswith(suffixes):
            return kind, reader
    pickle = name.endswith((".pickle", ".pkl", ".pt", ".pth"))
    raise StoreError(
        f"the format of {path.name} is unknown",
        why="it is a pickle, which can run any code when it is read"
        if pickle
        else "its suffix is not a known one",
        fix="convert it to .csv or .npz; docs/concepts/database.md describes them",
    )


def _batches(cells: Cells) -> Iterator[list[Cell]]:
    while batch := list(islice(cells, BATCH)):
        yield batch


def _read_csv(path: Path, device: str | None, unit: str | None) -> tuple[str, Cells]:
    with _text(path) as stream:
        names = csv.DictReader(stream).fieldnames or []
    column, unit = _latency_column(names, unit)
    if device is None and "device" not in names:
        raise ValueError("it has no column device, and no device was given")
    workload_columns = [name for name in names if name not in (column, "count", "var", "device")]

    def cells() -> Cells:
        with _text(path) as stream:
            for number, row in enumerate(csv.DictReader(stream, strict=True)):
                if None in row or None in row.values():
                    raise ValueError(f"row {number + 1} has another number of columns than the heading")
                described = " ".join(f"{name}={row[name]}" for name in workload_columns if row[name])
                yield _cell(
                    number,
                    row.get("device") or device or "",
                    described,
                    row,
                    column=column,
                    scale=UNITS[unit],
                )

    return unit, cells()


def _latency_column(names: Iterable[str], unit: str | None) -> tuple[str, str]:
    candidates = [
        (name, match[2])
        for name in names
        if (match := re.fullmatch(r"(latency|mean)(?:_(s|ms|us|ns))?", name)) is not None
    ]
    if len(candidates) != 1:
        said = ", ".join(name for name, _ in candidates) or "none"
        raise ValueError(
            f"one column must be named latency_ms or mean_ms (or with _s, _us, _ns); there is {said}"
        )
    name, named = candidates[0]
    if named is None and unit is None:
        raise ValueError(f"the column {name} names no unit, and none was given")
    if named is not None and unit not in (None, named):
        raise ValueError(f"the column {name} is in {named}, and {unit} was given")
    return name, named or unit or ""


def _cell(
    number: int, device: str, workload: str, row: Mapping[str, str], *, column: str, scale: float
) -> Cell:
    where = f"row {number + 1}"
    latency = _number(row[column], where, column)
    count = _number(row.get("count") or "", where, "count")
    variance = _number(row.get("var") or "", where, "var")
    return Cell(
        number,
        device,
        workload,
        latency * scale,
        int(count) if math.isfinite(count) and count > 0 else None,
        variance * scale**2 if math.isfinite(variance) and variance >= 0 else None,
    )


def _number(text: str, where: str, column: str) -> float:
    """A number; ``nan`` where there is none."""
    if text.strip().lower() in ("", "none", "null", "na", "n/a"):
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{where}: {column} is {text!r}, which is no number") from None


def _text(path: Path) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", newline="", encoding="utf-8")
    return path.open(newline="", encoding="utf-8")


def _read_yaml(path: Path, device: str | None, unit: str | None) -> tuple[str, Cells]:
    """The subset of YAML that these tables use: mappings of two levels, also ``{...}`` in one line."""
    if device is None:
        raise ValueError("the file does not say what it was measured on, and no device was given")
    unit = unit or "ms"

    def cells() -> Cells:
        for number, (name, values) in enumerate(_entries(path)):
            if "mean" not in values:
                raise ValueError(f"{name} has no mean")
            yield _cell(number, device, name, values, column="mean", scale=UNITS[unit])

    return unit, cells()


def _entries(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    name, values = "", dict[str, str]()
    with _text(path) as stream:
        for number, line in enumerate(stream, 1):
            text = line.split(" #")[0].rstrip()
            if not text or text.startswith(("#", "---")):
                continue
            key, separator, rest = (
                text.strip().rpartition(": ") if not text.endswith(":") else (text[:-1], ":", "")
            )
            flow = re.fullmatch(r"(\S.*?):\s*\{(.*)\}", text)
            if flow is None and not separator:
                raise ValueError(f"line {number} is neither a key nor a value: {text[:80]}")
            if flow is not None or not text[0].isspace():
                if name:
                    yield name, values
                name, values = (flow[1] if flow else key).strip("'\" "), {}
                for item in flow[2].split(",") if flow else ():
                    field, _, value = item.partition(":")
                    values[field.strip()] = value.strip()
                if flow is None and rest:
                    raise ValueError(f"line {number}: {name} has a value where count, mean and var must be")
            elif name:
                values[key.strip()] = rest.strip()
            else:
                raise ValueError(f"line {number} belongs to no key")
    if name:
        yield name, values


def _read_arrays(path: Path, device: str | None, unit: str | None) -> tuple[str, Cells]:
    with zipfile.ZipFile(path) as archive:
        names = {Path(name).stem for name in archive.namelist()}
    column, unit = _latency_column(names, unit)
    if "device" in names:
        with np.load(path, allow_pickle=False) as arrays:
            devices = [str(name) for name in np.atleast_1d(arrays["device"])]
    elif device is not None:
        devices = [device]
    else:
        raise ValueError("it has no array device, and no device was given")
    scale = UNITS[unit]

    def cells() -> Cells:
        ops = None
        if "arch_ops" in names:
            with np.load(path, allow_pickle=False) as arrays:
                ops = arrays["arch_ops"]
        for number, which, value in _array_values(path, column, len(devices)):
            chosen = (0,) if ops is None else tuple(map(int, ops[number]))
            workload = f"architecture {number}" + ("" if ops is None else f" {'-'.join(map(str, chosen))}")
            yield Cell(number, devices[which], workload, value * scale, choices=chosen)

    return unit, cells()


def _array_values(path: Path, name: str, devices: int) -> Iterator[tuple[int, int, float]]:
    """Row, device and value of all latencies of an array, which is never in memory as a whole.

    Raises:
        ValueError: it is no array of numbers with a column for each device, or ends too early.
    """
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, by_columns, dtype = read_header(stream)
        if dtype.kind not in "iuf" or not 1 <= len(shape) <= 2:
            raise ValueError(f"{name} is not an array of numbers of one or two dimensions")
        rows, columns = shape if len(shape) == 2 else (shape[0], 1)
        if columns != devices:
            raise ValueError(f"{name} has {columns} columns for {devices} devices")
        for start in range(0, rows * columns, BATCH):
            count = min(BATCH, rows * columns - start)
            content = stream.read(count * dtype.itemsize)
            if len(content) != count * dtype.itemsize:
                raise ValueError(f"{name} ends too early")
            for index, value in enumerate(np.frombuffer(content, dtype).tolist(), start):
                if by_columns:
                    column, row = divmod(index, rows)
                else:
                    row, column = divmod(index, columns)
                yield row, column, float(value)
