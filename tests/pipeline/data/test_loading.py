from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data import DataConfig, Dataset
from pipeline.data.loading import load
from pipeline.errors import DataError


def arrays(
    classes: int = 3, train: int = 10, test: int = 4, shape: tuple[int, ...] = (5, 6)
) -> dict[str, Any]:
    """Random images, ``train`` and ``test`` of each class."""
    generator = np.random.default_rng(0)
    result: dict[str, Any] = {}
    for split, count in (("train", train), ("test", test)):
        result[f"{split}_x"] = generator.integers(0, 256, (classes * count, *shape), np.uint8)
        result[f"{split}_y"] = np.tile(np.arange(classes), count)
    return result


def loaded(folder: Path, content: dict[str, Any], *, seed: int = 0, **settings: Any) -> Dataset:
    path = folder / "data.npz"
    np.savez(path, **content)
    return load(DataConfig(kind="npz", path=path, **settings), seed=seed)


def rows_of(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_load_reads_the_digits_in_stratified_splits() -> None:
    data = load(DataConfig(kind="digits"), seed=0)
    assert data.input_shape == (1, 8, 8)
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    assert data.train.images.max() == 255
    assert data.classes == tuple("0123456789")
    shares = np.bincount(data.test.labels) / 1797
    assert (abs(shares - 0.025) < 0.002).all()


def test_load_keeps_the_test_split_and_draws_another_validation_slice_for_another_seed() -> None:
    first, again, other = (load(DataConfig(kind="digits"), seed=seed) for seed in (0, 0, 1))
    assert first.digest == again.digest != other.digest
    assert np.array_equal(first.test.images, other.test.images)
    assert not np.array_equal(first.validation.images, other.validation.images)


def test_load_keeps_validation_apart_from_train_and_both_from_test(tmp_path: Path) -> None:
    content = arrays(train=20)
    data = loaded(tmp_path, content, validation=0.2)
    train, validation = rows_of(data.train.images), rows_of(data.validation.images)
    assert len(data.validation) == 12
    assert not train & validation
    assert train | validation == rows_of(content["train_x"])
    assert rows_of(data.test.images) == rows_of(content["test_x"])


def test_load_keeps_each_image_with_its_label(tmp_path: Path) -> None:
    content = arrays(train=20)
    label_of = {
        image.tobytes(): label for image, label in zip(content["train_x"], content["train_y"], strict=True)
    }
    data = loaded(tmp_path, content, train_limit=30)
    assert all(
        label_of[image.tobytes()] == label
        for image, label in zip(data.train.images, data.train.labels, strict=True)
    )


def test_load_limits_both_splits_with_equal_classes(tmp_path: Path) -> None:
    data = loaded(tmp_path, arrays(train=40, test=20), train_limit=60, test_limit=30)
    assert len(data.train) + len(data.validation) == 60
    assert np.bincount(data.test.labels).tolist() == [10, 10, 10]
    assert len(set(np.bincount(data.train.labels))) == 1


def test_load_normalises_train_to_mean_0_and_deviation_1(tmp_path: Path) -> None:
    data = loaded(tmp_path, arrays(shape=(5, 6, 3)))
    pixels = data.preprocessing(data.train.images).reshape(-1, 3)
    assert np.abs(pixels.mean(0)).max() < 1e-4
    assert np.abs(pixels.std(0) - 1).max() < 1e-4


def test_load_stays_finite_when_a_channel_is_constant(tmp_path: Path) -> None:
    content = arrays(shape=(5, 6, 3))
    content["train_x"][..., 1] = 9
    data = loaded(tmp_path, content)
    assert np.isfinite(data.preprocessing(data.train.images)).all()
    assert data.preprocessing.std[1] == pytest.approx(1 / 255, abs=1e-6)


def test_digest_changes_when_a_single_pixel_or_class_name_changes(tmp_path: Path) -> None:
    content = arrays()
    plain = loaded(tmp_path, content).digest
    pixel = {**content, "test_x": content["test_x"].copy()}
    pixel["test_x"][0, 0, 0] ^= 1
    assert (
        len(
            {
                plain,
                loaded(tmp_path, pixel).digest,
                loaded(tmp_path, {**content, "classes": list("abc")}).digest,
            }
        )
        == 3
    )
    assert loaded(tmp_path, content).digest == plain


def test_load_resizes_arrays_when_a_size_is_given(tmp_path: Path) -> None:
    assert loaded(tmp_path, arrays(shape=(9, 7, 3)), image_size=6).input_shape == (3, 6, 6)


def test_load_refuses_splits_of_two_and_four_channels(tmp_path: Path) -> None:
    content = arrays(shape=(5, 6, 4))
    content["train_x"] = content["train_x"][..., :2]
    with pytest.raises(DataError, match="different numbers of channels") as caught:
        loaded(tmp_path, content)
    assert caught.value.why == "train: 2, validation: 2, test: 4"


def test_load_names_the_classes_when_train_and_test_differ(tmp_path: Path) -> None:
    content = {**arrays(), "classes": ["ant", "bee", "cow"]}
    content["test_y"] = np.where(content["test_y"] == 2, 1, content["test_y"])
    with pytest.raises(DataError, match="classes differ between train and test") as caught:
        loaded(tmp_path, content)
    assert caught.value.why == "test lacks 'cow'"


def test_load_says_to_count_from_0_when_labels_start_at_1(tmp_path: Path) -> None:
    content = arrays()
    content["train_y"] += 1
    content["test_y"] += 1
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, content)
    assert "labels count from 0" in caught.value.fix


def test_load_refuses_labels_outside_the_classes(tmp_path: Path) -> None:
    content = {**arrays(), "classes": ["ant", "bee"]}
    with pytest.raises(DataError, match="labels run from 0 to 2, but there are 2 classes"):
        loaded(tmp_path, content)


def test_load_refuses_negative_labels(tmp_path: Path) -> None:
    content = arrays()
    content["test_y"] = content["test_y"] - 1
    with pytest.raises(DataError, match="labels run from -1 to 2"):
        loaded(tmp_path, content)


def test_load_refuses_a_single_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only one class"):
        loaded(tmp_path, arrays(classes=1))


def test_load_refuses_an_empty_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        loaded(tmp_path, arrays(test=0))


def test_load_refuses_splits_of_different_size(tmp_path: Path) -> None:
    content = {**arrays(), "test_x": arrays(shape=(4, 4))["test_x"]}
    with pytest.raises(DataError, match="differ in size between splits") as caught:
        loaded(tmp_path, content)
    assert "train has 6x5, test has 4x4" in caught.value.why


def test_load_refuses_too_few_images_of_a_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few to split"):
        loaded(tmp_path, arrays(train=1))


@pytest.mark.parametrize("kind", ["folder", "npz", "cifar", "mnist"])
def test_load_says_where_a_relative_path_starts_when_it_does_not_exist(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(DataError, match="does not exist") as caught:
        load(DataConfig(kind=kind, path=tmp_path / "absent"), seed=0)
    assert "path" in caught.value.fix
