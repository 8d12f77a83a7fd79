from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import DataConfig, Split
from pipeline.data.duplicates import rows_without_duplicates
from pipeline.data.loading import load
from pipeline.errors import DataError


def _write(path: Path, leaked: int) -> Path:
    generator = np.random.default_rng(0)
    train, test = (generator.integers(0, 256, (count, 4, 4), dtype=np.uint8) for count in (40, 10))
    train[:leaked] = test[:leaked]
    np.savez(path, train_x=train, train_y=np.arange(40) % 2, test_x=test, test_y=np.arange(10) % 2)
    return path


def test_train_images_that_are_in_test_too_are_removed_and_told(tmp_path: Path) -> None:
    data = load(DataConfig(kind="npz", path=_write(tmp_path / "d.npz", 6)), seed=0)
    assert len(data.train) + len(data.validation) == 34
    assert len(data.test) == 10
    seen = {image.tobytes() for image in data.test.images}
    assert not seen & {image.tobytes() for image in (*data.train.images, *data.validation.images)}
    assert sum(int(note.split()[0]) for note in data.notes) == 6
    assert all("holds the same pixels" in note for note in data.notes)


def test_duplicates_are_only_counted_where_they_are_to_be_kept(tmp_path: Path) -> None:
    data = load(DataConfig(kind="npz", path=_write(tmp_path / "d.npz", 6), duplicates="keep"), seed=0)
    assert len(data.train) + len(data.validation) == 40
    assert sum(int(note.split()[0]) for note in data.notes) == 6
    assert all("kept in" in note for note in data.notes)


def test_nothing_is_said_where_there_are_none(tmp_path: Path) -> None:
    data = load(DataConfig(kind="npz", path=_write(tmp_path / "d.npz", 0)), seed=0)
    assert (len(data.train) + len(data.validation), data.notes) == (40, ())


def test_a_class_that_would_lose_all_its_images_is_named() -> None:
    images = np.arange(4 * 4, dtype=np.uint8).reshape(4, 2, 2, 1)
    test = Split(images[:2], np.array([0, 0]))
    train = Split(images, np.array([0, 0, 1, 1]))
    other = Split(images[:0], np.array([], dtype=np.int64))
    with pytest.raises(DataError, match="no train image of class 'cat' is left") as caught:
        rows_without_duplicates([train, other, test], ("cat", "dog"), remove=True)
    assert "duplicates" in caught.value.fix


def test_images_in_a_file_are_never_in_memory_together(tmp_path: Path) -> None:
    count, shape = 500, (64, 64, 3)
    images = np.memmap(tmp_path / "images", np.uint8, "w+", shape=(count, *shape))
    images[:, 0, 0, :2] = np.arange(count, dtype=np.uint16).view(np.uint8).reshape(count, 2)
    train, rest = Split(images, np.arange(count) % 2).after(20), Split(images, np.arange(count) % 2).first(20)
    tracemalloc.start()
    rows, notes = rows_without_duplicates([train, rest.after(10), rest.first(10)], ("a", "b"), remove=True)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(each) for each in rows] == [480, 10, 10]
    assert not notes
    assert peak_bytes < images.nbytes / 10
