from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import DataConfig
from pipeline.data.loading import load
from pipeline.errors import DataError


def fill(
    folder: Path, classes: str, count: int, *, size: tuple[int, int] = (6, 6), suffix: str = "png"
) -> None:
    for level, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.full((*size, 3), 40 * level + number, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.{suffix}")


def test_load_reads_train_and_test_folders_with_classes_in_order(tmp_path: Path) -> None:
    fill(tmp_path / "train", "abc", 6)
    fill(tmp_path / "test", "abc", 3)
    data = load(DataConfig(kind="folder", path=tmp_path, duplicates="keep"), seed=0)
    assert data.classes == ("a", "b", "c")
    assert (len(data.train) + len(data.validation), len(data.test)) == (18, 9)
    assert (data.test.images[:, 0, 0, 0] // 40 == data.test.labels).all()


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_load_takes_a_validation_folder_as_test_when_there_is_no_test(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "train", "ab", 6)
    fill(tmp_path / name, "ab", 2)
    assert len(load(DataConfig(kind="folder", path=tmp_path), seed=0).test) == 4


@pytest.mark.parametrize("inside", ["", "train"])
def test_load_holds_out_a_test_split_when_there_is_none(tmp_path: Path, inside: str) -> None:
    fill(tmp_path / inside, "ab", 8)
    data = load(DataConfig(kind="folder", path=tmp_path, test=0.25), seed=0)
    assert np.bincount(data.test.labels).tolist() == [2, 2]


def test_load_takes_train_for_a_class_when_images_lie_in_it(tmp_path: Path) -> None:
    fill(tmp_path, "ab", 8)
    (tmp_path / "a").rename(tmp_path / "train")
    (tmp_path / "b").rename(tmp_path / "bus")
    assert load(DataConfig(kind="folder", path=tmp_path), seed=0).classes == ("bus", "train")


def test_load_passes_over_files_that_are_not_images_and_reads_nested_ones(tmp_path: Path) -> None:
    fill(tmp_path, "ab", 8, suffix="bmp")
    (tmp_path / "a" / "notes.txt").write_text("hello")
    (tmp_path / "a" / ".hidden.png").write_text("not an image")
    (tmp_path / "a" / "more").mkdir()
    (tmp_path / "a" / "0.bmp").rename(tmp_path / "a" / "more" / "0.BMP")
    data = load(DataConfig(kind="folder", path=tmp_path), seed=0)
    assert sum(map(len, (data.train, data.validation, data.test))) == 16


def test_load_names_the_classes_when_folders_differ(tmp_path: Path) -> None:
    fill(tmp_path / "train", "abc", 4)
    fill(tmp_path / "test", "abd", 4)
    with pytest.raises(DataError, match="classes differ") as caught:
        load(DataConfig(kind="folder", path=tmp_path), seed=0)
    assert caught.value.why == "train lacks 'd'; test lacks 'c'"


def cut_off(*files: Path) -> None:
    for file in files:
        file.write_bytes(file.read_bytes()[:40])


def test_load_counts_and_names_images_that_are_corrupted_in_all_splits_and_offers_to_leave_them_out(
    tmp_path: Path,
) -> None:
    fill(tmp_path / "train", "ab", 8)
    fill(tmp_path / "test", "ab", 8)
    broken = [tmp_path / split / "b" / f"{number}.png" for split in ("train", "test") for number in range(3)]
    cut_off(*broken)
    with pytest.raises(DataError, match="6 of 32 images cannot be decoded") as caught:
        load(DataConfig(kind="folder", path=tmp_path), seed=0)
    assert sum(str(file) in caught.value.why for file in broken) == 5
    assert caught.value.why.endswith("and 1 more")
    assert 'broken = "skip"' in caught.value.fix


def test_load_leaves_corrupted_images_out_if_asked_to_and_says_so(tmp_path: Path) -> None:
    fill(tmp_path / "train", "ab", 8)
    fill(tmp_path / "test", "ab", 8)
    cut_off(tmp_path / "train" / "a" / "3.png", tmp_path / "test" / "b" / "0.png")
    data = load(DataConfig(kind="folder", path=tmp_path, broken="skip", duplicates="keep"), seed=0)
    assert len(data.train) + len(data.validation) == 15
    assert data.test.labels.tolist().count(0) == 8
    assert data.test.labels.tolist().count(1) == 7
    note = data.notes[0]
    assert note.startswith("left out 2 of 32 images that cannot be decoded: ")
    assert str(Path("b", "0.png")) in note


def test_load_refuses_to_leave_out_all_images_of_a_class(tmp_path: Path) -> None:
    fill(tmp_path / "train", "ab", 8)
    fill(tmp_path / "test", "ab", 2)
    cut_off(*(tmp_path / "test" / "b").iterdir())
    with pytest.raises(DataError, match="no test image of class 'b' is left") as caught:
        load(DataConfig(kind="folder", path=tmp_path, broken="skip"), seed=0)
    assert "2 of 20 images cannot be decoded" in caught.value.why


def test_load_asks_for_a_size_when_images_differ_and_accepts_it(tmp_path: Path) -> None:
    fill(tmp_path / "train", "ab", 8)
    fill(tmp_path / "test", "ab", 8, size=(9, 12))
    with pytest.raises(DataError, match="differ in size") as caught:
        load(DataConfig(kind="folder", path=tmp_path), seed=0)
    assert "image_size" in caught.value.fix
    config = DataConfig(kind="folder", path=tmp_path, image_size=5, duplicates="keep")
    assert load(config, seed=0).input_shape == (3, 5, 5)


def test_load_refuses_a_folder_without_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not hold the expected data"):
        load(DataConfig(kind="folder", path=tmp_path), seed=0)


def test_load_refuses_classes_without_any_image(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="no images under"):
        load(DataConfig(kind="folder", path=tmp_path), seed=0)


def test_load_names_the_class_when_one_folder_is_empty(tmp_path: Path) -> None:
    fill(tmp_path, "ab", 8)
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="classes without images") as caught:
        load(DataConfig(kind="folder", path=tmp_path), seed=0)
    assert "'c'" in caught.value.why


def test_hidden_copies_and_what_systems_leave_behind_never_count(tmp_path: Path) -> None:
    fill(tmp_path, "ab", 8)
    for folder in (tmp_path / "a" / ".ipynb_checkpoints", tmp_path / "__MACOSX" / "a"):
        folder.mkdir(parents=True)
        (folder / "0-checkpoint.png").write_bytes((tmp_path / "a" / "0.png").read_bytes())
    for name in ("._0.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / "a" / name).write_bytes(b"x")
    data = load(DataConfig(kind="folder", path=tmp_path), seed=0)
    assert data.classes == ("a", "b")
    assert sum(map(len, (data.train, data.validation, data.test))) == 16
    assert data.notes == ()


def test_a_folder_below_a_hidden_one_is_read_all_the_same(tmp_path: Path) -> None:
    fill(tmp_path / ".cache" / "data", "ab", 8)
    assert load(DataConfig(kind="folder", path=tmp_path / ".cache" / "data"), seed=0).classes == ("a", "b")


def test_what_is_left_out_is_named_by_kind(tmp_path: Path) -> None:
    fill(tmp_path, "ab", 8)
    for name in ("labels.txt", "more.TXT", "README"):
        (tmp_path / "a" / name).write_text("words")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    data = load(DataConfig(kind="folder", path=tmp_path), seed=0)
    assert data.notes == (
        "left out 2 files .txt: labels.txt, more.TXT",
        "left out 1 file broken link: gone.png",
        "left out 1 file without suffix: README",
    )


def test_every_readable_kind_of_image_counts_once(tmp_path: Path) -> None:
    fill(tmp_path, "ab", 8, size=(40, 48))
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    other = Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8))
    folder = tmp_path / "a"
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("L").save(folder / "grey.jpg")
    image.convert("P").save(folder / "palette.png")
    image.convert("1").save(folder / "one_bit.tif")
    image.save(folder / "UPPER.JPEG")
    image.save(folder / "animated.gif", save_all=True, append_images=[other])
    image.save(folder / "two_pages.tif", save_all=True, append_images=[other])
    data = load(DataConfig(kind="folder", path=tmp_path, image_size=32, duplicates="keep"), seed=0)
    assert sum(map(len, (data.train, data.validation, data.test))) == 16 + 7


