from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.errors import MeasurementError
from devices.measurement.measurement import MeasurementFailure, Reason
from devices.target import Target
from latency_db.errors import StoreError
from latency_db.store.store import Store, open_store
from latency_db.tables.package import MANIFEST, measure_package, read_manifest, write_package
from tests.latency_db.measurement_samples import PROTOCOL, block, measurement
from tests.latency_db.tables.test_outcomes import Bench, followed

TARGET = Target("host", "onnxruntime")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(str(tmp_path / "latency.db")) as opened:
        yield opened


@pytest.fixture(name="package")
def _package(tmp_path: Path) -> Path:
    """Two models and one that could not be exported."""
    artifacts: dict[str, Path | Reason] = {block("c").identity: Reason("export-failed", "no converter")}
    for name in "ab":
        path = tmp_path / f"{name}.onnx"
        path.write_text(name)
        artifacts[block(name).identity] = path
    folder = tmp_path / "package"
    write_package(folder, TARGET, PROTOCOL, [block(name) for name in "abc"], artifacts)
    return folder


def change(package: Path, **fields: Any) -> None:
    """Change fields of the first item of the manifest."""
    path = package / MANIFEST
    document = json.loads(path.read_text())
    document["items"][0] |= fields
    path.write_text(json.dumps(document))


def test_package_is_measured_elsewhere_and_goes_on_where_it_was(
    tmp_path: Path, package: Path, store: Store
) -> None:
    bench = Bench(tmp_path)
    bench.dies_at = "b"
    with pytest.raises(KeyboardInterrupt):
        measure_package(package, TARGET, store=store, measurer=bench)
    later = Bench(tmp_path)
    outcomes = measure_package(package, TARGET, store=store, measurer=later)
    assert later.measured == [["b"]]
    assert outcomes[block("a").identity] == outcomes[block("b").identity] == followed(measurement())
    failed = outcomes[block("c").identity]
    assert isinstance(failed, MeasurementFailure)
    assert failed.reason == Reason("export-failed", "no converter")


def test_package_moved_to_another_folder_is_still_whole(tmp_path: Path, package: Path, store: Store) -> None:
    moved = package.rename(tmp_path / "elsewhere")
    assert len(measure_package(moved, TARGET, store=store, measurer=Bench(tmp_path))) == 3
    assert read_manifest(moved).protocol == PROTOCOL


@pytest.mark.parametrize("file", ["../a.onnx", "/etc/passwd", "a.onnx", f"{'0' * 64}.onnx/../../a.onnx"])
def test_package_with_a_file_outside_is_refused(
    tmp_path: Path, package: Path, store: Store, file: str
) -> None:
    change(package, file=file)
    bench = Bench(tmp_path)
    with pytest.raises(StoreError, match="cannot be used"):
        measure_package(package, TARGET, store=store, measurer=bench)
    assert bench.measured == []


def test_package_with_a_link_is_refused(tmp_path: Path, package: Path, store: Store) -> None:
    file = package / f"{block('a').identity}.onnx"
    file.unlink()
    file.symlink_to(tmp_path / "a.onnx")
    with pytest.raises(StoreError) as caught:
        measure_package(package, TARGET, store=store, measurer=Bench(tmp_path))
    assert "not a plain file" in caught.value.why


def test_package_with_a_changed_model_is_refused_before_anything_is_measured(
    tmp_path: Path, package: Path, store: Store
) -> None:
    (package / f"{block('b').identity}.onnx").write_text("changed")
    bench = Bench(tmp_path)
    with pytest.raises(StoreError) as caught:
        measure_package(package, TARGET, store=store, measurer=bench)
    assert "not the file that was packed" in caught.value.why
    assert bench.measured == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "lathe-table-package", "version": 2}'])
def test_package_with_a_damaged_manifest_is_refused(package: Path, text: str) -> None:
    (package / MANIFEST).write_text(text)
    with pytest.raises(StoreError, match="cannot be used"):
        read_manifest(package)


def test_package_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        read_manifest(tmp_path)


def test_package_is_refused_when_it_was_made_for_another_runtime(package: Path, store: Store) -> None:
    with pytest.raises(StoreError) as caught:
        measure_package(package, Target("host", "litert"), store=store)
    assert "onnxruntime:fp32" in caught.value.why


def test_package_is_not_written_over_something_else(package: Path) -> None:
    with pytest.raises(StoreError, match="not empty"):
        write_package(package, TARGET, PROTOCOL, [], {})


def test_package_of_programs_is_measured_only_when_it_is_trusted(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    target = Target("host", "torch")
    program = tmp_path / "a.pt2"
    program.write_text("a")
    folder = tmp_path / "programs"
    write_package(folder, target, PROTOCOL, [block("a")], {block("a").identity: program})
    with pytest.raises(MeasurementError, match="is a program"):
        measure_package(folder, target, store=store, measurer=Bench(tmp_path))
    measured: list[Any] = []
    monkeypatch.setattr(
        "latency_db.tables.package.measured", lambda workloads, *_, **__: measured.extend(workloads) or {}
    )
    measure_package(folder, target, store=store, trusting=True)
    measure_package(folder, target, store=store)
    assert len(measured) == 2


def test_package_with_a_file_that_its_runtime_does_not_load_is_refused(
    tmp_path: Path, package: Path, store: Store
) -> None:
    document = json.loads((package / MANIFEST).read_text())
    item = next(item for item in document["items"] if item["file"])
    item["file"] = (package / item["file"]).rename((package / item["file"]).with_suffix(".pt2")).name
    (package / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(StoreError, match="cannot be used") as caught:
        measure_package(package, TARGET, store=store, measurer=Bench(tmp_path))
    assert "loads no .pt2 files" in caught.value.why
