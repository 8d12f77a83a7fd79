"""A bundle proves its accuracy and latency again from itself alone."""

from __future__ import annotations

import dataclasses
import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from devices.digests import file_digest
from devices.errors import MeasurementError
from devices.inventory.devices import HOST, known_devices
from devices.inventory.devices_file import trust_project_file
from pipeline.budget import Budget
from pipeline.bundle import BundleContent, verify_bundle, write_bundle
from pipeline.bundle.manifest import manifest_bytes, manifest_digest
from pipeline.errors import VerificationError
from pipeline.target_verdict import Accuracy
from tests.pipeline.tiny_bundles import with_program


def state(folder: Path) -> list[tuple[str, int, int]]:
    entries = ((path, path.lstat()) for path in (folder, *folder.rglob("*")))
    return sorted((str(path), seen.st_mtime_ns, seen.st_size) for path, seen in entries)


def ignore(done: int, total: int) -> None:
    """No progress is shown."""


def test_verify_bundle_repeats_accuracy_and_latency_and_writes_nothing(
    written_bundle: Path, bundle_content: BundleContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state(written_bundle)
    steps: list[tuple[int, int]] = []
    result = verify_bundle(written_bundle, lambda done, total: steps.append((done, total)))
    (target,) = result.targets
    assert target.accuracy_holds
    assert (target.verdict.accuracy, target.expected_correct) == (
        bundle_content.targets[0].verdict.accuracy,
        11,
    )
    assert target.verdict.reference is not None
    assert target.verdict.measurement.protocol.launches == 3
    assert result.holds is target.verdict.feasible
    assert steps == [(0, 1), (1, 1)]
    assert state(written_bundle) == before
    assert not list(tmp_path.iterdir())
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["holds"] is result.holds
    assert document["targets"][0]["verdict"]["measurement"]["kind"] == "measurement"


def test_verify_bundle_does_not_hold_when_accuracy_or_budget_was_claimed_too_high(
    bundle_content: BundleContent, tmp_path: Path
) -> None:
    (target,) = bundle_content.targets
    verdict = dataclasses.replace(
        target.verdict, accuracy=Accuracy(9, 12, ()), budget=Budget.parse("0.000001x"), feasible=True
    )
    boasting = dataclasses.replace(target, verdict=verdict)
    folder = write_bundle(dataclasses.replace(bundle_content, targets=(boasting,)), tmp_path / "bundle")
    result = verify_bundle(folder, ignore)
    assert not result.targets[0].accuracy_holds
    assert not result.targets[0].verdict.feasible
    assert not result.holds


def test_verify_bundle_checks_integrity_first(own_bundle: Path) -> None:
    (own_bundle / "recipe.toml").write_text("")
    with pytest.raises(VerificationError, match=r"recipe\.toml was changed"):
        verify_bundle(own_bundle, ignore)


def test_verify_bundle_reads_no_devices_of_the_folder_that_it_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even if the folder is the current one and its devices.toml is trusted."""
    monkeypatch.setattr("devices.inventory.devices_file._ignored", set())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "user.toml"))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    monkeypatch.chdir(bundle)
    (bundle / "devices.toml").write_text('[devices.board]\nconnection = "local"\npython = "sh"\n')
    trust_project_file()
    assert len(known_devices()) == 2
    with pytest.raises(VerificationError):
        verify_bundle(bundle, ignore)
    assert known_devices() == (HOST,)


@pytest.mark.parametrize("as_reference", [False, True])
def test_verify_bundle_runs_no_program_that_nobody_trusts(
    as_reference: bool, bundle_content: BundleContent, tmp_path: Path
) -> None:
    content = with_program(bundle_content, tmp_path, as_reference=as_reference)
    with pytest.raises(MeasurementError, match="is a program, and you have not said that you trust it"):
        verify_bundle(write_bundle(content, tmp_path / "bundle"), ignore)


def with_test(bundle: Path, content: bytes) -> Path:
    """The bundle with other test images, and a manifest that fits them, as an attacker would write it."""
    (bundle / "data" / "test.npz").write_bytes(content)
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes())
    document["files"]["data/test.npz"] = file_digest(bundle / "data" / "test.npz")
    document["digest"] = manifest_digest(document)
    path.write_bytes(manifest_bytes(document))
    return bundle


def packed(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def test_verify_bundle_refuses_a_zip_bomb_without_unpacking_it(own_bundle: Path) -> None:
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as stream,
    ):
        shape = {"descr": "|u1", "fortran_order": False, "shape": (20_000_000, 4, 4, 1)}
        np.lib.format.write_array_header_1_0(stream, shape)
        for _ in range(320):
            stream.write(bytes(1_000_000))
    tracemalloc.start()
    with pytest.raises(VerificationError, match="suspiciously small for what it unpacks to"):
        verify_bundle(with_test(own_bundle, bomb.getvalue()), ignore)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize(
    "content",
    [
        b"no archive",
        packed(images=np.zeros((2, 4, 4, 1), np.uint8)),
        packed(images=np.zeros((2, 4, 4, 1), np.float32), labels=np.zeros(2, np.int64)),
        packed(images=np.zeros((2, 5, 4, 1), np.uint8), labels=np.zeros(2, np.int64)),
        packed(images=np.zeros((3, 4, 4, 1), np.uint8), labels=np.zeros(2, np.int64)),
        packed(images=np.zeros((2, 4, 4, 1), np.uint8), labels=np.array([0, 3])),
        packed(images=np.zeros((2, 4, 4, 1), np.uint8), labels=np.array([0, -1])),
        packed(images=np.zeros((0, 4, 4, 1), np.uint8), labels=np.zeros(0, np.int64)),
    ],
)
def test_verify_bundle_refuses_test_images_that_are_none(own_bundle: Path, content: bytes) -> None:
    with pytest.raises(VerificationError, match=r"data/test\.npz (cannot be read|does not hold)"):
        verify_bundle(with_test(own_bundle, content), ignore)


def test_verify_bundle_of_a_compiled_model_measures_it_and_has_no_accuracy_to_repeat(
    compiled_content: BundleContent, tmp_path: Path, quiet_machine: None
) -> None:
    result = verify_bundle(write_bundle(compiled_content, tmp_path / "bundle"), ignore)
    (target,) = result.targets
    assert (target.expected_correct, target.verdict.accuracy, target.accuracy_holds) == (None, None, True)
    assert target.verdict.ratio is not None
    assert result.holds
