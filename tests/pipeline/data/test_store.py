from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import DataConfig
from pipeline.data.base import Decoded
from pipeline.data.loading import load
from pipeline.data.sources.base import Index, LabelledImages
from pipeline.data.store import StoredImages, journal_of, store_images
from pipeline.errors import DataError, WorkFolderError

PIXELS = np.random.default_rng(0).integers(0, 256, (100, 5, 7, 3), np.uint8)


class Read:
    """A source that counts what is decoded, and may have grey or broken images or end after some."""

    def __init__(
        self, pixels: Any = PIXELS, *, grey: int = 0, broken: set[int] = frozenset(), ends: int = 10**9
    ) -> None:
        self.pixels, self.grey, self.broken, self.ends = pixels, grey, broken, ends
        self.asked: list[int] = []

    def __call__(self, index: Index) -> Decoded:
        if index[-1] >= self.ends:
            raise KeyboardInterrupt
        self.asked += index.tolist()
        rows = np.array([place for place, row in enumerate(index) if row not in self.broken], np.int64)
        channels = 1 if index[-1] < self.grey else 3
        lost = tuple(f"{row} (cut)" for row in index if row in self.broken)
        return Decoded(self.pixels[index[rows]][..., :channels], rows, lost)


def _stored(read: Read, path: Path, **keys: Any) -> StoredImages:
    source = LabelledImages(np.zeros(len(read.pixels), np.int64), read)
    return store_images(source, path, size=None, advance=lambda more: None, **keys)


def test_images_come_back_in_order_from_the_file(tmp_path: Path) -> None:
    found = _stored(Read(), tmp_path / "a")
    assert np.array_equal(found.images, PIXELS)
    assert found.images[3:5].base is not None
    assert (tmp_path / "a").stat().st_size == PIXELS.nbytes


def test_broken_images_are_named_and_leave_no_gap(tmp_path: Path) -> None:
    found = _stored(Read(broken={0, 17, 99}), tmp_path / "a")
    assert found.broken == ("0 (cut)", "17 (cut)", "99 (cut)")
    assert np.array_equal(found.images, PIXELS[found.rows])
    assert len(found.rows) == 97


def test_what_was_decoded_before_a_kill_is_not_decoded_again(tmp_path: Path) -> None:
    first = Read(ends=50, broken={5})
    with pytest.raises(KeyboardInterrupt):
        _stored(first, tmp_path / "a")
    journal = journal_of(tmp_path / "a")
    journal.write_text(journal.read_text() + '{"start": 4')
    with (tmp_path / "a").open("ab") as stream:
        stream.write(b"half an image")
    second = Read(broken={5})
    found = _stored(second, tmp_path / "a")
    assert first.asked
    assert not set(first.asked) & set(second.asked)
    assert np.array_equal(found.images, np.delete(PIXELS, 5, 0))
    assert found.broken == ("5 (cut)",)


def test_what_the_file_has_lost_is_decoded_again(tmp_path: Path) -> None:
    _stored(Read(), tmp_path / "a")
    content = bytearray((tmp_path / "a").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a").write_bytes(content)
    again = Read()
    assert np.array_equal(_stored(again, tmp_path / "a").images, PIXELS)
    assert 99 in again.asked
    assert 0 not in again.asked


def test_grey_images_become_coloured_once_there_is_colour(tmp_path: Path) -> None:
    found = _stored(Read(grey=40), tmp_path / "a")
    assert found.shape == (5, 7, 3)
    assert np.array_equal(found.images[0], np.repeat(PIXELS[0, ..., :1], 3, -1))
    assert np.array_equal(found.images[99], PIXELS[99])
    grey = _stored(Read(grey=101), tmp_path / "b")
    assert grey.shape == (5, 7, 1)
    assert _stored(Read(grey=101), tmp_path / "b", channels=3).shape == (5, 7, 3)


def test_only_chosen_rows_are_kept(tmp_path: Path) -> None:
    chosen = np.array([1, 4, 98])
    kept = _stored(Read(), tmp_path / "a").keep(chosen)
    assert np.array_equal(kept.images, PIXELS[chosen])
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


def test_a_disk_that_is_too_small_is_said_before_much_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("pipeline.data.store.shutil.disk_usage", lambda path: usage)
    read = Read()
    with pytest.raises(WorkFolderError, match="no space to keep 100 images of 7x5 pixels") as caught:
        _stored(read, tmp_path / "a")
    assert "image_size" in caught.value.fix
    assert len(read.asked) < 100


def _photographs(folder: Path, count: int, size: tuple[int, int] = (40, 30)) -> Path:
    generator = np.random.default_rng(0)
    for number in range(count):
        place = folder / "photographs" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.jpg")
    return folder / "photographs"


def test_a_folder_that_a_kill_interrupted_gives_the_same_data(tmp_path: Path) -> None:
    folder = _photographs(tmp_path, 80)
    config = DataConfig(kind="folder", path=folder)
    whole = load(config, seed=0)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom pipeline.data import DataConfig\n"
        "from pipeline.data.loading import load\n"
        "def told(done, total):\n    if done > 40: os.kill(os.getpid(), signal.SIGKILL)\n"
        "load(DataConfig(kind='folder', path=Path(sys.argv[1])), seed=0, folder=Path(sys.argv[2]), "
        "progress=told)"
    )
    place = tmp_path / "stage"
    place.mkdir()
    ended = subprocess.run([sys.executable, "-c", code, str(folder), str(place)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (place / "train.images").stat().st_size > 0
    resumed = load(config, seed=0, folder=place)
    assert resumed.digest == whole.digest
    assert np.array_equal(resumed.train.images, whole.train.images)
    assert sorted(path.name for path in place.iterdir()) == [
        "test.images",
        "train.images",
        "validation.images",
    ]


def test_images_of_one_size_need_not_be_square_and_of_several_are_refused(tmp_path: Path) -> None:
    folder = _photographs(tmp_path, 40)
    assert load(DataConfig(kind="folder", path=folder), seed=0).input_shape == (3, 30, 40)
    Image.new("RGB", (8, 8)).save(folder / "a" / "other.png")
    with pytest.raises(DataError, match="differ in size"):
        load(DataConfig(kind="folder", path=folder), seed=0)


@pytest.mark.parametrize("change", ["shorter", "longer", "gone"])
def test_a_file_of_other_images_is_told_before_it_is_looked_at(tmp_path: Path, change: str) -> None:
    """Pages that a mapped file lacks would end the process without a word."""
    stored = store_images(
        LabelledImages(np.zeros(100, np.int64), Read()),
        tmp_path / "images",
        size=None,
        advance=lambda more: None,
    )
    content = stored.path.read_bytes()
    assert (stored.images == PIXELS).all()
    if change == "gone":
        stored.path.unlink()
    else:
        stored.path.write_bytes(content[:-1] if change == "shorter" else content + b"1")
    with pytest.raises(WorkFolderError, match="not those that were prepared") as caught:
        _ = stored.images
    assert "10,500" in caught.value.why
    assert str(tmp_path) in caught.value.fix
