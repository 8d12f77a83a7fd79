"""Sound files of models, inputs, signatures and data sets of others, and what reads them."""

from __future__ import annotations

import csv
import io
import json
import wave
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from devices.artifacts.hints import hints_of, open_inputs
from devices.inputs.reading import read_input
from devices.measurement.statistics import Interval
from latency_db.models.network_model import NetworkModel
from latency_db.tables.table import LatencyTable
from pipeline.bundle.descriptions import edges_of
from pipeline.bundle.signing import check_signature, sign_bundle
from pipeline.compile.model_files import external_data_of
from pipeline.data import DataConfig
from pipeline.data.loading import load
from pipeline.spaces.mobile.config import SpaceConfig
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building.block_sizes import sizes_of
from pipeline.tables.exchange.table_file import read_table, write_table
from pipeline.tables.prediction.networks import written
from tools.attack.bundles import sound_bundle
from tools.attack.samples import TARGET, Format

_CANARIES = Path(__file__).parents[2] / "devices" / "canary"


def model_formats() -> Iterator[Format]:
    """Every format; those of optional packages where they are installed."""
    for suffix in (".onnx", ".tflite"):
        yield Format(f"model{suffix}", partial(_model, suffix=suffix), _read_model, (7, 10))
    for suffix, content in (("npy", _npy), ("npz", _npz), ("png", _png), ("wav", _wav)):
        yield Format(
            f"input.{suffix}", partial(_input, name=f"i.{suffix}", content=content), _read_input, (7,)
        )
    yield Format("architectures", _architectures, _read_architectures, (2,))
    yield Format("latency table", _latencies, lambda path: str(read_table(path)), (8,))
    yield Format("data table", _table, partial(_data, kind="table", up=0), (3,))
    if find_spec("cryptography") is not None:
        for name, codes in (("key.pub", (2, 15)), ("bundle/signature.json", (11, 15))):
            yield Format(f"signature: {name}", partial(_signed, name=name), _read_signed, codes)
    if find_spec("datasets") is not None:
        for name in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json"):
            write = partial(_huggingface, name=name)
            yield Format(f"data huggingface {name}", write, partial(_data, kind="huggingface", up=1), (3,))


def _model(folder: Path, suffix: str) -> Path:
    (folder / f"model{suffix}").write_bytes((_CANARIES / f"canary{suffix}").read_bytes())
    return folder / f"model{suffix}"


def _read_model(path: Path) -> str:
    """All that Lathe itself reads of a model; runtimes read it in processes of their own."""
    external = external_data_of(path) if path.suffix == ".onnx" else ()
    return str((hints_of(path, TARGET), open_inputs(path), edges_of(path), external))


def _input(folder: Path, name: str, content: Callable[[], bytes]) -> Path:
    (folder / name).write_bytes(content())
    return folder / name


def _read_input(path: Path) -> str:
    return str(read_input("image", path, path.parent).shape)


def _npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones((1, 3, 8, 8), np.float32))
    return stream.getvalue()


def _npz() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, image=np.ones((1, 3, 8, 8), np.float32))
    return stream.getvalue()


def _png() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(stream, "png")
    return stream.getvalue()


def _wav() -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(400))
    return stream.getvalue()


def _space() -> MobileSpace:
    return MobileSpace.from_config(SpaceConfig(preset="mobile"), (1, 8, 8), 10)


def _architectures(folder: Path) -> Path:
    (folder / "networks.json").write_text(json.dumps([dict(_space().reference().choices)]))
    return folder / "networks.json"


def _read_architectures(path: Path) -> str:
    return str(written(_space(), str(path)))


def _latencies(folder: Path) -> Path:
    blocks = _space().distinct_blocks()
    rows = {block.identity: Interval(1e4 + n, 1e4 + n, 1e4 + n, 0.9) for n, block in enumerate(blocks)}
    table = LatencyTable(TARGET, rows, {}, sizes_of(blocks))
    model = NetworkModel(table, 0.9, 300.0, 500.0, 1.05, 0.9, 20, -0.001, 0.002)
    write_table(folder / "table.json", model, {}, {block.identity: str(block) for block in blocks})
    return folder / "table.json"


def _table(folder: Path) -> Path:
    from PIL import Image

    with (folder / "table.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("file", "split", "class"))
        for number in range(24):
            image = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(image).save(folder / f"{number}.png")
            rows.writerow((f"{number}.png", "test" if number % 3 else "train", "ab"[number % 2]))
    return folder / "table.csv"


def _signed(folder: Path, name: str) -> Path:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    secret = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (folder / "key").write_bytes(secret)
    public = private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (folder / "key.pub").write_bytes(public)
    sign_bundle(sound_bundle(folder), folder / "key")
    return folder / name


def _read_signed(path: Path) -> str:
    folder = path.parent.parent if path.parent.name == "bundle" else path.parent
    check_signature(folder / "bundle", folder / "key.pub")
    return "signed"


def _huggingface(folder: Path, name: str) -> Path:
    import datasets
    from PIL import Image

    images = [Image.fromarray(np.full((5, 5), 10 * number, np.uint8)) for number in range(16)]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    rows = {"image": images, "label": [number % 2 for number in range(16)]}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(folder / "saved"))
    return folder / "saved" / name


def _data(path: Path, kind: Any, up: int) -> str:
    source = path.parents[up - 1] if up else path
    return load(DataConfig(kind=kind, path=source, duplicates="keep"), seed=0).digest
