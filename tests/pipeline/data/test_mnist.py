from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import DataConfig
from pipeline.data.loading import load
from pipeline.errors import DataError


def write(folder: Path, *, separator: str = "-", compressed: bool = False) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    written = {}
    for stem, count in (("train", 40), ("t10k", 20)):
        images = generator.integers(0, 256, (count, 7, 5), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 4
        for kind, magic, array in (("images", 2051, images), ("labels", 2049, labels)):
            head = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
            name = f"{stem}-{kind}{separator}idx{array.ndim}-ubyte"
            content = head + array.tobytes()
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
        written[stem] = images
    return written


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("separator", ["-", "."])
def test_load_reads_idx_files(tmp_path: Path, separator: str, compressed: bool) -> None:
    written = write(tmp_path, separator=separator, compressed=compressed)
    data = load(DataConfig(kind="mnist", path=tmp_path), seed=0)
    assert data.input_shape == (1, 7, 5)
    assert data.classes == ("0", "1", "2", "3")
    assert {image.tobytes() for image in data.test.images} == {image.tobytes() for image in written["t10k"]}


def test_load_names_the_file_when_one_is_missing(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        load(DataConfig(kind="mnist", path=tmp_path), seed=0)
    assert "t10k-labels-idx1-ubyte" in caught.value.why


def test_load_says_how_many_bytes_lack_when_a_file_is_cut(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match="incomplete") as caught:
        load(DataConfig(kind="mnist", path=tmp_path), seed=0)
    assert caught.value.why == "its header promises 1400 bytes, 1397 follow"


def test_load_refuses_a_cut_gzip_file(tmp_path: Path) -> None:
    write(tmp_path, compressed=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        load(DataConfig(kind="mnist", path=tmp_path), seed=0)


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08\x01" + bytes(12), b"<html>not found</html>"])
def test_load_refuses_a_file_that_is_not_idx(tmp_path: Path, content: bytes) -> None:
    write(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="is not an idx file"):
        load(DataConfig(kind="mnist", path=tmp_path), seed=0)


def test_load_refuses_a_gzip_file_that_unpacks_to_far_more_than_it_has(tmp_path: Path) -> None:
    write(tmp_path, compressed=True)
    head = struct.pack(">4I", 2051, 100 << 10, 32, 32)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(100 << 20)))
    with pytest.raises(DataError, match="cannot be read") as caught:
        load(DataConfig(kind="mnist", path=tmp_path), seed=0)
    assert "suspiciously small" in caught.value.why
