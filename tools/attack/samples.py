"""A sound file of every format that Lathe reads, and what reads it."""

from __future__ import annotations

import gzip
import json
import pickle
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from devices.inventory.devices_file import read_file
from devices.measurement import Measurement, MeasuringProtocol, Reason, Verdict
from devices.measurement.conditions import Conditions
from devices.measurement.measurement import DeviceIdentity, Launch, MeasurementFailure, RuntimeIdentity
from devices.result_file import ResultFile, read_results
from devices.runtimes.answers import checked, event_of
from devices.target import Target
from latency_db.published import import_table
from latency_db.store import Workload, check, export_file, import_file, open_store, records
from latency_db.tables.package import MANIFEST, read_manifest, write_package
from pipeline.data import DataConfig
from pipeline.data.loading import load
from pipeline.recipe.loading import EMBEDDED, embedded_text, load_recipe

TARGET = Target("host", "onnxruntime")
RUNTIME = RuntimeIdentity("onnxruntime", "1.0", "ab" * 32, "fp32", 1)
PROTOCOL = MeasuringProtocol()
DEVICE = DeviceIdentity("x86_64", "a processor", 4, "Linux", "6.1", "instance")


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        write: makes a sound file in a folder, and returns it; other files may lie beside it.
        read: reads it, and returns what was understood, as text.
        codes: exit codes that are documented for a damaged one.
        digested: whatever is understood must be what was written, since the file carries digests.
    """

    name: str
    write: Callable[[Path], Path]
    read: Callable[[Path], str]
    codes: tuple[int, ...]
    digested: bool = False


def measurement(latency_ns: int) -> Measurement:
    """A measurement that never ran."""
    now = Conditions()
    launch = Launch(1, 1, 1, (latency_ns, latency_ns + 1), None, now, now, canary_ns=(5, 5, 5))
    return Measurement(
        "cd" * 32,
        str(TARGET),
        RUNTIME,
        DEVICE,
        MeasuringProtocol(),
        (launch,) * 3,
        Verdict.VALID,
        (),
        "2026-01-01",
    )


def fill(location: str, count: int = 20, first: int = 0) -> None:
    """Store measurements and a failure."""
    with open_store(location) as store:
        entries: list[Any] = [
            (
                Workload.of("block", f"block {n}", n),
                RUNTIME,
                DEVICE,
                MeasuringProtocol(),
                measurement(1000 + n),
            )
            for n in range(first, first + count)
        ]
        failure = MeasurementFailure("", str(TARGET), Reason("unsupported", "no kernel"))
        store.add_all(
            [*entries, (Workload.of("block", "bad", "bad"), RUNTIME, DEVICE, MeasuringProtocol(), failure)]
        )


def digests(location: str) -> str:
    """Digests of all sound rows of a database, with what they hold."""
    with open_store(location, must_exist=True) as store:
        found = [record for batch in records(store) for record in batch if record.damage is None]
        return json.dumps(
            sorted((each.columns["digest"], repr(each.parts), repr(each.outcome)) for each in found)
        )


def _recipe(folder: Path, name: str) -> Path:
    (folder / "recipe.toml").write_text(embedded_text(name))
    return folder / "recipe.toml"


def _devices(folder: Path) -> Path:
    path = folder / "devices.toml"
    path.write_text(
        '[devices.pi5]\nconnection = "ssh"\nhost = "pi5.local"\nport = 22\npython = ["nice", "python3"]\n'
        '[devices.phone]\nconnection = "adb"\naddress = "192.168.1.5:5555"\ntools.benchmark_model = "bin/b"\n'
        '[devices.env]\nconnection = "local"\npython = "bin/python"\nemulated = true\n'
    )
    return path


def _results(folder: Path) -> Path:
    ResultFile(folder / "results.json").add(["model.onnx"], measurement(1000))
    return folder / "results.json"


def _rows(folder: Path, suffix: str) -> Path:
    fill(str(folder / "rows.db"))
    with open_store(str(folder / "rows.db")) as store:
        export_file(store, folder / f"rows{suffix}")
    return folder / f"rows{suffix}"


def _read_rows(path: Path) -> str:
    copy = path.parent / "imported.db"
    copy.unlink(missing_ok=True)
    with open_store(str(copy)) as store:
        import_file(store, path)
    return digests(str(copy))


def _database(folder: Path) -> Path:
    fill(str(folder / "latency.db"))
    with closing(sqlite3.connect(folder / "latency.db")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return folder / "latency.db"


def _read_database(path: Path) -> str:
    for extra in path.parent.glob(f"{path.name}-*"):
        extra.unlink()
    with open_store(str(path), must_exist=True) as store:
        check(store)
        export_file(store, path.parent / "out.json")
    return digests(str(path))


def _published(folder: Path, suffix: str) -> Path:
    path = folder / f"table{suffix}"
    lines = "block,in_h,count,mean_ms,var\n" + "".join(f"Conv{n},{n},949,{n + 1}.5,0.25\n" for n in range(50))
    if suffix == ".yaml":
        path.write_text("".join(f"Conv{n}: {{count: 949, mean: {n + 1}.5, var: 0.25}}\n" for n in range(50)))
    elif suffix == ".npz":
        np.savez(path, latency_ms=np.arange(1.0, 51.0), device=np.array(["d"]))
    else:
        path.write_bytes(gzip.compress(lines.encode()) if suffix.endswith(".gz") else lines.encode())
    return path


def _read_published(path: Path) -> str:
    with open_store("sqlite://") as store:
        return str(import_table(store, path, device=None if path.suffix == ".npz" else "d").cells)


def _package(folder: Path) -> Path:
    artifacts: dict[str, Path | Reason] = {}
    workloads = [Workload.of("block", f"block {n}", n) for n in range(3)]
    for workload in workloads:
        (folder / f"{workload.description}.onnx").write_text(workload.description)
        artifacts[workload.identity] = folder / f"{workload.description}.onnx"
    write_package(folder / "package", TARGET, MeasuringProtocol(), workloads, artifacts)
    return folder / "package" / MANIFEST


def _images(folder: Path) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (24, 8, 8), np.uint8), np.arange(24) % 3


def _npz(folder: Path) -> Path:
    images, labels = _images(folder)
    np.savez_compressed(folder / "data.npz", train_x=images, train_y=labels, test_x=images, test_y=labels)
    return folder / "data.npz"


def _mnist(folder: Path, suffix: str) -> Path:
    images, labels = _images(folder)
    for stem in ("train", "t10k"):
        for kind, magic, array in (("images", 2051, images), ("labels", 2049, labels.astype(np.uint8))):
            content = struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()
            name = f"{stem}-{kind}-idx{array.ndim}-ubyte{suffix}"
            (folder / name).write_bytes(gzip.compress(content) if suffix else content)
    return folder / f"train-images-idx3-ubyte{suffix}"


def _cifar(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3072), np.uint8)
    batch = {b"data": pixels, b"labels": [n % 2 for n in range(10)]}
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"a", b"b"]}, protocol=4))
    return folder / "data_batch_1"


def _image_folder(folder: Path, suffix: str) -> Path:
    from PIL import Image

    images, labels = _images(folder)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / "train" / f"class{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}{suffix}")
    return folder / "train" / "class0" / f"0{suffix}"


def _data(kind: Any, up: int = 0) -> Callable[[Path], str]:
    def read(path: Path) -> str:
        source = path if kind == "npz" else path.parents[up]
        return load(DataConfig(kind=kind, path=source, duplicates="keep"), seed=0).digest

    return read


def _weights(folder: Path, suffix: str) -> Path:
    import safetensors.torch
    import torch

    state = {"a.weight": torch.zeros(4, 4), "a.bias": torch.ones(4)}
    path = folder / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    return path


def _read_weights(path: Path) -> str:
    from pipeline.teachers.weights import read_weights

    return str(read_weights(path, None))


def _exported(folder: Path) -> Path:
    import torch

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
    torch.export.save(torch.export.export(network, (torch.zeros(1, 1, 4, 4),)), folder / "teacher.pt2")
    return folder / "teacher.pt2"


def _read_exported(path: Path) -> str:
    from pipeline.teachers.exported import load_exported

    return str(load_exported(path))


def _answers(folder: Path) -> Path:
    result = {
        "job": 0, "load_ns": 1, "first_inference_ns": 2, "samples_ns": [10, 11, 12], "peak_memory_bytes": 5,
        "before": {"load_1min": 0.5}, "after": {}, "usage": {"wall_ns": 5, "own_cpu_ns": 4},
    }  # fmt: skip
    lines = [
        {"event": "ready", "process_start_ns": 5},
        {"event": "started", "job": 0},
        {"event": "result", **result},
    ]
    (folder / "answers").write_text("\n".join(map(json.dumps, lines)))
    return folder / "answers"


def _read_answers(path: Path) -> str:
    lines = path.read_text("utf-8", errors="replace").splitlines()
    return str(checked(filter(None, map(event_of, lines))))


def formats() -> Iterator[Format]:
    """Every format."""
    for name in EMBEDDED:
        yield Format(
            f"recipe {name}", partial(_recipe, name=name), lambda path: str(load_recipe(str(path))), (2, 6)
        )
    yield Format("devices.toml", _devices, lambda path: str(sorted(read_file(path))), (6,))
    yield Format("result file", _results, lambda path: str(read_results(path)), (7,))
    for suffix in (".csv", ".json", ".parquet"):
        yield Format(f"rows{suffix}", partial(_rows, suffix=suffix), _read_rows, (8,), digested=True)
    yield Format("database", _database, _read_database, (8,), digested=True)
    for suffix in (".csv", ".csv.gz", ".yaml", ".npz"):
        yield Format(f"published{suffix}", partial(_published, suffix=suffix), _read_published, (8,))
    yield Format("work package", _package, lambda path: str(read_manifest(path.parent)), (8,))
    yield Format("data npz", _npz, _data("npz"), (3,))
    yield Format("data mnist", partial(_mnist, suffix=""), _data("mnist"), (3,))
    yield Format("data mnist.gz", partial(_mnist, suffix=".gz"), _data("mnist"), (3,))
    yield Format("data cifar", _cifar, _data("cifar"), (3,))
    for suffix in (".png", ".jpg", ".bmp", ".gif", ".webp", ".tiff"):
        yield Format(f"data image{suffix}", partial(_image_folder, suffix=suffix), _data("folder", 2), (3,))
    for suffix in (".safetensors", ".pt"):
        yield Format(f"weights{suffix}", partial(_weights, suffix=suffix), _read_weights, (4,))
    yield Format("teacher.pt2", _exported, _read_exported, (4,))
    yield Format("answers of a device", _answers, _read_answers, (7,))
