from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

import devices.result_file
from devices.errors import MeasurementError
from devices.measurement.measurement import Measurement, MeasurementFailure, Reason
from devices.measuring.comparison import Comparison
from devices.requests.operations import OperationProfile
from devices.requests.sustained import SustainedRun
from devices.result_file import VERSION, Entry, ResultFile, read_results
from tests.devices.made_up import made_up_measurement

STORED = Path(__file__).parent / "stored_results"
MEASUREMENT = made_up_measurement([[100, 101, 102]] * 5)
FAILURE = MeasurementFailure("ef" * 32, "host/litert:fp32@1", Reason("load-failed", "no such operation"))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_every_version_has_a_stored_example() -> None:
    assert {path.name for path in STORED.iterdir()} == {
        f"version-{number}.json" for number in range(1, VERSION + 1)
    }


def test_version_1_is_read_with_what_it_did_not_know_left_open() -> None:
    results = read_results(STORED / "version-1.json")
    assert (results.version, results.lathe) == (1, "0.1.0")
    assert [entry.models for entry in results.entries] == [("tiny.onnx",), ("broken.onnx",)]
    measured, failed = (entry.result for entry in results.entries)
    assert isinstance(measured, Measurement)
    assert measured.protocol.version == 1
    assert measured.latency.value_ns > 0
    assert [len(launch.samples_ns) for launch in measured.launches] == [20, 20, 20]
    assert measured.launches[0].usage is None
    assert measured.launches[0].before.battery_percent is None
    assert isinstance(failed, MeasurementFailure)
    assert failed.reason.code == "load-failed"


def test_version_2_is_read_with_every_kind_of_result() -> None:
    results = read_results(STORED / "version-2.json")
    assert results.version == 2
    assert results.written_at
    kinds = [type(entry.result) for entry in results.entries]
    assert kinds == [Measurement, MeasurementFailure, OperationProfile, SustainedRun, Comparison]
    assert results.entries[-1].models == ("tiny.onnx", "tiny.onnx")
    sustained = results.entries[3].result
    assert isinstance(sustained, SustainedRun)
    assert len(sustained.windows) == 12


def test_what_was_added_is_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    stored = read_results(STORED / "version-2.json").entries
    file = ResultFile(path)
    for entry in stored:
        file.add(entry.models, entry.result)
    assert read_results(path).entries == stored


def test_file_is_whole_after_each_addition(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    file = ResultFile(path)
    file.add(["a"], MEASUREMENT)
    assert read_results(path).entries == (Entry(("a",), MEASUREMENT),)
    file.add(["b"], FAILURE)
    assert read_results(path).entries[1] == Entry(("b",), FAILURE)
    assert _names(tmp_path) == ["results.json"]


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("precious")
    with pytest.raises(MeasurementError, match="exists already"):
        ResultFile(path)
    assert path.read_text() == "precious"


def test_a_file_to_which_nothing_was_added_leaves_no_trace(tmp_path: Path) -> None:
    ResultFile(tmp_path / "results.json")
    assert _names(tmp_path) == []


def test_a_file_that_another_process_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    file = ResultFile(path)
    path.write_text("precious")
    with pytest.raises(MeasurementError, match="exists already"):
        file.add(["a"], MEASUREMENT)
    assert path.read_text() == "precious"
    assert _names(tmp_path) == ["results.json"]


def test_a_full_disk_leaves_no_file_without_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    file = ResultFile(tmp_path / "results.json")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MeasurementError, match="cannot be written"):
            file.add(["a"], MEASUREMENT)
    assert _names(tmp_path) == []
    file.add(["b"], FAILURE)
    assert read_results(tmp_path / "results.json").entries == (Entry(("b",), FAILURE),)


def test_a_place_that_cannot_be_written_is_an_error_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none" / "results.json", tmp_path / "file" / "results.json"):
        with pytest.raises(MeasurementError, match="cannot be written"):
            ResultFile(path)
    with pytest.raises(MeasurementError, match="exists already"):
        ResultFile(tmp_path)


def test_what_was_written_before_is_kept_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "results.json"
    file = ResultFile(path)
    file.add(["a"], MEASUREMENT)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MeasurementError, match="cannot be written") as caught:
        file.add(["b"], FAILURE)
    assert "No space left" in caught.value.why
    assert read_results(path).entries == (Entry(("a",), MEASUREMENT),)
    assert _names(tmp_path) == ["results.json"]


