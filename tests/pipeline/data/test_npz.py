from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data import DataConfig
from pipeline.data.loading import load
from pipeline.data.sources.base import CHANNELS, LabelledImages
from pipeline.data.sources.npz import read
from pipeline.errors import DataError
from tests.places import SHARED


def write(folder: Path, **content: Any) -> Path:
    base: dict[str, Any] = {
        "train_x": np.zeros((6, 4, 4), np.uint8),
        "train_y": np.array([0, 1] * 3),
        "test_x": np.zeros((4, 4, 4), np.uint8),
        "test_y": np.array([0, 1] * 2),
    }
    np.savez(
        folder / "data.npz", **{key: value for key, value in {**base, **content}.items() if value is not None}
    )
    return folder / "data.npz"


def pixels_of(images: LabelledImages) -> np.ndarray:
    return images.read(np.arange(len(images.labels))).pixels


@pytest.mark.parametrize("shape", [(6, 4, 4), *((6, 4, 4, channels) for channels in CHANNELS)])
def test_read_accepts_one_to_four_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    train = read(write(tmp_path, train_x=pixels), image_size=None).train
    assert np.array_equal(pixels_of(train).reshape(shape), pixels)
    assert train.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_read_converts_floating_point_in_0_to_1(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4), np.uint8)
    train = read(write(tmp_path, train_x=pixels.astype(np.float32) / 255), image_size=None).train
    assert np.array_equal(pixels_of(train)[..., 0], pixels)


@pytest.mark.parametrize("size", [None, 4])
def test_read_decodes_concatenated_image_files(tmp_path: Path, size: int | None) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    files = []
    for image in pixels:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "png")
        files.append(stream.getvalue())
    path = write(
        tmp_path,
        train_x=None,
        train_bytes=np.frombuffer(b"".join(files), np.uint8),
        train_offsets=np.cumsum([0, *map(len, files)]),
    )
    images = pixels_of(read(path, image_size=size).train)
    assert images.shape == (6, 4, 4, 3) if size else np.array_equal(images, pixels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train_x": np.zeros((6, 4, 4), np.int64)}, "type int64"),
        ({"train_x": np.zeros((6, 16), np.uint8)}, r"shape \(6, 16\)"),
        ({"train_x": np.zeros((6, 3, 8, 8), np.uint8)}, r"shape \(6, 3, 8, 8\)"),
        ({"train_x": np.full((6, 4, 4), np.nan)}, "NaN or infinity"),
        ({"train_x": np.full((6, 4, 4), 200.0)}, "200 to 200"),
        ({"train_y": np.zeros(5, np.int64)}, "6 images but 5 labels"),
        ({"train_y": np.zeros(6)}, "not a list of whole numbers"),
        ({"test_y": None}, "lacks test_y"),
        ({"train_x": np.array([{}] * 6, object)}, "cannot be read as an .npz file"),
        ({"train_bytes": np.zeros(9, np.uint8), "train_offsets": np.arange(3)}, "do not cut"),
    ],
)
def test_read_says_what_is_wrong_when_arrays_do_not_fit(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path, **content), image_size=None)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (np.linspace(0, 1, 6), "regression"),
        (np.zeros((6, 3)), "regression"),
        (np.zeros((6, 3), np.uint8), "multi-label"),
        (np.array(["a"] * 6), None),
    ],
)
def test_labels_of_another_task_are_told_so(tmp_path: Path, labels: Any, task: str | None) -> None:
    with pytest.raises(DataError, match="not a list of whole numbers") as caught:
        read(write(tmp_path, train_y=labels), image_size=None)
    assert f'set data.task = "{task}"' in caught.value.fix if task else "task" not in caught.value.fix


@pytest.mark.parametrize("keep", [0, 100, 400])
def test_read_refuses_a_truncated_file(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file"):
        read(path, image_size=None)


def test_read_refuses_a_plain_npy_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file"):
        read(tmp_path / "x.npy", image_size=None)


def npy(descr: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        npy("|u1", (10**12, 4, 4)),
        npy("|V0", (10**12,)),
        npy("|S0", (10**15,)),
        npy("|O", (4,)) + bytes(32),
        npy("|u1", (-1, 4)),
        npy("<f8", (2,)) + bytes(8),
        b"\x93NUMPY\x09\x09",
        b"",
    ],
)
def test_read_refuses_a_header_that_promises_other_than_what_follows(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, train_x=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_x.npy", content)
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file"):
        read(path, image_size=None)


def test_read_refuses_an_archive_that_unpacks_to_far_more_than_it_has(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_x.npy", npy("|u1", (100 << 20,)) + bytes(100 << 20))
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file") as caught:
        read(path, image_size=None)
    assert "suspiciously small" in caught.value.why


@pytest.mark.slow
def test_load_finds_the_published_statistics_of_fashion_mnist() -> None:
    path = SHARED / "fashion_mnist" / "fashion_mnist.npz"
    if not path.exists():
        pytest.skip("LATHE_SHARED_DATA has no Fashion-MNIST")
    data = load(DataConfig(kind="npz", path=path), seed=0)
    assert (len(data.train), len(data.validation), len(data.test)) == (51000, 9000, 10000)
    assert data.preprocessing.mean[0] == pytest.approx(0.2860, abs=1e-3)
    assert data.preprocessing.std[0] == pytest.approx(0.3530, abs=1e-3)


def test_load_decodes_a_subset_of_cifar10_as_jpeg() -> None:
    path = SHARED / "cifar10_jpeg" / "cifar10_jpeg_bytes.npz"
    if not path.exists():
        pytest.skip("LATHE_SHARED_DATA has no CIFAR-10")
    data = load(DataConfig(kind="npz", path=path, train_limit=500, test_limit=100), seed=0)
    assert data.input_shape == (3, 32, 32)
    assert data.preprocessing.mean == pytest.approx((0.4913, 0.4821, 0.4465), abs=0.03)
