"""A Hugging Face dataset saved with ``save_to_disk``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devices.installing import how_to_install
from devices.words import cause_of
from pipeline.data.base import Decoded
from pipeline.data.images import WHITE, Colour, Size, decode_all
from pipeline.data.sources.arrow import refuse_compressed
from pipeline.data.sources.base import Index, LabelledImages, Source, check_labels, missing, not_used
from pipeline.errors import DataError

_EXPECTED = "a folder written by datasets' save_to_disk"
_TEST_NAMES = ("test", "validation", "valid", "val")


def read(path: Path, *, image_size: Size | None, background: Colour = WHITE) -> Source:
    """Read a ``Dataset``, or a ``DatasetDict`` with ``train`` and ``test`` (or ``validation``).

    The columns are found by their features: exactly one ``Image`` and one ``ClassLabel``. The source's notes
    name splits that are not used.

    Raises:
        DataError: datasets is not installed, the folder is something else, or the columns are not clear.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "a Hugging Face dataset needs the package datasets, which cannot be imported",
            why=str(error),
            fix=how_to_install("huggingface"),
        ) from error
    if not path.is_dir():
        raise missing(path, _EXPECTED)
    with _explained(path):
        files = list(_data_files(path))
        for file in files:
            refuse_compressed(file)
        # As it was written, whatever format of what is read the folder asks for.
        saved = datasets.load_from_disk(str(path)).with_format(None)
        _require_content(saved, sum(file.stat().st_size for file in files))
    notes: tuple[str, ...] = ()
    if not isinstance(saved, datasets.DatasetDict):
        train, test = saved, None
    elif "train" in saved:
        held = next((name for name in _TEST_NAMES if name in saved), None)
        train, test = saved["train"], None if held is None else saved[held]
        notes = tuple(not_used(name, len(saved[name])) for name in saved if name not in ("train", held))
    else:
        raise DataError(
            f"'{path}' has no train split", why=f"it has {', '.join(saved)}", fix="name one 'train'"
        )
    classes = _classes(train)
    if test is not None and _classes(test) != classes:
        raise DataError(
            "classes differ between train and test",
            why=f"train names {', '.join(classes)}; test names {', '.join(_classes(test))}",
            fix="save both splits with the same ClassLabel feature",
        )
    held_out = None if test is None else _labelled(path, test, "test", image_size, background)
    return Source(_labelled(path, train, "train", image_size, background), held_out, classes, notes)


def _data_files(path: Path) -> Iterator[Path]:
    """The files that datasets would read: those that the folder and those of its splits name.

    Raises:
        ValueError: one of them, or a split, lies elsewhere.
    """

    def inside(folder: Path, name: object) -> Path:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"it names {name!r}, which is not in the folder")
        return folder / name

    splits = path / "dataset_dict.json"
    folders = [path]
    if splits.is_file():
        folders = [inside(path, name) for name in json.loads(splits.read_text())["splits"]]
    for folder in folders:
        for each in json.loads((folder / "state.json").read_text())["_data_files"]:
            yield inside(folder, each["filename"])


def _require_content(saved: Any, size_bytes: int) -> None:
    """Refuse more rows than their files have bytes: columns of nothing may have any number of rows."""
    splits = saved.values() if isinstance(saved, dict) else [saved]
    count = sum(map(len, splits))
    if count > size_bytes:
        raise ValueError(f"it has {count:,} rows in {size_bytes:,} bytes")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Of what is damaged, datasets and pyarrow raise many kinds of errors, at any row."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"'{path}' cannot be read as a saved dataset", why=cause_of(error), fix=f"expected {_EXPECTED}"
        ) from error


def _classes(rows: Any) -> tuple[str, ...]:
    return tuple(rows.features[_column(rows, "ClassLabel")].names)


def _column(rows: Any, feature: str) -> str:
    found: list[str] = [name for name, kind in rows.features.items() if type(kind).__name__ == feature]
    if len(found) != 1:
        kinds = ", ".join(f"{name}: {type(kind).__name__}" for name, kind in rows.features.items())
        raise DataError(
            f"the dataset has {len(found)} columns of type {feature}, expected exactly one",
            why=f"its columns are {kinds}",
            fix="before save_to_disk, cast_column('label', ClassLabel(names=...)) or remove_columns",
        )
    return found[0]


def _labelled(
    path: Path, rows: Any, split: str, image_size: Size | None, background: Colour
) -> LabelledImages:
    from datasets import Image

    image, label = _column(rows, "Image"), _column(rows, "ClassLabel")
    with _explained(path):
        encoded = rows.cast_column(image, Image(decode=False))
        numbers = [-1 if value is None else value for value in rows.select_columns(label)[:][label]]
    labels = check_labels(numbers, len(rows), what=split)

    def decode(index: Index) -> Decoded:
        with _explained(path):
            cells = [encoded[int(row)][image] for row in index]
            files = [cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]) for cell in cells]
        return decode_all(files, [f"{split} image {row}" for row in index], image_size, background)

    return LabelledImages(labels, decode)