@pytest.mark.parametrize(
    "name", ["two words.onnx", "quote'\".onnx", "new\nline.onnx", "-dash.onnx", "ü€.onnx"]
)
def test_odd_names_are_kept(tmp_path: Path, name: str) -> None:
    file = ResultFile(tmp_path / "results.json")
    file.add([name], FAILURE)
    assert read_results(tmp_path / "results.json").entries[0].models == (name,)


def test_a_name_that_is_not_unicode_is_kept_escaped(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "results.json")
    file.add([os.fsdecode(b"odd\xff.onnx")], FAILURE)
    assert read_results(tmp_path / "results.json").entries[0].models == (r"odd\udcff.onnx",)


@pytest.mark.parametrize("version", [1, 2])
def test_a_truncated_file_is_damaged_wherever_it_is_cut(tmp_path: Path, version: int) -> None:
    content = (STORED / f"version-{version}.json").read_bytes().rstrip()
    path = tmp_path / "cut.json"
    for length in range(0, len(content) - 1, max(1, len(content) // 40)):
        path.write_bytes(content[:length])
        with pytest.raises(MeasurementError, match="is damaged"):
            read_results(path)


@pytest.mark.parametrize(
    "content",
    [
        b"[1, 2]",
        b'"lathe-results"',
        b"{}",
        b'{"format": "other", "version": 2}',
        b"null",
    ],
)
def test_a_foreign_file_is_told_apart_from_a_damaged_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.json"
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match="is not a result file"):
        read_results(path)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\xff\xfe", b"[" * 200_000, b"1" * 10_000, b"", b'{"format": "lathe-results"}']
)
def test_what_cannot_be_understood_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(MeasurementError, match="is damaged"):
        read_results(path)


@pytest.mark.parametrize("version", [0, -1, "2", 2.5, True, None])
def test_a_version_that_is_none_is_damaged(tmp_path: Path, version: object) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"format": "lathe-results", "version": version, "lathe": "1", "entries": []}))
    with pytest.raises(MeasurementError, match="is damaged"):
        read_results(path)


def test_a_newer_version_says_which_lathe_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"format": "lathe-results", "version": VERSION + 1, "lathe": "9.1"}))
    with pytest.raises(MeasurementError, match=f"version {VERSION + 1}") as caught:
        read_results(path)
    assert "9.1" in caught.value.why
    assert caught.value.fix == "update Lathe"


def _change(document, place: list[str | int], value: object) -> None:
    for step in place[:-1]:
        document = document[step]
    document[place[-1]] = value


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["entries"], 3),
        (["entries", 0], []),
        (["entries", 0, "models"], None),
        (["entries", 0, "result"], {}),
        (["entries", 0, "result", "kind"], "estimate"),
        (["entries", 0, "result", "verdict"], "splendid"),
        (["entries", 0, "result", "launches"], []),
        (["entries", 0, "result", "launches", 0, "samples_ns"], ["fast"]),
        (["entries", 0, "result", "launches", 0, "samples_ns"], []),
        (["entries", 0, "result", "protocol", "headline_quantile"], 7),
        (["entries", 2, "result", "operations"], []),
        (["entries", 3, "result", "windows"], []),
        (["entries", 3, "result", "windows", 0, "samples_ns"], []),
        (["entries", 4, "result", "first", "launches"], []),
    ],
)
def test_a_field_that_makes_no_sense_is_damage(tmp_path: Path, place: list[str | int], value: object) -> None:
    document = json.loads((STORED / "version-2.json").read_text())
    _change(document, place, value)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    with pytest.raises(MeasurementError, match="is damaged") as caught:
        read_results(path)
    assert caught.value.why


def test_missing_long_and_special_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MeasurementError, match="there is no result file"):
        read_results(tmp_path / "none.json")
    with pytest.raises(MeasurementError, match="there is no result file"):
        read_results(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    with pytest.raises(MeasurementError, match="there is no result file"):
        read_results(pipe)
    monkeypatch.setattr(devices.result_file, "MAX_BYTES", 100)
    with pytest.raises(MeasurementError, match="too long"):
        read_results(STORED / "version-1.json")
