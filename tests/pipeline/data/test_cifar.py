from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data import DataConfig
from pipeline.data.loading import load
from pipeline.data.sources.cifar import read
from pipeline.errors import DataError


def python2_pickle(value: Any) -> bytes:
    """A protocol 2 pickle as Python 2 and its NumPy wrote it: byte strings, ``numpy.core.multiarray``."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, bool) or value is None:
        return {True: b"\x88", False: b"\x89", None: b"N"}[value]
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_opcodes, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(part) for pair in value.items() for part in pair) + b"u"
    assert isinstance(value, np.ndarray)
    assert value.dtype == np.uint8
    dtype = b"cnumpy\ndtype\n" + _opcodes((b"u1", 0, 1)) + b"R"
    dtype += _opcodes((3, b"|", None, None, None, -1, -1, 0)) + b"b"
    start = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _opcodes((0,)) + _opcodes(b"b") + b"tR"
    )
    return (
        start
        + b"("
        + _opcodes(1)
        + _opcodes(value.shape)
        + dtype
        + b"\x89"
        + _opcodes(value.tobytes())
        + b"tb"
    )


def batch(count: int, classes: int, key: bytes, seed: int) -> dict[bytes, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)
    return {b"data": pixels, key: [i % classes for i in range(count)], b"batch_label": b"a batch"}


def cifar10() -> dict[str, dict[bytes, Any]]:
    files = {f"data_batch_{number}": batch(10, 5, b"labels", number) for number in range(1, 6)}
    names = [b"airplane", b"bird", b"cat", b"deer", b"dog"]
    return {**files, "test_batch": batch(10, 5, b"labels", 9), "batches.meta": {b"label_names": names}}


def cifar100() -> dict[str, dict[bytes, Any]]:
    names = [b"apple", b"bear", b"cloud"]
    coarse = {b"coarse_labels": [0] * 30}
    return {
        "train": {**batch(30, 3, b"fine_labels", 0), **coarse},
        "test": {**batch(30, 3, b"fine_labels", 1), **coarse},
        "meta": {b"fine_label_names": names, b"coarse_label_names": [b"thing"]},
    }


def write_folder(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(python2_pickle(content))
    (folder / "readme.html").write_text("hello")
    return folder


def write_archive(path: Path, inside: str, files: dict[str, Any]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            data = python2_pickle(content)
            member = tarfile.TarInfo(f"{inside}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_load_reads_the_cifar10_archive(tmp_path: Path) -> None:
    files = cifar10()
    path = write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    data = load(DataConfig(kind="cifar", path=path), seed=0)
    assert data.classes == ("airplane", "bird", "cat", "deer", "dog")
    assert len(data.train) + len(data.validation) == 50
    expected = files["test_batch"][b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    assert {image.tobytes() for image in data.test.images} == {image.tobytes() for image in expected}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("point_at", ["", "cifar-100-python"])
def test_load_reads_the_unpacked_cifar100_folder_by_fine_labels(tmp_path: Path, point_at: str) -> None:
    write_folder(tmp_path / "cifar-100-python", cifar100())
    data = load(DataConfig(kind="cifar", path=tmp_path / point_at), seed=0)
    assert data.classes == ("apple", "bear", "cloud")
    assert len(data.test) == 30


class _Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_read_never_runs_code_from_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path / "cifar", cifar10())
    (folder / "data_batch_3").write_bytes(pickle.dumps(_Malicious(), protocol))
    with pytest.raises(DataError, match="'data_batch_3' is not a CIFAR batch") as caught:
        read(folder)
    assert "system" in caught.value.why
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "name", ["numpy.f2py.crackfortran\nmyeval", "numpy\nload", "builtins\neval", "numpy\nmemmap"]
)
def test_read_admits_no_other_name_than_those_of_arrays(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "cifar", cifar10())
    (folder / "test_batch").write_bytes(b"\x80\x02c" + name.encode() + b"\n(X\x01\x00\x00\x001tR.")
    with pytest.raises(DataError, match="not a CIFAR batch"):
        read(folder)


def test_read_names_the_batches_when_some_are_missing(tmp_path: Path) -> None:
    files = cifar10()
    del files["data_batch_2"]
    with pytest.raises(DataError, match="lacks data_batch_2"):
        read(write_folder(tmp_path / "cifar", files))


def test_read_refuses_a_cut_archive(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "cifar.tar.gz", "cifar-10-batches-py", cifar10())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cannot be read as a CIFAR archive|lacks"):
        read(path)


def test_read_refuses_a_cut_batch(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cifar", cifar10())
    (folder / "data_batch_1").write_bytes((folder / "data_batch_1").read_bytes()[:1000])
    with pytest.raises(DataError, match="'data_batch_1' is not a CIFAR batch, or is damaged"):
        read(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": np.zeros((10, 7), np.uint8)}, "does not hold 32x32 colour images"),
        ({b"labels": [0, 1]}, "images but"),
        ({b"data": [1, 2]}, "does not hold 32x32 colour images"),
    ],
)
def test_read_refuses_batches_of_another_shape(
    tmp_path: Path, change: dict[bytes, Any], message: str
) -> None:
    files = cifar10()
    files["test_batch"] = {**files["test_batch"], **change}
    with pytest.raises(DataError, match=message):
        read(write_folder(tmp_path / "cifar", files))


def test_read_names_the_entry_when_a_batch_lacks_it(tmp_path: Path) -> None:
    files = cifar10()
    del files["test_batch"][b"labels"]
    with pytest.raises(DataError, match="'test_batch' has no entry 'labels'"):
        read(write_folder(tmp_path / "cifar", files))


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\x00\x00\x00\x00tU\x01btR"


def dtype_of(code: bytes, state: bytes = b"") -> bytes:
    return b"cnumpy\ndtype\n(U" + bytes([len(code)]) + code + b"J\0\0\0\0J\1\0\0\0tR" + state


def with_data(array: bytes) -> bytes:
    """A batch whose images are what the opcodes build."""
    labels = b"U\x06labels](" + b"J\0\0\0\0" * 10 + b"e"
    return b"\x80\x02}(U\x04data" + array + labels + b"u."


OBJECT_STATE = b"(J\3\0\0\0U\1|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffJ\x3f\0\0\0tb"
"""What makes an object type of a number type: its flags say that elements are pointers."""


@pytest.mark.parametrize(
    "array",
    [
        ARRAY + b"(J\1\0\0\0(J\1\0\0\0t" + dtype_of(b"u8", OBJECT_STATE) + b"\x89U\x08AAAAAAAAtb",
        ARRAY + b"(J\1\0\0\0(J\1\0\0\0t" + dtype_of(b"O8") + b"\x89U\x08AAAAAAAAtb",
        ARRAY + b"(J\1\0\0\0(J\1\0\0\0t" + dtype_of(b"f8") + b"\x89U\x08AAAAAAAAtb",
        ARRAY + b"(J\1\0\0\0(J\xff\xff\xff\x7ft" + dtype_of(b"u1") + b"\x89U\x08AAAAAAAAtb",
        ARRAY + b"(J\1\0\0\0(J\xff\xff\xff\xfft" + dtype_of(b"u1") + b"\x89U\x00tb",
        ARRAY,
        b"cnumpy\nndarray\n}U\x03abcJ\1\0\0\0sb",
        b"cnumpy\nndarray\n",
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR",
        b"r\xff\xff\xff\x7f",
        b")" + b"\x85" * 200_000 + b"}(" + b"2Nu",
        b"\x8b\xff\xff\xff\x7f",
        b"\x96" + b"\xff" * 8,
        b"K\x01Q",
    ],
    ids=str,
)
def test_read_builds_no_array_of_pointers_and_needs_no_more_memory_than_the_file(
    tmp_path: Path, array: bytes
) -> None:
    folder = write_folder(tmp_path / "cifar", cifar10())
    (folder / "data_batch_1").write_bytes(with_data(array))
    with pytest.raises(DataError):
        read(folder)


def test_read_refuses_labels_that_are_no_numbers(tmp_path: Path) -> None:
    files = cifar10()
    files["test_batch"][b"labels"] = [b"x"] * 10
    with pytest.raises(DataError, match="not a list of whole numbers"):
        read(write_folder(tmp_path / "cifar", files))


@pytest.mark.parametrize("pax", [False, True])
def test_read_refuses_an_archive_that_unpacks_to_far_more_than_it_has(tmp_path: Path, pax: bool) -> None:
    path = tmp_path / "cifar-10-python.tar.gz"
    member = tarfile.TarInfo("./././@PaxHeader" if pax else "anything")
    member.type = tarfile.XHDTYPE if pax else tarfile.REGTYPE
    member.size = 100 << 20
    with gzip.open(path, "wb") as stream:
        stream.write(member.tobuf())
        for _ in range(100):
            stream.write(bytes(1 << 20))
    with pytest.raises(DataError, match="cannot be read as a CIFAR archive") as caught:
        read(path)
    assert "suspiciously small" in caught.value.why
