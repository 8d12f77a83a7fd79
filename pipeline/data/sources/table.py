"""A CSV file that names image files beside it, with a class for each, or with several labels or numbers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.untrusted import file_bytes
from devices.words import listed
from pipeline.data.base import Decoded
from pipeline.data.images import WHITE, Colour, Size, decode_all
from pipeline.data.sources.base import LARGEST, Index, LabelledImages, Source, missing, not_used
from pipeline.errors import DataError

_EXPECTED = "a CSV file with a column 'file', and 'class' or a column for each label or number"
_MOST_BYTES = 1 << 30
_FILE, _SPLIT, _CLASS = "file", "split", "class"
_TRAIN, _TEST, _VALIDATION = "train", "test", ("val", "valid", "validation")
_SPLITS = (_TRAIN, _TEST, *_VALIDATION)

Row = dict[str, str]


def read(path: Path, *, image_size: Size | None, by_class: bool, background: Colour = WHITE) -> Source:
    """Read a table: ``file`` relative to it, if wanted ``split`` (``train`` or ``test``), and labels.

    Where no line says ``test``, ``val``, ``valid`` and ``validation`` stand for it. Else these lines are not
    used, which the source's notes say.

    Args:
        path: of the table, with a header.
        image_size: as of ``decode_all``.
        by_class: whether the labels are in a column ``class``; else every other column is a label or number.
        background: as of ``decode_all``.

    Raises:
        DataError: no such table, columns are missing, or a cell is none of what it should be.
    """
    if not path.is_file():
        raise missing(path, _EXPECTED)
    rows, columns = _rows(path)
    named = [each for each in columns if each not in (_FILE, _SPLIT)]
    wanted = [_FILE, _CLASS] if by_class else [_FILE]
    absent = [each for each in wanted if each not in columns]
    if absent or not named:
        raise DataError(
            f"'{path}' has no column {listed([repr(each) for each in absent]) or 'of labels'}",
            why=f"it has {listed([repr(each) for each in columns]) or 'none'}",
            fix=f"write {_EXPECTED}",
        )
    by_split: dict[str, list[Row]] = {name: [] for name in _SPLITS}
    for row in rows:
        by_split[_split_of(row, path)].append(row)
    train, test = by_split[_TRAIN], by_split[_TEST]
    validation = {name: by_split[name] for name in _VALIDATION if by_split[name]}
    notes = tuple(not_used(name, len(found)) for name, found in validation.items()) if test else ()
    test = test or [row for found in validation.values() for row in found]
    classes = tuple(sorted({row[_CLASS] for row in (*train, *test)})) if by_class else tuple(named)

    def labelled(chosen: list[Row]) -> LabelledImages:
        labels = _classes(chosen, classes) if by_class else _numbers(chosen, classes, path)
        return _labelled(path.parent, chosen, labels, image_size, background)

    return Source(labelled(train), labelled(test) if test else None, classes, notes)


def _rows(path: Path) -> tuple[list[Row], list[str]]:
    try:
        text = file_bytes(path, _MOST_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows, columns = [dict(row) for row in reader], list(reader.fieldnames or ())
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"'{path}' cannot be read as a table", why=str(error), fix=f"write {_EXPECTED}"
        ) from error
    short = next((number for number, row in enumerate(rows, 2) if None in (*row, *row.values())), None)
    if short is not None:
        raise DataError(
            f"line {short} of '{path}' has not as many cells as the header",
            fix="give every line a cell for each column, and quote cells that hold a comma",
        )
    return rows, columns


def _split_of(row: Row, path: Path) -> str:
    name = row.get(_SPLIT, _TRAIN)
    if name not in _SPLITS:
        raise DataError(
            f"'{path}' names the split {name!r} for '{row[_FILE]}'",
            fix=f"name one of {listed(_SPLITS)}",
        )
    return name


def _classes(rows: Sequence[Row], classes: tuple[str, ...]) -> NDArray[np.int64]:
    number = {name: place for place, name in enumerate(classes)}
    return np.array([number[row[_CLASS]] for row in rows], np.int64)


def _numbers(rows: Sequence[Row], names: tuple[str, ...], path: Path) -> NDArray[np.float32]:
    found = np.zeros((len(rows), len(names)), np.float32)
    for place, row in enumerate(rows):
        for column, name in enumerate(names):
            number = _number(row[name])
            if not abs(number) <= LARGEST:  # NaN fails the comparison
                raise DataError(
                    f"'{path}' has {row[name]!r} as {name!r} of '{row[_FILE]}', which is no finite number",
                    why=f"labels are numbers of 32 bits, up to {LARGEST:.1e}",
                    fix="write a number in every column but 'file' and 'split', or remove the column or line",
                )
            found[place, column] = number
    return found


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _labelled(
    folder: Path, rows: Sequence[Row], labels: NDArray[Any], image_size: Size | None, background: Colour
) -> LabelledImages:
    names = [row[_FILE] for row in rows]
    outside = next(
        (name for name in names if not (folder / name).resolve().is_relative_to(folder.resolve())), None
    )
    if outside is not None:
        raise DataError(
            f"the file '{outside}' lies outside the folder of the table",
            why="whether files have changed is looked up below that folder",
            fix="put the table into a folder above all images, and name them from there",
        )

    def decode(index: Index) -> Decoded:
        chosen = [names[row] for row in index]
        return decode_all([folder / name for name in chosen], chosen, image_size, background)

    return LabelledImages(labels, decode)
