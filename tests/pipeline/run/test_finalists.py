"""A candidate that could not be measured has not failed: no worse one silently takes its place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devices.measurement import Interval, Ratio
from pipeline.budget import Budget
from pipeline.cli.run.text import _teacher, result_text
from pipeline.errors import NotMeasuredError
from pipeline.recipe.loading import parse_recipe
from pipeline.spaces.base import Architecture
from pipeline.spaces.mobile.space import MobileSpace
from tests.pipeline.run.conftest import Lathe
from tests.pipeline.run.made_up_stages import FATES
from tests.pipeline.run.test_run_again import DOCUMENT

RECIPE = DOCUMENT | {"search": {"rounds": 1}}
PASSING_OVER = RECIPE | {"verify": {"unmeasured": "pass-over"}}


def candidates(lathe: Lathe) -> list[Architecture]:
    """In the order of the made-up search."""
    recipe = parse_recipe(DOCUMENT, lathe.folder)
    space = MobileSpace.from_config(recipe.space, (1, 8, 8), 2)
    reference = space.reference()
    return [reference, *(each for each in space.members() if each != reference)][:3]


@pytest.fixture(name="of")
def _of(lathe: Lathe) -> list[Architecture]:
    FATES.candidates = 3
    return candidates(lathe)


def test_a_candidate_that_was_disturbed_is_measured_again_and_wins(
    lathe: Lathe, of: list[Architecture]
) -> None:
    FATES.verdicts = {of[0]: ["disturbed", "kept"]}
    found = lathe.run(RECIPE)
    # No other candidate was trained meanwhile.
    assert [each.name for each in found.stages].count("distil") == 1
    assert found.winner.distilled.architecture == of[0]
    assert found.winner.passed_over == ()
    assert found.winner.rejected == ()


def test_one_that_stays_unmeasured_ends_the_run_as_not_measured_and_the_next_run_goes_on(
    lathe: Lathe, of: list[Architecture]
) -> None:
    FATES.verdicts = {of[0]: ["disturbed"] * 3}
    with pytest.raises(NotMeasuredError) as caught:
        lathe.run(RECIPE)
    assert caught.value.exit_code == 12
    assert str(of[0]) in caught.value.why
    assert str(of[1]) in caught.value.why
    assert 'verify.unmeasured = "pass-over"' in caught.value.fix
    # Calm now: the measurement alone is repeated.
    found = lathe.run(RECIPE)
    assert found.winner.distilled.architecture == of[0]
    assert [record.name for record in found.stages if not record.cached] == ["verify", "report", "bundle"]


def test_a_recipe_may_pass_it_over_and_is_told_so_everywhere(lathe: Lathe, of: list[Architecture]) -> None:
    FATES.verdicts = {of[0]: ["disturbed"] * 3}
    found = lathe.run(PASSING_OVER)
    assert found.winner.distilled.architecture == of[1]
    assert [each.architecture for each in found.winner.passed_over] == [of[0]]
    text = result_text(found)
    assert f"NOT THE BEST CANDIDATE: {of[0]} was preferred" in text
    document: dict[str, Any] = found.to_json()["winner"]
    assert document["not_measured"] == [
        {"architecture": dict(of[0].choices), "budget_used": {}, "why": "disturbed"}
    ]
    assert document["exceeded_a_budget"] == []


def test_what_exceeded_a_budget_is_told_apart_from_what_could_not_be_measured(
    lathe: Lathe, of: list[Architecture]
) -> None:
    FATES.verdicts = {of[0]: ["exceeded"], of[1]: ["disturbed"] * 3}
    winner = lathe.run(PASSING_OVER).winner
    assert [each.architecture for each in winner.rejected] == [of[0]]
    assert [each.architecture for each in winner.passed_over] == [of[1]]
    assert winner.distilled.architecture == of[2]


def test_nothing_is_passed_over_for_nothing(lathe: Lathe, of: list[Architecture]) -> None:
    FATES.verdicts = {of[0]: ["disturbed"] * 3, of[1]: ["exceeded"], of[2]: ["exceeded"]}
    with pytest.raises(NotMeasuredError) as caught:
        lathe.run(PASSING_OVER)
    assert "pass-over" not in caught.value.fix


def test_one_that_exceeds_its_budget_when_measured_again_is_rejected(
    lathe: Lathe, of: list[Architecture]
) -> None:
    FATES.verdicts = {of[0]: ["disturbed", "disturbed", "exceeded"]}
    winner = lathe.run(RECIPE).winner
    assert winner.distilled.architecture == of[1]
    assert [each.architecture for each in winner.rejected] == [of[0]]


def test_the_first_that_keeps_its_budget_when_measured_again_wins(
    lathe: Lathe, of: list[Architecture]
) -> None:
    FATES.verdicts = {of[0]: ["disturbed", "disturbed", "exceeded"], of[1]: ["disturbed"] * 2}
    assert lathe.run(RECIPE).winner.distilled.architecture == of[1]


def relative(**changes: Any) -> dict[str, Any]:
    """Both kinds of relative budgets."""
    budgets = {"board/onnxruntime:fp32@1": "0.25x teacher", "board/litert:fp32@1": "0.6x"}
    return RECIPE | {"target": [{"name": each, "budget": its} for each, its in budgets.items()]} | changes


def test_a_candidate_that_exceeds_a_relative_budget_untrained_is_not_trained(
    lathe: Lathe, of: list[Architecture]
) -> None:
    FATES.untrained = {of[0]: 0.26}
    found = lathe.run(relative())
    assert found.winner.distilled.architecture == of[1]
    assert [each.name for each in found.stages].count("distil") == 1
    (failure,) = found.winner.rejected
    assert failure.architecture == of[0]
    assert failure.shares == {
        "board/onnxruntime:fp32@1": pytest.approx(1.1 * 0.26 / 0.25),
        "board/litert:fp32@1": pytest.approx(1.1 * 0.26 / 0.6),
    }
    assert failure.why == (
        "untrained, it takes 0.260x [0.234, 0.286] of the teacher's latency on board/onnxruntime:fp32@1, "
        "more than 0.25x of the teacher"
    )
    assert "rehearse" not in lathe.again(relative())
    # A ratio does not depend on what it is compared with.
    looser = [each | {"budget": "0.3x teacher"} for each in relative()["target"][:1]]
    assert "rehearse" not in lathe.again(relative(target=[*looser, *relative()["target"][1:]]))


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        relative(target=[{"name": "board/onnxruntime:fp32@1", "budget": "0.6x soft"}]),
        relative(compile={"choose": "measured"}),
    ],
    ids=["milliseconds", "soft", "compiled as is fastest"],
)
def test_nothing_is_rehearsed_where_it_decides_nothing(lathe: Lathe, recipe: dict[str, Any]) -> None:
    assert "rehearse" not in lathe.again(recipe)


IN_INT8 = {"target": [{"name": "board/litert:int8@1", "budget_ms": 1000}]}
MIXED = {"target": [*IN_INT8["target"], *DOCUMENT["target"]]}


@pytest.mark.parametrize("targets", [IN_INT8, MIXED])
def test_finalists_are_ordered_by_their_accuracy_in_int8_where_a_target_wants_it(
    lathe: Lathe, of: list[Architecture], targets: dict[str, Any]
) -> None:
    FATES.in_int8 = dict(zip(of, (0.5, 0.7, 0.6), strict=True))
    found = lathe.run(RECIPE | targets | {"search": {"rounds": 1, "finalists": 3}})
    assert found.winner.distilled.architecture == of[1]
    in_int8 = {each["target"]: each["int8"] for each in found.to_json()["winner"]["targets"]}
    assert in_int8.pop("board/litert:int8@1") == {
        "float_accuracy": 0.8,
        "post_training_accuracy": 0.7,
        "fine_tuned_accuracy": None,
        "fine_tuning_epochs": 0,
        "ships_fine_tuned": False,
        "agreement_with_float": 1.0,
    }
    assert set(in_int8.values()) <= {None}
    assert "80.00% in float, 70.00% in int8, on the validation slice" in result_text(found)


def test_the_teacher_is_left_as_a_file_with_the_command_that_compares_it(
    lathe: Lathe, of: list[Architecture]
) -> None:
    found = lathe.run(RECIPE)
    models: dict[str, str] = found.to_json()["teacher"]["models"]
    target = next(name for name in found.winner.verified.verdicts if "/onnxruntime:" in name)
    teacher = models["onnx"]
    assert Path(teacher).is_file()
    student = found.bundle / "portable" / "board_onnxruntime_fp32_1" / "model.onnx"
    assert f"lathe compare {teacher} {student} --target {target}\n" in result_text(found)


@pytest.mark.parametrize(
    ("budget", "times"),
    [
        ("0.5x teacher", "3.56 times the student's side by side"),
        ("0.5x", "4.00 times the student's"),
        ("9ms", "4.00 times the student's"),
    ],
)
def test_what_the_student_gains_on_the_teacher_is_the_ratio_by_which_its_budget_is_judged(
    budget: str, times: str
) -> None:
    ratio = Ratio(0.27, 1 / 3.56, 0.29, 0.99)
    measurement = SimpleNamespace(latency=Interval(0.9e6, 1e6, 1.1e6, 0.99))
    verdict: Any = SimpleNamespace(
        target="host/litert:fp32@1", budget=Budget.parse(budget), ratio=ratio, measurement=measurement
    )
    told = _teacher(Interval(3.9e6, 4e6, 4.1e6, 0.99), verdict)
    assert told.endswith(f"measured, {times}")
    verdict.target = "host/litert:int8@1"
    assert _teacher(Interval(3.9e6, 4e6, 4.1e6, 0.99), verdict).endswith(f"measured in float, {times}")
