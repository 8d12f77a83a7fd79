"""Files that would exhaust memory, time or the stack of a reader without limits; each must be refused."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devices.inventory.devices_file import read_file
from devices.result_file import read_results
from latency_db.published import import_table
from latency_db.store import import_file, open_store
from latency_db.tables.package import MANIFEST, read_manifest
from pipeline.data import DataConfig
from pipeline.data.loading import load
from pipeline.recipe.loading import load_recipe
from pipeline.tables.exchange.table_file import read_table
from pipeline.teachers.exported import load_exported
from pipeline.teachers.weights import read_weights
from tools.attack.fuzzing import judged

MB = 1 << 20


@dataclass(frozen=True)
class Bomb:
    """A file, by its name and content, and what reads it; without a content a pipe that nobody writes to."""

    name: str
    file: str
    content: bytes | None
    read: Callable[[Path], Any]


def limits(on_progress: Callable[[str], None]) -> dict[str, Any]:
    """Every bomb, read in a process of its own; which were not refused."""
    faults, count, most = {}, 0, 0
    for bomb in bombs():
        count += 1
        with tempfile.TemporaryDirectory(prefix="attack-") as folder:
            path = Path(folder) / bomb.file
            path.parent.mkdir(parents=True, exist_ok=True)
            if bomb.content is None:
                os.mkfifo(path)
            else:
                path.write_bytes(bomb.content)
            outcome, said, grown = judged(lambda path, read=bomb.read: str(read(path)), path)  # type: ignore[misc]
        most = max(most, grown)
        if outcome != "refused":
            faults[bomb.name] = f"{outcome}: {said[-500:]}"
        on_progress(f"{bomb.name}: {outcome}")
    return {"bombs": count, "most_bytes_more": most, "faults": faults}


def bombs() -> Iterator[Bomb]:
    """Every file."""
    yield from _texts()
    yield from _arrays()
    yield from _packed()
    yield from _pipes()


def _texts() -> Iterator[Bomb]:
    tomls = {
        "an integer of 5 000 digits": "x = " + "9" * 5_000,
        "2 000 brackets": "x = " + "[" * 2_000 + "]" * 2_000,
        "2 000 tables in one another": "x = " + "{a = " * 2_000 + "1" + "}" * 2_000,
        "a key of 60 000 parts": ".".join("a" * 60_000) + " = 1",
        "10 MB": "# comment\n" * MB,
        "a table of 400 parts": "[" + ".".join("a" * 400) + "]",
    }
    for name, text in tomls.items():
        yield Bomb(f"recipe with {name}", "r.toml", text.encode(), lambda path: load_recipe(str(path)))
        yield Bomb(f"devices.toml with {name}", "d.toml", text.encode(), read_file)
    deep, digits = b"[" * 100_000 + b"]" * 100_000, b"9" * 100_000
    for name, content in {"100 000 brackets": deep, "100 000 digits": digits, "nothing": b""}.items():
        yield Bomb(f"result file of {name}", "r.json", content, read_results)
        yield Bomb(f"table of {name}", "t.json", content, read_table)
        yield Bomb(f"package of {name}", MANIFEST, content, lambda path: read_manifest(path.parent))
        yield Bomb(f"rows of {name}", "r.json", b"[\n" + content + b"\n]\n", _rows)
    for name, line in {
        "colons": "a" + ": " * 60_000,
        "spaces": "a:" + " " * 120_000,
        "braces": "a:{" * 40_000,
    }.items():
        yield Bomb(f"YAML of {name}", "t.yaml", f"{line}\n".encode(), _published)
    yield Bomb("CSV of 1 000 000 columns", "t.csv", b"block,latency_ms" + b"," * MB + b"\n", _published)
    yield Bomb("CSV with one long field", "t.csv", b'block,latency_ms\n"' + b"a" * (32 * MB), _published)


def _arrays() -> Iterator[Bomb]:
    for shape in ((10**12,), (10**12, 0), (0, 10**12), (2**62, 2**62), (-1,)):
        for name in ("train_x", "train_y"):
            yield Bomb(f"data of shape {shape}", "d.npz", _zipped({f"{name}.npy": npy("|u1", shape)}), _npz)
        for name in ("latency_ms", "device", "arch_ops"):
            descr = "|S1" if name == "device" else "<i8"
            content = {"latency_ms": np.ones(3), "device": np.array(["d"]), "arch_ops": np.ones((3, 1), int)}
            parts = {f"{key}.npy": saved(value) for key, value in content.items() if key != name}
            packed = _zipped({**parts, f"{name}.npy": npy(descr, shape)})
            yield Bomb(f"published {name} of shape {shape}", "t.npz", packed, _published)
    for descr in ("|O", "|V0", "|S0", "<U0"):
        yield Bomb(f"data of type {descr}", "d.npz", _zipped({"train_x.npy": npy(descr, (10**9,))}), _npz)
    idx = struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    yield Bomb("IDX of 2^96 pixels", "train-images-idx3-ubyte", idx, _mnist)


def _packed() -> Iterator[Bomb]:
    zeros = bytes(200 * MB)
    yield Bomb(
        "npz that unpacks to 200 MB", "d.npz", _zipped({"train_x.npy": npy("|u1", (200 * MB,)) + zeros}), _npz
    )
    yield Bomb("IDX that unpacks to 200 MB", "train-images-idx3-ubyte.gz", gzip.compress(zeros), _mnist)
    yield Bomb("CSV that unpacks to 200 MB", "t.csv.gz", gzip.compress(b"a,1\n" * (50 * MB)), _published)
    for name, kind in (
        ("a member", tarfile.REGTYPE),
        ("a header", tarfile.XHDTYPE),
        ("a long name", tarfile.GNUTYPE_LONGNAME),
    ):
        member = tarfile.TarInfo("data_batch_1")
        member.type, member.size = kind, len(zeros)
        content = gzip.compress(member.tobuf() + zeros)
        yield Bomb(f"tar with a {name} of 200 MB", "cifar.tar.gz", content, _cifar)
    for name, size in (("of 2^32 pixels", (65_535, 65_535)), ("of 100 million pixels", (10_000, 10_000))):
        yield Bomb(f"PNG {name}", "c/train/a/i.png", _png(*size), _folder)
    for name, opcodes in {
        "a memo of 2^31 entries": b"r\xff\xff\xff\x7f",
        "200 000 tuples in one another": b")" + b"\x85" * 200_000 + b"}(2Nu",
        "a number of 2 GB": b"\x8b\xff\xff\xff\x7f",
        "a list in itself": b"]q\x00h\x00a",
    }.items():
        yield Bomb(f"pickle with {name}", "c/data_batch_1", b"\x80\x02" + opcodes + b".", _batch)


def _pipes() -> Iterator[Bomb]:
    """A pipe in the place of a file, of which reading would not end."""
    readers: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
        "recipe": (lambda path: load_recipe(str(path)), ("toml",)),
        "devices": (read_file, ("toml",)),
        "results": (read_results, ("json",)),
        "rows": (_rows, ("csv", "json", "parquet")),
        "published": (_published, ("csv", "csv.gz", "yaml", "npz")),
        "data": (_npz, ("npz",)),
        "weights": (lambda path: read_weights(path, None), ("pt", "safetensors")),
        "teacher": (load_exported, ("pt2",)),
        "table": (read_table, ("json",)),
    }
    for name, (read, suffixes) in readers.items():
        for suffix in suffixes:
            yield Bomb(f"a pipe for {name}.{suffix}", f"{name}.{suffix}", None, read)
    yield Bomb("a pipe for IDX", "train-images-idx3-ubyte", None, _mnist)
    yield Bomb("a pipe for a batch", "data_batch_1", None, lambda path: _cifar(path.parent))
    yield Bomb("a pipe for a package", MANIFEST, None, lambda path: read_manifest(path.parent))


def npy(descr: str, shape: tuple[int, ...]) -> bytes:
    """The header of an array."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def saved(array: Any) -> bytes:
    """An array as a file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _zipped(parts: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    rows = zlib.compress(bytes(50 * MB))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _rows(path: Path) -> Any:
    with open_store("sqlite://") as store:
        return import_file(store, path)


def _published(path: Path) -> Any:
    with open_store("sqlite://") as store:
        return import_table(store, path, device=None if path.suffix == ".npz" else "d")


def _npz(path: Path) -> Any:
    return load(DataConfig(kind="npz", path=path), seed=0)


def _mnist(path: Path) -> Any:
    return load(DataConfig(kind="mnist", path=path.parent), seed=0)


def _cifar(path: Path) -> Any:
    return load(DataConfig(kind="cifar", path=path), seed=0)


def _folder(path: Path) -> Any:
    return load(DataConfig(kind="folder", path=path.parents[2]), seed=0)


def _batch(path: Path) -> Any:
    from pipeline.data.sources.cifar import read

    for name in (
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
        "batches.meta",
    ):
        (path.parent / name).write_bytes(path.read_bytes())
    return read(path.parent)
