"""A verdict rests on the measured interval, never on the value alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from devices.errors import MeasurementError
from devices.measurement.between import BetweenBatches, Spread
from devices.measurement.conditions import Conditions, RunQueue
from devices.measurement.measurement import (
    DeviceIdentity,
    Launch,
    Measurement,
    Outcome,
    Reason,
    RuntimeIdentity,
    Verdict,
    paired_ratio,
)
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring.batch import measure
from devices.target import Target
from pipeline.budget import Budget
from pipeline.data.base import Preprocessing, Split
from pipeline.errors import VerificationError
from pipeline.target_verdict import Accuracy, LabelledImages, TargetVerdict, in_layout, judge, verify_artifact
from tests.quiet_machine import be_quiet

HOST = Target.parse("host/onnxruntime:fp32@1")
IDENTITY = Preprocessing((0.0,), (1.0,))
PROTOCOL = MeasuringProtocol(launches=3, max_launches=0, min_ns=1_000_000, warmup_ns=1_000_000)

headlines = st.lists(st.integers(1_000, 10**9), min_size=1, max_size=9)


def a_measurement(headlines_ns: list[int], verdict: Verdict = Verdict.VALID) -> Measurement:
    calm = Conditions(None, None, None, None, None, None)
    return Measurement(
        artifact_digest="00" * 32,
        target=str(HOST),
        runtime=RuntimeIdentity("onnxruntime", "1", "00", "fp32", 1),
        device=DeviceIdentity("x86_64", "fixture", 1, "Linux", "6", "none"),
        protocol=PROTOCOL,
        launches=tuple(Launch(1, 1, 1, (value,) * 11, 1, calm, calm) for value in headlines_ns),
        verdict=verdict,
        reasons=() if verdict is Verdict.VALID else (Reason("launches-disagree", "launches differ"),),
        started_at="2024-01-01T00:00:00+00:00",
    )


def save_pixel_model(path: Path, operator: str = "Flatten") -> Path:
    """Logits are the two pixels of a (1, 1, 1, 2) image."""
    graph = helper.make_graph(
        [helper.make_node(operator, ["input"], ["flat"]), helper.make_node("Flatten", ["flat"], ["logits"])],
        "pixels",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 1, 1, 2))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 2))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def pixels() -> LabelledImages:
    images = np.array([[9, 1], [1, 9], [9, 1], [1, 9]], np.uint8).reshape(4, 1, 2, 1)
    return LabelledImages(Split(images, np.array([0, 1, 1, 1], np.int64)), IDENTITY, "NCHW")


@given(headlines)
def test_latency_ratio_is_one_for_a_measurement_against_itself(values: list[int]) -> None:
    ratio = paired_ratio(a_measurement(values), a_measurement(values))
    assert ratio is not None
    assert (ratio.low, ratio.value, ratio.high) == (1.0, 1.0, 1.0)


@given(headlines, st.integers(2, 50))
def test_latency_ratio_finds_a_constant_factor_whatever_the_launches_do(
    values: list[int], factor: int
) -> None:
    ratio = paired_ratio(a_measurement([factor * value for value in values]), a_measurement(values))
    assert ratio is not None
    assert ratio.low == pytest.approx(factor)
    assert ratio.high == pytest.approx(factor)


def test_latency_ratio_needs_equally_many_launches() -> None:
    student, reference = a_measurement([5, 5]), a_measurement([9, 9, 9])
    assert paired_ratio(student, reference) is None
    feasible, why = judge(Budget.parse("0.9x"), student, reference, None)
    assert not feasible
    assert "cannot be paired" in why


@given(headlines, st.integers(1_000, 10**9))
def test_judge_is_feasible_exactly_when_the_upper_end_is_within(values: list[int], limit_ns: int) -> None:
    measurement = a_measurement(values)
    budget = Budget(limit_ms=limit_ns / 1e6)
    assert budget.limit_ns is not None
    feasible, why = judge(budget, measurement, None, None)
    assert feasible is (measurement.latency.high_ns <= budget.limit_ns)
    assert budget.words in why


def test_judge_says_whether_the_budget_is_kept_in_doubt_or_exceeded() -> None:
    measurement = a_measurement([1_000_000, 1_100_000, 1_200_000])
    for text, word in (("1.3ms", " keeps "), ("1.15ms", " may exceed "), ("0.9ms", " exceeds ")):
        feasible, why = judge(Budget.parse(text), measurement, None, None)
        assert word in why
        assert feasible is (text == "1.3ms")


BETWEEN = BetweenBatches(Spread(0.05, 20, 20), Spread(0.02, 5, 3))


def test_a_budget_in_milliseconds_is_judged_by_what_holds_at_another_time() -> None:
    measurement = a_measurement([1_000_000] * 5)
    budget = Budget.parse("1.1ms")
    assert judge(budget, measurement, None, None)[0]
    feasible, why = judge(budget, measurement, None, None, BETWEEN)
    assert not feasible
    assert "may exceed" in why
    assert "here and now" in why
    assert judge(Budget.parse("1.4ms"), measurement, None, None, BETWEEN)[0]
    assert "exceeds" in judge(Budget.parse("0.7ms"), measurement, None, None, BETWEEN)[1]


def test_without_a_budget_both_intervals_are_told() -> None:
    measurement = a_measurement([1_000_000] * 5)
    wide = BETWEEN.around(measurement.latency)
    told = f"{measurement.latency} here and now, {wide.ends} on this machine, and no budget limits it"
    assert judge(None, measurement, None, None, BETWEEN)[1] == f"the measured latency is {told}"
    assert "on this machine" not in judge(None, measurement, None, None)[1]


def test_the_use_of_a_budget_is_told_by_the_interval_that_judges_it() -> None:
    measurement, budget = a_measurement([1_000_000] * 5), Budget.parse("1.1ms")
    narrow = TargetVerdict(str(HOST), "00", None, measurement, None, None, budget, True, "")
    wide = dataclasses.replace(narrow, between=BETWEEN)
    assert narrow.used is not None
    assert wide.used is not None
    assert narrow.used < 1 < wide.used
    assert narrow.on_device is None
    assert wide.on_device == BETWEEN.around(measurement.latency)
    assert TargetVerdict.from_json(wide.to_json()) == wide


def test_a_verdict_of_an_earlier_version_is_judged_by_its_launches() -> None:
    measurement, budget = a_measurement([1_000_000] * 5), Budget.parse("1.1ms")
    document = TargetVerdict(str(HOST), "00", None, measurement, None, None, budget, True, "").to_json()
    del document["between"]
    assert TargetVerdict.from_json(document).between is None


@given(headlines)
def test_a_relative_budget_is_judged_by_the_ratio_whatever_batches_do(values: list[int]) -> None:
    student, reference = a_measurement(values), a_measurement([3 * value for value in values])
    ratio = paired_ratio(student, reference)
    for text in ("0.3x", "0.34x", "0.5x teacher"):
        budget = Budget.parse(text)
        assert judge(budget, student, reference, ratio, BETWEEN) == judge(budget, student, reference, ratio)


@pytest.mark.parametrize("which", ["artifact", "reference network"])
def test_judge_never_calls_an_invalid_measurement_feasible(which: str) -> None:
    student, reference = a_measurement([5, 5, 5]), a_measurement([50, 50, 50])
    if which == "artifact":
        student = dataclasses.replace(student, verdict=Verdict.INVALID)
    else:
        reference = dataclasses.replace(reference, verdict=Verdict.INVALID)
    ratio = paired_ratio(student, reference)
    feasible, why = judge(Budget.parse("0.9x"), student, reference, ratio)
    assert not feasible
    assert f"measurement of the {which} is invalid" in why


def disturbed(latency_ns: int, share: float) -> Measurement:
    """Launches of inferences that were all interrupted, and waited for such a share of their time."""
    reason = Reason("preempted", "it waited for a processor")
    found = dataclasses.replace(a_measurement([latency_ns] * 5, Verdict.DEGRADED), reasons=(reason,))
    launches = (
        dataclasses.replace(
            each,
            void=reason,
            queue=RunQueue(round(share * sum(each.samples_ns)), len(each.samples_ns)),
        )
        for each in found.launches
    )
    return dataclasses.replace(found, launches=tuple(launches))


@pytest.mark.parametrize(
    ("budget", "feasible", "measured", "word"),
    [
        ("2.1ms", True, True, "keeps"),
        ("1.5ms", False, False, "may exceed"),
        ("0.9ms", False, True, "exceeds"),
        ("0.7x", True, True, "keeps"),
        ("0.3x", False, False, "may exceed"),
        ("0.2x", False, True, "exceeds"),
    ],
)
def test_what_was_disturbed_decides_where_its_whole_interval_does(
    budget: str, feasible: bool, measured: bool, word: str
) -> None:
    """The student took 2 ms and waited for half of it at most; the reference took 4 ms."""
    asked, student, reference = Budget.parse(budget), disturbed(2_000_000, 0.5), disturbed(4_000_000, 0.1)
    ratio = paired_ratio(student, reference)
    kept, why = judge(asked, student, reference, ratio)
    found = TargetVerdict(str(HOST), "00", None, student, reference, ratio, asked, kept, why)
    assert (found.feasible, found.measured) == (feasible, measured)
    assert f"{word} the budget of {asked.words}" in why
    assert ("something disturbed it, also when repeated: it waited" in why) is not measured


@pytest.mark.parametrize(
    ("budget", "verdict", "acceptable"),
    [
        ("1ms", Verdict.VALID, True),
        ("0.5ms", Verdict.VALID, False),
        ("0.5ms soft", Verdict.VALID, True),
        ("1ms soft", Verdict.VALID, True),
        ("0.5ms soft", Verdict.INVALID, False),
    ],
)
def test_a_soft_budget_may_be_exceeded_but_is_then_not_called_feasible(
    budget: str, verdict: Verdict, acceptable: bool
) -> None:
    measurement = a_measurement([800_000] * 5, verdict)
    feasible, why = judge(Budget.parse(budget), measurement, None, None)
    found = TargetVerdict(str(HOST), "00", None, measurement, None, None, Budget.parse(budget), feasible, why)
    assert found.acceptable == acceptable
    assert found.feasible == (budget.startswith("1ms") and verdict is Verdict.VALID)


def test_verify_artifact_runs_the_whole_split_and_both_networks(tmp_path: Path) -> None:
    artifact = save_pixel_model(tmp_path / "student.onnx")
    verdict = verify_artifact(
        artifact,
        pixels(),
        HOST,
        budget=Budget.parse("1000x"),
        reference=save_pixel_model(tmp_path / "reference.onnx", "Exp"),
        protocol=PROTOCOL,
    )
    assert verdict.accuracy is not None
    assert (verdict.accuracy.correct, verdict.accuracy.total, verdict.accuracy.share) == (3, 4, 0.75)
    assert verdict.reference is not None
    assert verdict.measurement.artifact_digest == verdict.artifact_digest
    assert verdict.reference.artifact_digest != verdict.artifact_digest
    assert len(verdict.measurement.launches) == len(verdict.reference.launches) == 3
    assert verdict.ratio == paired_ratio(verdict.measurement, verdict.reference)
    assert TargetVerdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def test_verify_artifact_without_test_images_and_budget_says_that_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_quiet(monkeypatch.setattr)
    artifact = save_pixel_model(tmp_path / "model.onnx")
    verdict = verify_artifact(artifact, None, HOST, budget=None, reference=None, protocol=PROTOCOL)
    assert verdict.accuracy is None
    assert verdict.accuracy_words == "no accuracy, since there are no test images"
    assert (verdict.feasible, verdict.acceptable, verdict.used) == (True, True, None)
    assert "no budget limits it" in verdict.why
    assert TargetVerdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def test_an_accuracy_says_where_it_was_taken() -> None:
    assert Accuracy(3, 4, ()).note == ""
    assert Accuracy(3, 4, (), "host/litert:fp32@1").note == " (taken on host/litert:fp32@1)"


def test_verify_artifact_repeats_an_invalid_measurement_and_never_calls_it_feasible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(*arguments: Any, **options: Any) -> dict[str, Outcome]:
        calls.append(arguments)
        return measure(*arguments, **options)

    monkeypatch.setattr("pipeline.target_verdict.measure", counted)
    monkeypatch.setattr("pipeline.target_verdict.RETRY_PAUSES_S", (0.0, 0.01))
    verdict = verify_artifact(
        save_pixel_model(tmp_path / "student.onnx"),
        pixels(),
        HOST,
        budget=Budget.parse("1000000ms"),
        reference=None,
        protocol=dataclasses.replace(PROTOCOL, max_count=1),
    )
    assert verdict.measurement.verdict is Verdict.INVALID
    assert len(calls) == 3
    assert not verdict.feasible
    assert "is invalid, also when repeated" in verdict.why


def test_verify_artifact_refuses_a_relative_budget_without_a_reference(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="cannot be checked"):
        verify_artifact(
            save_pixel_model(tmp_path / "student.onnx"),
            pixels(),
            HOST,
            budget=Budget.parse("0.5x"),
            reference=None,
            protocol=PROTOCOL,
        )


@pytest.mark.parametrize("damage", ["artifact", "reference", "numbers"])
def test_verify_artifact_says_so_when_a_network_does_not_run(tmp_path: Path, damage: str) -> None:
    artifact = save_pixel_model(tmp_path / "student.onnx", "Log" if damage == "numbers" else "Exp")
    reference = save_pixel_model(tmp_path / "reference.onnx")
    if damage != "numbers":
        {"artifact": artifact, "reference": reference}[damage].write_bytes(b"no model")
    images = pixels()
    images.split.images[0] = 0
    with pytest.raises(MeasurementError):
        verify_artifact(
            artifact,
            images,
            HOST,
            budget=Budget.parse("1ms"),
            reference=reference,
            protocol=PROTOCOL,
        )


def test_in_layout_moves_channels_only() -> None:
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    assert in_layout(images, "NHWC") is images
    moved = in_layout(images, "NCHW")
    assert moved.shape == (2, 5, 3, 4)
    assert moved[1, 4, 2, 3] == images[1, 2, 3, 4]
