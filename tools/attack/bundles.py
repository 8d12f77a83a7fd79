"""A sound bundle, whose files are damaged, with and without digests that fit."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from devices.digests import file_digest
from devices.measurement import paired_ratio
from latency_db.estimate import Estimate
from pipeline.budget import Budget
from pipeline.bundle import (
    BundleContent,
    ClassifierContent,
    RunContent,
    TargetContent,
    TensorDescription,
    read_bundle,
    read_test,
    read_verdict,
    write_bundle,
)
from pipeline.bundle.claims import check_claims, not_repeated
from pipeline.bundle.manifest import manifest_bytes, manifest_digest
from pipeline.data.base import Preprocessing, Split
from pipeline.target_verdict import Accuracy, ClassCount, TargetVerdict, judge
from tools.attack.samples import TARGET, Format, measurement

_REFUSED = (11,)


def bundle_formats() -> Iterator[Format]:
    """Every file of a bundle: as it is, after which the digests do not fit; and with digests that do."""
    for name in (
        "manifest.json",
        "data/test.npz",
        "infer_onnxruntime.py",
        "artifacts/host_onnxruntime_fp32_1/model.onnx",
    ):
        write = partial(_bundle, name=name)
        yield Format(f"bundle {Path(name).name}", write, _read_bundle, _REFUSED, digested=True)
    for name in ("data/test.npz", "measurements/host_onnxruntime_fp32_1.json"):
        forged = partial(_forgeable, name=name)
        yield Format(f"bundle {Path(name).name}, forged", forged, _read_forged, _REFUSED)
    forged = partial(_forgeable, name="manifest.json")
    yield Format("bundle manifest.json, forged", forged, _read_other_manifest, _REFUSED)


def _bundle(folder: Path, name: str) -> Path:
    return sound_bundle(folder) / name


def sound_bundle(folder: Path) -> Path:
    """A bundle in a folder."""
    content = BundleContent(
        name="tiny",
        origin=RunContent(
            "ab" * 32, 1.0, "one layer", 0.75, 'name = "tiny"', _written(folder, "report.html")
        ),
        targets=(_bundle_target(folder),),
        classifier=ClassifierContent(
            (4, 4, 1), Preprocessing((0.4,), (0.25,)), (255, 255, 255), ("top", "bottom"), _split()
        ),
        versions={"onnxruntime": "1"},
    )
    return write_bundle(content, folder / "bundle")


def _split() -> Split:
    return Split(np.zeros((4, 4, 4, 1), np.uint8), np.array([0, 0, 1, 1]))


def _written(folder: Path, name: str) -> Path:
    (folder / name).write_text(name)
    return folder / name


def _bundle_target(folder: Path) -> TargetContent:
    model = _written(folder, "model.onnx")
    digest = file_digest(model)
    seen = replace(measurement(1000), artifact_digest=digest)
    budget, ratio = Budget(limit_ms=1.0), paired_ratio(seen, seen)
    feasible, why = judge(budget, seen, seen, ratio)
    accuracy = Accuracy(3, 4, (ClassCount(1, 2), ClassCount(2, 2)))
    verdict = TargetVerdict(str(TARGET), digest, accuracy, seen, seen, ratio, budget, feasible, why)
    image = TensorDescription(name="input", shape=(1, 1, 4, 4), layout="NCHW")
    logits = TensorDescription(name="logits", shape=(1, 2), layout="NK")
    return TargetContent(
        model, "any", model, model, (image,), (logits,), Estimate(1.0, 2.0, 3.0, 0.9), verdict
    )


def _read_bundle(path: Path) -> str:
    """All that is done with a bundle before anything of it runs."""
    folder = next(each for each in path.parents if each.name == "bundle")
    manifest = read_bundle(folder)
    for entry in manifest.targets:
        verdict = read_verdict(folder, entry)
        read_test(folder, manifest, entry)
        check_claims(folder, manifest, entry, verdict)
    not_repeated(folder, manifest)
    return json.dumps([[manifest.digest]])


def _read_forged(path: Path) -> str:
    """The same after every digest was computed again, as who forges a bundle does."""
    folder = next(each for each in path.parents if each.name == "bundle")
    manifest = folder / "manifest.json"
    document = json.loads((folder.parent / "manifest.json").read_bytes())
    document["files"][path.relative_to(folder).as_posix()] = file_digest(path)
    document["digest"] = manifest_digest(document)
    manifest.write_bytes(manifest_bytes(document))
    return _read_bundle(path)


def _forgeable(folder: Path, name: str) -> Path:
    path = _bundle(folder, name)
    (folder / "manifest.json").write_bytes((folder / "bundle" / "manifest.json").read_bytes())
    return path


def _read_other_manifest(path: Path) -> str:
    """A manifest of which one value is another and the digest fits; the damage of the file says which."""
    folder, content = path.parent, path.read_bytes()
    sound = (folder.parent / "manifest.json").read_bytes()
    if content == sound:
        return _read_bundle(path)
    chosen, document = random.Random(content), json.loads(sound)
    place: Any = document
    while True:
        key = chosen.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or chosen.random() < 0.1:
            break
        place = place[key]
    place[key] = chosen.choice(_HOSTILE)
    document["digest"] = manifest_digest(document)
    path.write_bytes(manifest_bytes(document))
    return _read_bundle(path)


_HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 10**30, 1e308, -1e308, 1e-308, "", "x" * 10_000, "../../etc/passwd", "\0",
    [], {}, [[]], [None] * 1000, {"": 0}, "host/onnxruntime:fp32@1", "0" * 64,
)  # fmt: skip
