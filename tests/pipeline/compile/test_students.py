"""The variant of a student is measured among those that leave its outputs as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from devices.errors import MeasurementError, TargetError
from devices.measurement import MeasuringProtocol
from devices.measurement.measurement import Reason
from devices.measuring import Round
from devices.target import Target
from pipeline.compile import CompileTask, fastest_variant, find_variant
from pipeline.errors import ExportError
from tests.pipeline.compile.finished_models import made_up_rounds, save_classifier

TARGET = Target("host", "onnxruntime")
DEFAULT, CLEANED = "onnxruntime:fp32-optimised", "onnxruntime:fp32-cleaned"
PROTOCOL = MeasuringProtocol(launches=3)


def copied(task: CompileTask, path: Path) -> dict[str, str]:
    path.write_bytes(task.model.read_bytes())
    return {}


@pytest.fixture(autouse=True)
def _copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variants that are made at once."""
    names = (DEFAULT, "onnxruntime:fp32", CLEANED, "onnxruntime:int8-dynamic", "litert:fp32-tidied")
    known = tuple(replace(find_variant(name), make=copied) for name in names)
    for module in ("students", "variants"):
        monkeypatch.setattr(f"pipeline.compile.{module}.known_variants", lambda: known)


def fastest(tmp_path: Path) -> str:
    exported = save_classifier(tmp_path / "student.onnx")
    return fastest_variant(exported, TARGET, tmp_path / "tried", PROTOCOL).name


def test_the_fastest_of_the_targets_lossless_variants_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []
    measure = made_up_rounds({CLEANED: 80, "onnxruntime:int8-dynamic": 1}, told=told)
    monkeypatch.setattr("pipeline.compile.students.measure_round", measure)
    assert fastest(tmp_path) == CLEANED
    assert told == [[DEFAULT, "onnxruntime:fp32", CLEANED]] * 3


def test_the_default_stays_where_no_other_is_faster_by_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.compile.students.measure_round", made_up_rounds({CLEANED: 99}))
    assert fastest(tmp_path) == DEFAULT


def test_a_variant_that_does_not_run_is_passed_over_and_the_default_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = CLEANED

    def measure(entrants, protocol, number, connection):
        found = made_up_rounds({CLEANED: 10})(entrants, protocol, number, connection)
        launches = {name: launch for name, launch in found.launches.items() if name != failing}
        return Round(launches, {failing: Reason("load-failed", "no such operator")})

    monkeypatch.setattr("pipeline.compile.students.measure_round", measure)
    assert fastest(tmp_path) == DEFAULT
    failing = DEFAULT
    with pytest.raises(MeasurementError, match="does not run") as caught:
        fastest(tmp_path)
    assert caught.value.why == "no such operator"


def test_nothing_is_chosen_from_a_device_that_went_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []
    timed = made_up_rounds({CLEANED: 10}, told=told)

    def measure(entrants, protocol, number, connection):
        return replace(timed(entrants, protocol, number, connection), lost=Reason("device-lost", "no route"))

    monkeypatch.setattr("pipeline.compile.students.measure_round", measure)
    with pytest.raises(TargetError, match="went away") as caught:
        fastest(tmp_path)
    assert (caught.value.why, len(told)) == ("no route", 1)


def test_a_variant_that_cannot_be_made_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(task: CompileTask, path: Path) -> dict[str, str]:
        raise ExportError("it cannot be made")

    known = (
        replace(find_variant(DEFAULT), make=copied),
        replace(find_variant(CLEANED), make=refuse),
    )
    for module in ("students", "variants"):
        monkeypatch.setattr(f"pipeline.compile.{module}.known_variants", lambda: known)
    monkeypatch.setattr("pipeline.compile.students.measure_round", made_up_rounds({CLEANED: 1}))
    assert fastest(tmp_path) == DEFAULT
