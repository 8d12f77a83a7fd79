"""What breaks off or fails in a compilation, and what the next call of it finds and tries again."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from devices.errors import MeasurementError, PassingMeasurementError, TargetError
from devices.measurement.measurement import Reason
from devices.measuring import LAUNCHES, Round
from pipeline.compile import (
    CompileTask,
    Fate,
    Place,
    Rules,
    comparing,
    find_variant,
    race,
)
from pipeline.errors import ExportError, PassingExportError
from pipeline.progress import ConsoleReporter, what_is_going_on
from tests.pipeline.compile.compiling import (
    BASE,
    OPTIMISED,
    compiled,
    only,
    timed,
)
from tests.pipeline.compile.finished_models import made_up_rounds

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_variants")]


def test_the_same_call_again_finds_everything_and_measures_nothing(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = timed(monkeypatch, fp32=100, fp32_optimised=50)
    rules = Rules(max_drop=100)
    first = compiled(model, tmp_path, data, rules=rules)
    told.clear()
    again = compiled(model, tmp_path, data, rules=rules)
    assert again.cached
    assert not first.cached
    assert told == []
    assert again.raced == first.raced


def test_a_killed_call_goes_on_from_its_last_round(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = timed(monkeypatch, fp32=100, fp32_optimised=99)
    measured = race.measure_round

    def killed(*args: Any, **more: Any) -> Round:
        if len(told) == 4:
            raise KeyboardInterrupt
        return measured(*args, **more)

    monkeypatch.setattr("pipeline.compile.race.measure_round", killed)
    with pytest.raises(KeyboardInterrupt):
        compiled(model, tmp_path)
    told = timed(monkeypatch, fp32=100, fp32_optimised=99)
    raced = only(compiled(model, tmp_path))
    # The other joined after the first, in which the baseline was alone: so its memory is known.
    assert (raced.row(BASE).rounds, raced.row(OPTIMISED).rounds) == (LAUNCHES + 1, LAUNCHES)
    assert len(told) == LAUNCHES + 1 - 4 + 1
    assert told[-1] == [OPTIMISED]


def test_an_interrupt_names_the_variant_that_is_being_made(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(task: CompileTask, path: Path) -> Mapping[str, str]:
        told.append(what_is_going_on())
        return find_variant(OPTIMISED).make(task, path)

    told: list[str] = []
    timed(monkeypatch, fp32=100, fp32_optimised=90)
    spied = {OPTIMISED: replace(find_variant(OPTIMISED), make=make)}
    monkeypatch.setattr(
        "pipeline.compile.making.find_variant", lambda name: spied.get(name) or find_variant(name)
    )
    with ConsoleReporter(Console(file=io.StringIO())) as reporter:
        compiled(model, tmp_path, reporter=reporter)
    assert told == [f"making {OPTIMISED}"]


def test_a_variant_that_took_too_long_to_make_is_tried_again_by_the_next_call(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(task: object, path: Path) -> dict[str, str]:
        raise PassingExportError("timeout", "it cannot be made", why="it did not end")

    timed(monkeypatch, fp32=100, fp32_optimised=90)
    slow = {OPTIMISED: replace(find_variant(OPTIMISED), make=too_long)}
    with monkeypatch.context() as patch:
        patch.setattr(
            "pipeline.compile.making.find_variant", lambda name: slow.get(name) or find_variant(name)
        )
        row = only(compiled(model, tmp_path)).row(OPTIMISED)
    assert (row.fate, row.why, row.passing) == (Fate.FAILED, "it cannot be made: it did not end", True)
    found = compiled(model, tmp_path)
    assert only(found).chosen == OPTIMISED
    assert not found.cached
    assert compiled(model, tmp_path).cached


def test_a_model_that_did_not_run_is_tried_again_by_the_next_call(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> Round:
        return Round({}, {BASE: Reason("oom-killed", "no memory"), OPTIMISED: Reason("oom-killed", "none")})

    monkeypatch.setattr("pipeline.compile.race.measure_round", killed)
    with pytest.raises(MeasurementError, match="itself does not run"):
        compiled(model, tmp_path)
    timed(monkeypatch, fp32=100, fp32_optimised=90)
    assert only(compiled(model, tmp_path)).chosen == OPTIMISED


def test_a_device_that_goes_away_leaves_what_was_measured_for_the_next_call(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = timed(monkeypatch, fp32=100)
    measured = race.measure_round

    def lost(*args: Any, **more: Any) -> Round:
        found = measured(*args, **more)
        return replace(found, lost=Reason("device-lost", "no route")) if len(told) == 3 else found

    monkeypatch.setattr("pipeline.compile.race.measure_round", lost)
    with pytest.raises(TargetError, match="went away while variants were measured") as caught:
        compiled(model, tmp_path)
    assert "goes on" in caught.value.fix
    told = timed(monkeypatch, fp32=100)
    # One more than all, for the variant that joins after the first.
    assert only(compiled(model, tmp_path)).row(BASE).rounds == LAUNCHES + 1
    assert len(told) < LAUNCHES + 2


def test_a_place_that_fails_keeps_no_other_from_being_tried(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, fp32=100)
    places = (Place.parse("host/litert@1"), Place.parse("host/onnxruntime@1"))
    found = compiled(model, tmp_path, places=places)
    assert list(found.raced) == ["host/onnxruntime@1"]
    assert isinstance(found.errors["host/litert@1"], ExportError)


def test_a_variant_that_was_killed_while_it_ran_is_tried_again_by_the_next_call(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = timed(monkeypatch, fp32=100, fp32_optimised=90)
    measured = race.measure_round

    def killed(entrants: Any, protocol: object, number: int, *rest: Any, **more: Any) -> Round:
        found = measured(entrants, protocol, number, *rest, **more)
        if number != 3 or OPTIMISED not in found.launches:
            return found
        launches = {name: each for name, each in found.launches.items() if name != OPTIMISED}
        return Round(launches, {OPTIMISED: Reason("crashed-signal-9", "it was killed")})

    monkeypatch.setattr("pipeline.compile.race.measure_round", killed)
    found = compiled(model, tmp_path)
    row = only(found).row(OPTIMISED)
    assert (row.fate, row.why, row.passing) == (Fate.FAILED, "crashed-signal-9: it was killed", True)
    told = timed(monkeypatch, fp32=100, fp32_optimised=90)
    again = compiled(model, tmp_path)
    assert not again.cached
    assert only(again).chosen == OPTIMISED
    # The three rounds before it failed were kept; the first of them had the baseline alone, so its memory is
    # known, and one more round is for that of the other.
    assert len(told) == LAUNCHES + 1 - 3 + 1
    assert compiled(model, tmp_path).cached


def test_a_variant_that_crashed_of_itself_is_not_tried_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crashed(entrants: Any, *rest: Any, **more: Any) -> Round:
        kept = [each for each in entrants if each.name != OPTIMISED]
        found = made_up_rounds({})(kept, *rest, **more)
        if len(kept) == len(entrants):
            return found
        return replace(found, failed={OPTIMISED: Reason("crashed-signal-11", "segmentation fault")})

    monkeypatch.setattr("pipeline.compile.race.measure_round", crashed)
    row = only(compiled(model, tmp_path)).row(OPTIMISED)
    assert (row.fate, row.passing) == (Fate.FAILED, False)
    assert compiled(model, tmp_path).cached


@pytest.mark.parametrize(("kind", "kept"), [(MeasurementError, True), (PassingMeasurementError, False)])
def test_a_variant_whose_outputs_cannot_be_taken_failed_but_the_baseline_is_only_not_compared(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[MeasurementError], kept: bool
) -> None:
    timed(monkeypatch, fp32=100, fp32_optimised=50)

    def outputs(self: Any, asked: Any) -> Any:
        raise kind("the file could not be run", why="no reason")

    monkeypatch.setattr(comparing.Comparer, "_outputs", outputs)
    found = compiled(model, tmp_path)
    raced = only(found)
    assert raced.chosen == BASE
    assert raced.row(BASE).fate is Fate.MEASURED
    assert raced.row(OPTIMISED).fate is Fate.FAILED
    assert "its outputs cannot be taken: the file could not be run no reason" in raced.row(OPTIMISED).why
    assert any(each.startswith(f"{BASE} was not compared with the model") for each in raced.warnings)
    assert compiled(model, tmp_path).cached is kept