def test_what_is_seen_decides_where_pixels_are_transparent(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for colour, name in ((255, "a"), (0, "b")):
        (tmp_path / name).mkdir()
        for number in range(8):
            pixels = generator.integers(0, 255, (6, 6, 4), dtype=np.uint8)
            pixels[..., 3] = 0
            pixels[2:4, 2:4] = (colour, number, 0, 255)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    data = load(DataConfig(kind="folder", path=tmp_path), seed=0)
    assert (data.test.images[:, 0, 0] == 255).all()
    assert (data.test.images[:, 2, 2, 0] == np.where(data.test.labels == 0, 255, 0)).all()
    black = load(DataConfig(kind="folder", path=tmp_path, background=(0, 0, 9)), seed=0)
    assert (black.test.images[:, 0, 0] == (0, 0, 9)).all()


@pytest.mark.parametrize(
    ("folders", "why"),
    [
        (["val"], "beside val its folder 'train' is missing"),
        (["val", "test"], "beside test and val its folder 'train' is missing"),
        (["test", "train"], "beside test its folder 'train' has no class folders"),
    ],
)
def test_splits_without_one_to_learn_from_are_told(tmp_path, folders, why):
    for name in folders:
        (tmp_path / name / ("cat" if name != "train" else "")).mkdir(parents=True)
    with pytest.raises(DataError, match="no images to learn from") as caught:
        load(DataConfig(kind="folder", path=tmp_path), seed=0)
    assert caught.value.why == why
    assert "train/CLASS/" in caught.value.fix


def test_images_of_folders_that_are_not_used_are_counted(tmp_path: Path) -> None:
    for name, count in (("train", 6), ("test", 3), ("val", 2), ("spare", 1)):
        fill(tmp_path / name, "ab", count)
    (tmp_path / "notes").mkdir()
    data = load(DataConfig(kind="folder", path=tmp_path, duplicates="keep"), seed=0)
    assert len(data.test) == 6
    unused = [note for note in data.notes if "not used" in note]
    assert unused == ["2 images of 'spare' are not used", "4 images of 'val' are not used"]
