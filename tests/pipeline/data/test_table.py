from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import DataConfig, Dataset
from pipeline.data.fingerprint import fingerprint
from pipeline.data.loading import load
from pipeline.errors import DataError
from pipeline.tasks import Regression

NAMES = [f"day {number % 2}/{number:02}.png" for number in range(12)]


@pytest.fixture(name="folder", autouse=True)
def _folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((5, 7 + number % 2), number, np.uint8)).save(tmp_path / name)
    return tmp_path


def config(folder: Path, text: str, **settings: Any) -> DataConfig:
    (folder / "labels.csv").write_text(text, encoding="utf-8-sig")
    return DataConfig(kind="table", path=folder / "labels.csv", image_size=(4, 6), **settings)


def loaded(folder: Path, text: str, **settings: Any) -> Dataset:
    return load(config(folder, text, **settings), seed=0)


def table(header: str, cells: list[str]) -> str:
    return "\n".join([header, *(f"{name},{cell}" for name, cell in zip(NAMES, cells, strict=True))]) + "\n"


def test_every_image_has_the_labels_of_its_line(folder: Path) -> None:
    cells = [f"{'test' if number > 8 else 'train'},{number % 2},{number % 3 > 0:d}" for number in range(12)]
    data = loaded(folder, table("file,split,odd,other", cells), task="multi-label")
    assert data.classes == ("odd", "other")
    assert len(data.test) == 3
    assert data.input_shape == (1, 4, 6)
    for split in (data.train, data.validation, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            number = int(image[0, 0, 0])
            assert label.tolist() == [number % 2, number % 3 > 0]


def test_numbers_may_stand_in_any_column_and_the_test_split_is_drawn_without_one(folder: Path) -> None:
    data = loaded(folder, table("file,width", [f"{100 + number}" for number in range(12)]), task="regression")
    assert isinstance(data.task, Regression)
    assert len(data.test) == 3
    values = data.test.labels * data.task.std[0] + data.task.mean[0]
    assert values[:, 0] == pytest.approx(data.test.images[:, 0, 0, 0] + 100.0, abs=1e-3)


def test_classes_are_numbered_by_their_names(folder: Path) -> None:
    data = loaded(folder, table("file,class", ["pear", "apple"] * 6))
    assert data.classes == ("apple", "pear")
    assert (data.train.labels == 1 - data.train.images[:, 0, 0, 0] % 2).all()


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_lines_for_validation_are_the_test_split_only_where_no_line_says_test(
    folder: Path, name: str
) -> None:
    held = loaded(folder, of_splits(8 * ["train"] + 4 * [name]))
    assert (len(held.test), held.notes) == (4, ())
    both = loaded(folder, of_splits(8 * ["train"] + 2 * ["test"] + 2 * [name]))
    assert (len(both.train) + len(both.validation), len(both.test)) == (8, 2)
    assert both.notes == (f"2 images of '{name}' are not used",)


def of_splits(splits: list[str]) -> str:
    return table("file,split,class", [f"{split},{'ab'[row % 2]}" for row, split in enumerate(splits)])


def test_a_changed_image_or_line_changes_the_fingerprint(folder: Path) -> None:
    text = table("file,class", ["pear", "apple"] * 6)
    first = fingerprint(config(folder, text))
    assert fingerprint(config(folder, text)) != ""
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / NAMES[0])
    assert fingerprint(config(folder, text)) != first


@pytest.mark.parametrize(
    ("text", "task", "what"),
    [
        ("file,class\n", "single-label", "holds no images"),
        ("name,class\na,b\n", "single-label", "no column 'file'"),
        ("file,kind\na,b\n", "single-label", "no column 'class'"),
        ("file,split\na,train\n", "regression", "no column of labels"),
        ("file,x\nday 0/00.png,1\nday 1/01.png\n", "regression", "line 3 of .* has not as many cells"),
        ("file,x\nday 0/00.png,1,2\n", "regression", "line 2 of .* has not as many cells"),
        ("file,x\nday 0/00.png,one\n", "regression", "'one' as 'x' of 'day 0/00.png'"),
        ("file,x\nday 0/00.png,nan\n", "regression", "labels.csv' has 'nan' as 'x' of 'day 0/00.png'"),
        ("file,x\nday 0/00.png,-inf\n", "regression", "'-inf' as 'x' of 'day 0/00.png'"),
        ("file,x\nday 0/00.png,1e39\n", "regression", "'1e39' as 'x' of 'day 0/00.png'"),
        ("file,split,x\nday 0/00.png,both,1\n", "regression", "names the split 'both'"),
        ("file,x\n../elsewhere.png,1\n", "regression", "outside the folder"),
        ('file,x\n"day,1\n', "regression", "cannot be read as a table"),
    ],
)
def test_tables_that_say_something_else_are_refused_with_the_place(
    folder: Path, text: str, task: str, what: str
) -> None:
    with pytest.raises(DataError, match=what):
        loaded(folder, text, task=task)


def test_a_table_that_is_missing_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist") as caught:
        load(DataConfig(kind="table", path=tmp_path / "none.csv"), seed=0)
    assert "a column 'file'" in caught.value.why


def test_broken_and_missing_images_are_named(folder: Path) -> None:
    (folder / NAMES[3]).write_bytes(b"no image")
    (folder / NAMES[4]).unlink()
    text = table("file,class", ["pear", "apple"] * 6)
    with pytest.raises(DataError, match="2 of 12 images cannot be decoded") as caught:
        loaded(folder, text)
    assert NAMES[3] in caught.value.why
    assert f"{NAMES[4]} (it is not a file)" in caught.value.why
