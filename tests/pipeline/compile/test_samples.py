"""Data for a finished model: split, fed as the model takes them, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.compile.feeding import Feeding
from pipeline.compile.model import GivenModel, TensorSpec
from pipeline.compile.samples import (
    CALIBRATION,
    Samples,
    SamplesInput,
    held_out_limit,
    open_samples,
    prepare_samples,
)
from pipeline.compile.services import CompileServices
from pipeline.compile.variants import ModelFormat
from pipeline.errors import DataError
from pipeline.progress import SilentReporter
from pipeline.tasks import TaskKind
from pipeline.work.folder import WorkFolder

COUNT = 40


def model(shape: tuple[int, ...] = (1, 3, 8, 8), output: tuple[int, ...] = (1, 4)) -> GivenModel:
    entry, scores = TensorSpec("image", shape, "float32"), TensorSpec("scores", output, "float32")
    return GivenModel("net", ModelFormat.ONNX, {}, (entry,), (scores,))


def prepared(
    path: Path | None,
    tmp_path: Path,
    given: GivenModel | None = None,
    feeding: Feeding | None = None,
    task: TaskKind = "single-label",
) -> tuple[Samples, dict[str, np.ndarray]]:
    work = WorkFolder(tmp_path / "work")
    with work.opened():
        asked = SamplesInput.of(path, feeding or Feeding(), given or model(), task)
        samples = work.run(prepare_samples, asked, CompileServices(SilentReporter(), work))
        return samples, open_samples(samples, work.find(samples.arrays))


def pixels(count: int = COUNT, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_without_data_inputs_are_random_and_have_no_labels(tmp_path: Path) -> None:
    samples, arrays = prepared(None, tmp_path)
    assert samples.random
    assert not samples.labelled
    assert arrays["held_out.0"].shape[1:] == (3, 8, 8)
    assert not np.isin(arrays["held_out.0"], arrays["calibration.0"]).any()


@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels")])
def test_images_are_fed_in_the_models_layout_and_labels_stay_with_them(
    names: tuple[str, str], tmp_path: Path
) -> None:
    images, labels = pixels(), np.arange(COUNT) % 4
    path = saved(tmp_path / "data.npz", **dict(zip(names, (images, labels), strict=True)))
    samples, arrays = prepared(path, tmp_path, feeding=Feeding((0.5,), (0.25,)))
    assert samples.labelled
    assert samples.counts == (COUNT // 2, COUNT // 2)
    assert samples.image_shape == (8, 8, 3)
    fed = ((arrays["images"] / np.float32(255) - np.float32(0.5)) / np.float32(0.25)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(arrays["held_out.0"], fed, rtol=1e-6)
    rows = [next(n for n in range(COUNT) if (images[n] == image).all()) for image in arrays["images"]]
    assert (labels[rows] == arrays["labels"]).all()


def test_what_is_calibrated_with_is_not_held_out(tmp_path: Path) -> None:
    values = np.arange(2 * 300, dtype=np.float32).reshape(300, 2)
    path = tmp_path / "data.npy"
    np.save(path, values)
    samples, arrays = prepared(path, tmp_path, model((1, 2)))
    assert samples.counts == (CALIBRATION, 300 - CALIBRATION)
    assert not set(arrays["calibration.0"][:, 0]) & set(arrays["held_out.0"][:, 0])


def test_floating_point_inputs_are_given_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((6, 3, 8, 8), dtype=np.float32)
    samples, arrays = prepared(saved(tmp_path / "data.npz", x=values), tmp_path)
    assert samples.image_shape is None
    assert np.isin(arrays["held_out.0"], values).all()


def test_images_of_another_size_are_resized(tmp_path: Path) -> None:
    _, arrays = prepared(saved(tmp_path / "data.npz", x=pixels(size=16)), tmp_path)
    assert arrays["held_out.0"].shape[1:] == (3, 8, 8)


def images_in(folder: Path, count: int = 6, size: int = 8, *, classes: int = 0) -> Path:
    for number, image in enumerate(pixels(count, size)):
        path = folder / (f"class{number % classes}" if classes else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.mark.parametrize("classes", [0, 4])
def test_photographs_are_brought_to_the_height_and_width_of_the_model(classes: int, tmp_path: Path) -> None:
    folder = images_in(tmp_path / "images", COUNT, size=16, classes=classes)
    _, arrays = prepared(folder, tmp_path, model((1, 3, 6, 10)))
    assert arrays["held_out.0"].shape[1:] == (3, 6, 10)
    path = saved(tmp_path / "data.npz", x=pixels(size=16))
    _, arrays = prepared(path, tmp_path, model((1, 6, 10, 3)))
    assert arrays["held_out.0"].shape[1:] == (6, 10, 3)


@pytest.mark.parametrize("classes", [0, 4])
def test_images_are_refused_for_a_model_that_takes_none(classes: int, tmp_path: Path) -> None:
    folder = images_in(tmp_path / "images", classes=classes)
    with pytest.raises(DataError, match="has images, and net takes none") as caught:
        prepared(folder, tmp_path, model((1, 2)))
    assert caught.value.why == "its input is 2"


def test_images_that_cannot_be_as_small_as_the_input_are_refused(tmp_path: Path) -> None:
    folder = images_in(tmp_path / "images", COUNT, classes=4)
    with pytest.raises(DataError, match="cannot be brought to the size of the input") as caught:
        prepared(folder, tmp_path, model((1, 3, 2, 5)))
    assert "it is 3 x 2 x 5" in caught.value.why


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 3, 8, 8), "int8"), ((1, 8, 8, 3), "int8"), ((1, 3, 8, 8), "bool")]
)
def test_bytes_that_an_input_cannot_hold_are_refused(
    shape: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    given = replace(model(), inputs=(TensorSpec("image", shape, dtype),))
    with pytest.raises(DataError, match="do not fit net") as caught:
        prepared(saved(tmp_path / "data.npz", x=pixels()), tmp_path, given)
    assert f"some numbers do not fit into {dtype}" in caught.value.why
    assert f"give them as {dtype}" in caught.value.fix
    held = pixels() % 2
    _, arrays = prepared(saved(tmp_path / "data.npz", x=held), tmp_path, given)
    assert arrays["held_out.0"].dtype == dtype
    assert set(np.unique(arrays["held_out.0"])) == {0, 1}


def test_numbers_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    given = replace(model(), inputs=(TensorSpec("image", (1, 2), "float16"),))
    path = saved(tmp_path / "data.npz", x=np.full((COUNT, 2), 70_000, np.float32))
    with pytest.raises(DataError, match="numbers beyond float16"):
        prepared(path, tmp_path, given)


def test_more_images_than_are_turned_at_a_time_are_all_fed(tmp_path: Path) -> None:
    images = pixels(300)
    _, arrays = prepared(saved(tmp_path / "data.npz", x=images), tmp_path)
    order = np.random.default_rng(0).permutation(300)
    wanted = images.transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_allclose(arrays["calibration.0"], wanted[order[:CALIBRATION]], rtol=1e-6)
    np.testing.assert_allclose(arrays["held_out.0"], wanted[order[CALIBRATION:]], rtol=1e-6)


def test_two_thousand_photographs_of_224_pixels_are_held_out_and_fewer_of_640() -> None:
    assert held_out_limit(model((1, 3, 224, 224), (1, 1000))) == 2000
    # 4 bytes for each of 3 x 640 x 640 inputs and 84 x 8400 outputs.
    assert held_out_limit(model((1, 3, 640, 640), (1, 84, 8400))) == 1_250_000_000 // 7_737_600


@pytest.mark.parametrize("kind", ["arrays", "images", "classes"])
def test_of_large_inputs_fewer_are_held_out_and_that_is_said(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 4 bytes for each of 3 x 8 x 8 inputs and 4 outputs: room for 5.
    monkeypatch.setattr("pipeline.compile.samples.MOST_BYTES", 5 * 784)
    if kind == "arrays":
        path = saved(tmp_path / "data.npz", x=pixels())
    else:
        path = images_in(tmp_path / "images", COUNT, classes=4 if kind == "classes" else 0)
    samples, arrays = prepared(path, tmp_path)
    assert samples.counts[1] == len(arrays["held_out.0"]) == 5
    assert any(note.startswith("5 of ") and "are held out" in note for note in samples.notes)


def test_inputs_beyond_the_memory_of_this_machine_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "data.npz", x=pixels())
    monkeypatch.setattr("pipeline.compile.feeding.machine_bytes", lambda: 10_000)
    with pytest.raises(DataError, match="20 inputs of net need at least") as caught:
        prepared(path, tmp_path)
    assert "give fewer" in caught.value.fix


def test_a_folder_of_images_without_classes_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(pixels(6)):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "6.png").write_bytes(b"no image")
    samples, arrays = prepared(folder, tmp_path)
    assert sum(samples.counts) == 6
    assert not samples.labelled
    assert "1 images" in samples.notes[0]
    assert arrays["held_out.0"].max() <= 1


def test_a_folder_by_class_gives_labels(tmp_path: Path) -> None:
    for number, image in enumerate(pixels(40)):
        folder = tmp_path / "images" / f"class{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    samples, arrays = prepared(tmp_path / "images", tmp_path)
    assert samples.labelled
    assert samples.classes == ("class0", "class1", "class2", "class3")
    assert set(arrays["labels"]) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((9, 3, 9, 9), np.float32)}, "do not fit net"),
        ({"x": np.zeros((9, 3, 8, 8), np.int32)}, "do not fit net"),
        ({"x": np.zeros((9, 5), np.uint8)}, "do not fit net"),
        ({"z": np.zeros((9, 3, 8, 8), np.float32)}, "has no inputs of net"),
        ({"x": np.full((9, 3, 8, 8), np.nan, np.float32)}, "NaN"),
        ({"x": pixels(9), "y": np.zeros(9, np.int64)}, "are of class 0"),
        ({"x": pixels(9), "y": np.arange(9)}, "knows 4 classes"),
        ({"x": pixels(9), "y": np.arange(5)}, "do not fit"),
        ({"x": pixels(9), "y": np.zeros(9, np.float32)}, "do not fit"),
        ({"x": pixels(9), "y": np.array(["cat"] * 9)}, "do not fit"),
    ],
)
def test_data_that_do_not_fit_are_refused(arrays: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        prepared(saved(tmp_path / "data.npz", **arrays), tmp_path)


def test_labels_are_refused_where_the_model_scores_no_classes(tmp_path: Path) -> None:
    path = saved(tmp_path / "data.npz", x=pixels(8), y=np.arange(8) % 2)
    with pytest.raises(DataError, match="gives no scores of classes"):
        prepared(path, tmp_path, model(output=(1, 8, 8, 3)))


def test_a_path_that_is_not_there_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no data"):
        prepared(tmp_path / "nothing", tmp_path)
    (tmp_path / "data.txt").write_text("1,2")
    with pytest.raises(DataError, match="no data that can be read"):
        prepared(tmp_path / "data.txt", tmp_path)


def test_means_of_another_number_of_channels_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "data.npz", x=pixels(8))
    with pytest.raises(DataError, match="are of 2 channels, the images have 3"):
        prepared(path, tmp_path, feeding=Feeding((0.5, 0.5), (1.0, 1.0)))


def test_an_object_array_is_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        prepared(path, tmp_path)


@pytest.mark.parametrize("name", ["data.npz", "data.npy"])
def test_a_damaged_file_of_arrays_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("z"):
        np.savez_compressed(path, x=pixels(8))
    else:
        np.save(path, pixels(8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : -200] = b"\xff" * len(content[len(content) // 2 : -200])
    path.write_bytes(content if name.endswith("z") else content[:-1])
    with pytest.raises(DataError, match="cannot be read"):
        prepared(path, tmp_path)


def test_a_file_that_unpacks_to_much_more_than_it_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.zeros((30_000, 64, 64, 1), np.uint8))
    with pytest.raises(DataError, match="suspiciously small"):
        prepared(path, tmp_path)


def of_two() -> GivenModel:
    """A picture and two numbers to scores."""
    image, numbers = TensorSpec("image", (1, 3, 8, 8), "float32"), TensorSpec("numbers", (1, 2), "int64")
    return replace(model(), inputs=(image, numbers))


def test_several_inputs_have_an_array_each_by_their_names(tmp_path: Path) -> None:
    numbers, labels = np.arange(2 * COUNT).reshape(COUNT, 2), np.arange(COUNT) % 4
    path = saved(tmp_path / "data.npz", numbers=numbers.astype(np.int32), y=labels, image=pixels())
    samples, arrays = prepared(path, tmp_path, of_two())
    assert samples.counts == (COUNT // 2, COUNT // 2)
    image, rows = arrays["held_out.0"], arrays["held_out.1"]
    assert (image.shape[1:], rows.dtype) == ((3, 8, 8), np.int64)
    # Row by row all belong together.
    assert (arrays["labels"] == rows[:, 0] // 2 % 4).all()
    given = pixels()[rows[:, 0] // 2].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(image, given / np.float32(255), rtol=1e-6)
    assert samples.image_shape is None


def test_without_data_each_input_gets_random_numbers_of_its_type(tmp_path: Path) -> None:
    _, arrays = prepared(None, tmp_path, of_two())
    assert arrays["held_out.0"].dtype == np.float32
    assert set(np.unique(arrays["held_out.1"])) == {0, 1}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"image": pixels()}, "no inputs of net"),
        ({"image": pixels(), "numbers": np.zeros((COUNT - 1, 2), np.int64)}, "as many rows"),
        ({"image": pixels(), "numbers": np.zeros((COUNT, 2), np.float32)}, "do not fit net"),
        ({"image": pixels(), "numbers": np.full((COUNT, 2), 2**63, np.uint64)}, "do not fit net"),
    ],
)
def test_arrays_that_are_not_those_of_several_inputs_are_refused(
    arrays: dict[str, np.ndarray], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        prepared(saved(tmp_path / "data.npz", **arrays), tmp_path, of_two())


def test_data_of_one_input_are_refused_where_several_are_needed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="takes 2") as caught:
        prepared(tmp_path / "images", tmp_path, of_two())
    assert "image, numbers" in caught.value.why


def test_bytes_are_given_as_they_are_to_a_model_that_takes_bytes(tmp_path: Path) -> None:
    given = replace(model(), inputs=(TensorSpec("image", (1, 8, 8, 3), "uint8"),))
    samples, arrays = prepared(saved(tmp_path / "data.npz", x=pixels()), tmp_path, given)
    assert np.isin(arrays["held_out.0"], pixels()).all()
    assert arrays["held_out.0"].dtype == np.uint8
    assert samples.image_shape is None


@pytest.mark.parametrize("name", ["DATA.NPZ", "Data.Npy"])
def test_suffixes_may_be_of_any_case(name: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((6, 3, 8, 8), dtype=np.float32)
    with (tmp_path / name).open("wb") as stream:
        if name == "DATA.NPZ":
            np.savez(stream, x=values)
        else:
            np.save(stream, values)
    samples, _ = prepared(tmp_path / name, tmp_path)
    assert sum(samples.counts) == 6


NUMBERS = np.random.default_rng(3).normal(40, 7, (COUNT, 4))
SEVERAL = (NUMBERS > 40).astype(np.int64)


@pytest.mark.parametrize(
    ("task", "labels"),
    [("multi-label", SEVERAL), ("regression", NUMBERS), ("embedding", np.arange(COUNT) % 9)],
)
def test_labels_of_every_task_stay_with_their_images(
    task: TaskKind, labels: np.ndarray, tmp_path: Path
) -> None:
    images = pixels()
    path = saved(tmp_path / "data.npz", x=images, y=labels, classes=np.array(["a", "b", "c", "d"]))
    samples, arrays = prepared(path, tmp_path, task=task)
    assert samples.task is not None
    assert samples.task.kind == task
    assert samples.labelled
    assert samples.classes == ("a", "b", "c", "d")
    rows = [next(n for n in range(COUNT) if (images[n] == image).all()) for image in arrays["images"]]
    np.testing.assert_allclose(arrays["labels"], labels[rows], rtol=1e-6)


@pytest.mark.parametrize("task", ["multi-label", "regression"])
def test_a_table_of_labels_or_numbers_is_read_in_its_own_unit(task: TaskKind, tmp_path: Path) -> None:
    values = SEVERAL if task == "multi-label" else NUMBERS
    lines = ["file,split,a,b,c,d"]
    for number, (image, row) in enumerate(zip(pixels(), values, strict=True)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'test' if number % 2 else 'train'},{','.join(map(str, row))}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    samples, arrays = prepared(tmp_path / "labels.csv", tmp_path, task=task)
    assert samples.classes == ("a", "b", "c", "d")
    assert sorted(arrays["labels"][:, 0]) == pytest.approx(sorted(values[1::2, 0]), rel=1e-5)
    assert samples.image_shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("task", "labels", "output", "said"),
    [
        ("single-label", NUMBERS, (1, 4), "say with --task what they are"),
        ("regression", NUMBERS[:, :3], (1, 4), "has 3 labels for each input, net gives 4 numbers"),
        ("regression", np.full((COUNT, 4), np.nan), (1, 4), "NaN or infinite"),
        ("multi-label", NUMBERS, (1, 4), "not all 0 or 1"),
        ("regression", SEVERAL[:, 0].astype("U1"), (1, 4), "do not fit"),
        ("embedding", np.arange(COUNT), (1, 4), "have the same label"),
        ("embedding", NUMBERS[:, 0], (1, 4), "do not fit"),
        ("regression", NUMBERS, (1, 8, 8, 3), "is not for --task regression"),
        ("single-label", np.arange(COUNT) % 2, (1, 1), "say with --task what they are"),
    ],
)
def test_labels_of_another_task_are_refused(
    task: TaskKind, labels: np.ndarray, output: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "data.npz", x=pixels(), y=labels)
    with pytest.raises(DataError) as refused:
        prepared(path, tmp_path, model(output=output), task=task)
    assert said in f"{refused.value.what} {refused.value.why} {refused.value.fix}"


def test_folders_of_classes_are_no_data_for_numbers(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="has a class for each image, and the task is regression"):
        prepared(tmp_path / "images", tmp_path, task="regression")


def test_one_number_is_a_regression_where_that_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "data.npz", x=pixels(), y=NUMBERS[:, 0])
    samples, arrays = prepared(path, tmp_path, model(output=(1, 1)), task="regression")
    assert samples.task is not None
    assert arrays["labels"].shape == (COUNT // 2, 1)
    assert prepared(None, tmp_path, model(output=(1, 1)))[0].task is None
