"""Data whose labels are several numbers, or say who is alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import DataConfig, Dataset
from pipeline.data.loading import load
from pipeline.errors import DataError
from pipeline.tasks import Regression


def loaded(folder: Path, task: str, train: Any, test: Any, classes: Any = None, **settings: Any) -> Dataset:
    generator = np.random.default_rng(0)
    arrays = {}
    for name, labels in (("train", train), ("test", test)):
        arrays |= {f"{name}_x": generator.integers(0, 256, (len(labels), 6, 9, 1), np.uint8)}
        arrays |= {f"{name}_y": np.array(labels)}
    if classes is not None:
        arrays["classes"] = np.array(classes)
    np.savez(folder / "data.npz", **arrays)
    config = DataConfig(kind="npz", path=folder / "data.npz", task=task, **settings)
    return load(config, seed=0)


def test_every_image_keeps_its_labels(tmp_path: Path) -> None:
    train = np.random.default_rng(1).random((40, 3)) < 0.5
    data = loaded(tmp_path, "multi-label", train, train[:5], ("a", "b", "c"), train_limit=30)
    assert (len(data.train), len(data.validation), len(data.test)) == (26, 4, 5)
    assert data.classes == ("a", "b", "c")
    assert {split.task.kind for split in (data.train, data.validation, data.test)} == {"multi-label"}
    with np.load(tmp_path / "data.npz") as arrays:
        rows = {image.tobytes(): label for image, label in zip(arrays["train_x"], train, strict=True)}
    for split in (data.train, data.validation):
        assert all(
            (rows[image.tobytes()] == label).all()
            for image, label in zip(split.images, split.labels, strict=True)
        )


def test_numbers_are_kept_in_units_of_the_train_labels(tmp_path: Path) -> None:
    values = np.linspace(1000, 1039, 40)
    data = loaded(tmp_path, "regression", values, values[:4])
    assert isinstance(data.task, Regression)
    assert data.train.labels.shape == (34, 1)
    assert data.train.labels.mean() == pytest.approx(0, abs=1e-5)
    assert data.train.labels.std() == pytest.approx(1, abs=1e-5)
    back = data.test.labels * np.array(data.task.std) + np.array(data.task.mean)
    assert sorted(back[:, 0]) == pytest.approx(values[:4])


def test_people_of_the_test_split_need_not_be_among_those_of_the_train_split(tmp_path: Path) -> None:
    data = loaded(tmp_path, "embedding", [0, 0, 1, 1] * 5, [2, 2, 3, 3], list("abcd"))
    assert data.train.present == {0, 1}
    assert data.test.present == {2, 3}
    with pytest.raises(DataError, match="classes differ"):
        loaded(tmp_path, "single-label", [0, 0, 1, 1] * 5, [2, 2, 3, 3], list("abcd"))


def of_people(folder: Path, people: np.ndarray) -> DataConfig:
    """Image files of people, a folder for each."""
    generator = np.random.default_rng(0)
    for number, person in enumerate(people):
        (folder / "faces" / f"{person:02}").mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (4, 4), np.uint8)
        Image.fromarray(pixels).save(folder / "faces" / f"{person:02}" / f"{number}.png")
    return DataConfig(kind="folder", path=folder / "faces", task="embedding")


def one_hot(labels: np.ndarray) -> np.ndarray:
    return np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]


def test_people_with_few_images_are_held_out_with_two_of_them(tmp_path: Path) -> None:
    people = np.repeat(np.arange(60), 4)
    config = of_people(tmp_path, people)
    data = load(config, seed=0)
    for split, share in ((data.test, 0.25), (data.validation, 0.75 * 0.15)):
        assert set(np.bincount(split.labels)) == {0, 2}
        assert len(split) == pytest.approx(share * len(people), abs=2)
        assert split.task.value(one_hot(split.labels), split.labels) == 1


def test_a_test_split_without_a_limit_has_any_number_of_people(tmp_path: Path) -> None:
    names = [f"person {number}" for number in range(60)]
    data = loaded(tmp_path, "embedding", np.repeat(np.arange(40), 6), np.repeat(np.arange(40, 60), 2), names)
    assert len(data.test) == 40


@pytest.mark.parametrize(
    ("test", "settings", "which"), [([2, 3], {}, "test"), ([2, 2, 3, 3], {"test_limit": 2}, "test")]
)
def test_people_that_are_all_alone_in_a_split_are_refused(
    tmp_path: Path, test: list[int], settings: dict[str, Any], which: str
) -> None:
    with pytest.raises(DataError, match=f"no two {which} images have the same label") as caught:
        loaded(tmp_path, "embedding", [0, 0, 1, 1] * 5, test, list("abcd"), **settings)
    assert "two images or more of a label" in caught.value.fix


def test_the_task_is_part_of_the_digest(tmp_path: Path) -> None:
    labels = [0, 1] * 10
    digests = {loaded(tmp_path, task, labels, labels).digest for task in ("single-label", "embedding")}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("task", "train", "test", "what"),
    [
        ("multi-label", [[0, 1], [2, 1], [1, 0]], [[1, 1]], "train labels are not all 0 or 1"),
        ("multi-label", [[0, 1], [0, 1], [1, 0]], [[1, 0]], "no test image has the label '1'"),
        ("multi-label", [[0, 1], [0, 1], [1, 0]], [[1, 0, 1]], "name 2 outputs"),
        ("regression", [[0.5, np.nan]] * 3, [[1.0, 2.0]], "NaN or infinity"),
        ("regression", [[0.5, 1.0], [0.5, 2.0], [0.5, 3.0]], [[1.0, 2.0]], "number 0 is the same"),
        ("regression", [[0.5, 1e39]] * 3, [[1.0, 2.0]], "a number above 3.4e.38"),
        ("regression", [["a"], ["b"]], [["c"]], "not a table of numbers"),
        ("regression", [[1.0]], [[2.0]], "one image is too few"),
        ("regression", [[[1.0]]], [[2.0]], "not a table of numbers"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(
    tmp_path: Path, task: str, train: Any, test: Any, what: str
) -> None:
    with pytest.raises(DataError, match=what):
        loaded(tmp_path, task, train, test)
