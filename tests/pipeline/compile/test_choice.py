"""What is chosen of made-up measurements, why, and what the front is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from devices.measurement.protocol import MeasuringProtocol
from devices.measuring import Round, Rounds
from pipeline.compile.choice import Rules, choose
from pipeline.compile.quality import Quality, quality_of
from pipeline.compile.result import Fate, Objective, Row
from pipeline.tasks import SINGLE_LABEL, AnyTask, Embedding, MultiLabel, Regression
from tests.devices.made_up import made_up_launch, made_up_measurement

PROTOCOL = MeasuringProtocol()
BASE = "onnxruntime:fp32"


def row(name: str, time_us: int, size: int = 100, drop: float = 0.0, options: str = "") -> Row:
    quality = Quality(0.0, 0.0, 1.0, 0.9 - drop / 100, 0.9, 1000)
    measurement = made_up_measurement([[1000 * time_us] * 20] * 9)
    target = f"host/{name.partition('-')[0]}{options}@1"
    lossless = ":fp32" in name
    return Row(name, name, target, Fate.MEASURED, "", lossless, None, {}, size, quality, measurement, None, 9)


def table(*rows: Row) -> Rounds:
    made = Round({each.name: made_up_launch([round(1e6 * (each.latency_ms or 0))] * 20) for each in rows})
    return Rounds((made,) * 9, PROTOCOL, cores=2)


def chosen(*rows: Row, rules: Rules | None = None) -> str | None:
    return choose(rows, BASE, rules or Rules(), table(*rows)).chosen


def test_the_fastest_is_chosen() -> None:
    assert chosen(row(BASE, 100), row("onnxruntime:int8-a", 50), row("litert:int8-b", 60)) == (
        "onnxruntime:int8-a"
    )


def test_of_those_that_are_as_fast_the_more_accurate_then_the_smaller_then_the_plainer() -> None:
    fast = row("onnxruntime:int8-a", 1000, drop=0.4)
    accurate = row("onnxruntime:int8-b", 1010, drop=0.1)
    small = row("onnxruntime:int8-c", 1015, size=50, drop=0.1)
    plain = replace(small, name="onnxruntime:int8-d", target="host/onnxruntime:int8@1")
    pinned = replace(small, target="host/onnxruntime:int8+cores=0@1")
    base = row(BASE, 3000)
    assert chosen(base, fast, accurate) == accurate.name
    assert chosen(base, fast, accurate, small) == small.name
    assert chosen(base, fast, accurate, pinned, plain) == plain.name


def test_a_slower_one_is_not_chosen_for_its_accuracy() -> None:
    fast, accurate = row("onnxruntime:int8-a", 1000, drop=0.4), row("onnxruntime:int8-b", 1030)
    assert chosen(row(BASE, 3000), fast, accurate) == fast.name


def test_nothing_that_was_stopped_or_rejected_is_chosen() -> None:
    rejected = replace(row("onnxruntime:int8-a", 10), fate=Fate.REJECTED)
    found = choose((row(BASE, 100), rejected), BASE, Rules(), table(row(BASE, 100), rejected))
    assert found.chosen == BASE
    assert found.reason.startswith(f"nothing is faster than {BASE}")
    assert found.front == (BASE,)


def test_the_reason_has_ratio_and_loss() -> None:
    fast = row("onnxruntime:int8-a", 25, drop=0.3)
    reason = choose((row(BASE, 100), fast), BASE, Rules(), table(row(BASE, 100), fast)).reason
    assert reason == (
        f"onnxruntime:int8-a takes 0.25x [0.25, 0.25] the latency of {BASE}, "
        "and loses 0.30 points of accuracy (0.5 may be lost)"
    )


def test_size_is_kept_small_within_the_budget() -> None:
    small, slow = row("onnxruntime:int8-a", 90, size=30), row("onnxruntime:int8-b", 200, size=20)
    base = row(BASE, 100)
    assert chosen(base, small, slow, rules=Rules(Objective.SIZE)) == slow.name
    assert chosen(base, small, slow, rules=Rules(Objective.SIZE, budget_ms=0.1)) == small.name


def test_the_front_leaves_out_what_another_beats_in_all_respects() -> None:
    rows = (
        row(BASE, 100, size=100),
        row("onnxruntime:int8-a", 50, size=30, drop=0.2),
        row("onnxruntime:int8-b", 60, size=30, drop=0.3),
        row("onnxruntime:int8-c", 70, size=20, drop=0.2),
    )
    assert choose(rows, BASE, Rules(), table(*rows)).front == (
        BASE,
        "onnxruntime:int8-a",
        "onnxruntime:int8-c",
    )


EXPECTED = np.array([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0], [1.0, 6.0]], np.float32)


def test_quality_counts_accuracy_and_agreement() -> None:
    actual = EXPECTED + np.array([[0.5, 0], [0, 0], [0, 2], [0, 0]], np.float32)
    found = quality_of([EXPECTED], [actual], np.array([0, 1, 0, 0]), SINGLE_LABEL)
    assert (found.max_abs, found.samples) == (2.0, 4)
    assert found.max_rel == pytest.approx(0.4)
    assert (found.agreement, found.accuracy, found.reference_accuracy) == (0.75, 0.5, 0.75)
    assert found.drop == pytest.approx(25)


def test_without_labels_the_loss_is_the_share_of_classes_that_change_at_most() -> None:
    found = quality_of([EXPECTED], [EXPECTED[:, ::-1]], None, SINGLE_LABEL)
    assert found.accuracy is None
    assert found.drop == 100


def test_outputs_that_are_no_numbers_are_never_good() -> None:
    actual = EXPECTED.copy()
    actual[1] = np.nan
    found = quality_of([EXPECTED], [actual], np.array([0, 1, 0, 1]), SINGLE_LABEL)
    assert not found.finite
    assert (found.accuracy, found.agreement, found.drop) == (None, None, None)
    assert not quality_of([EXPECTED], [np.full_like(EXPECTED, np.inf)], None, None).finite
    assert not quality_of([EXPECTED, EXPECTED], [EXPECTED, actual], None, SINGLE_LABEL).finite


def test_several_outputs_are_all_compared_each_by_its_own_size_and_classes_come_from_the_first() -> None:
    small = 0.01 * EXPECTED
    scores = [EXPECTED, small + np.float32(0.01)]
    found = quality_of([EXPECTED, small], scores, np.array([0, 1, 0, 1]), SINGLE_LABEL)
    assert found.max_abs == pytest.approx(0.01)
    assert found.max_rel == pytest.approx(0.5)
    assert (found.agreement, found.accuracy) == (1, 1)
    assert not quality_of([EXPECTED, small], [EXPECTED], None, SINGLE_LABEL).finite


MANY = np.random.default_rng(0).standard_normal((50, 3), dtype=np.float32)


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (MultiLabel(), (MANY > 0.3).astype(np.float32)),
        (Regression((0.0,) * 3, (1.0,) * 3), MANY * np.float32(0.9)),
        (Embedding(), np.arange(50) % 5),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_a_loss_is_of_the_metric_of_the_task(task: AnyTask, labels: np.ndarray) -> None:
    actual = MANY + np.random.default_rng(1).normal(0, 0.4, MANY.shape).astype(np.float32)
    found = quality_of([MANY], [actual], labels, task)
    assert found.accuracy == task.value(actual, labels)
    assert found.reference_accuracy == task.value(MANY, labels)
    assert found.drop == pytest.approx(100 * (task.value(MANY, labels) - task.value(actual, labels)))
    without = quality_of([MANY], [actual], None, task)
    assert without.accuracy is None
    assert without.drop == pytest.approx(100 * (1 - task.agreement(actual, MANY)))
    assert without.drop > 0
    assert quality_of([MANY], [MANY], None, task).drop == pytest.approx(0, abs=1e-4)


def test_the_reason_calls_the_metric_by_its_name() -> None:
    task = Regression((0.0,), (1.0,))
    fast = row("onnxruntime:int8-a", 25, drop=0.3)
    reason = choose((row(BASE, 100), fast), BASE, Rules(), table(row(BASE, 100), fast), task=task).reason
    assert reason.endswith(", and loses 0.30 points of R2 (0.5 may be lost)")


def test_nothing_is_chosen_where_nothing_runs_and_keeps_the_accuracy() -> None:
    rejected = replace(row(BASE, 100), fate=Fate.REJECTED, why="its outputs cannot be taken")
    found = choose((rejected,), BASE, Rules(), table(rejected))
    assert (found.chosen, found.front, found.keeps_budget) == (None, (), None)
    assert found.reason == "no variant runs and keeps the accuracy"
