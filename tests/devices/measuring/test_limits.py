"""A limit counts as exceeded or kept only if the whole interval says so; launches are added until it does."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.measurement.between import BetweenBatches, Spread
from devices.measurement.measurement import MeasurementFailure, Outcome, Reason, Verdict
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring import limits
from devices.measuring.batch import Job
from devices.measuring.comparison import Comparison
from devices.measuring.limits import LOOKS, LimitFinding, latency_against_limit, ratio_against_limit
from devices.target import Target
from tests.devices.made_up import made_up_measurement
from tests.devices.tiny_models import write_tiny_onnx

HOST = Target.parse("host/onnxruntime:fp32@1")
PROTOCOL = MeasuringProtocol()
QUICK = MeasuringProtocol(warmup_count=1, warmup_ns=0, min_count=20, min_ns=0, max_count=20)
FAILURE = MeasurementFailure("ef" * 32, str(HOST), Reason("load-failed", "no such operation"))
INVALID = made_up_measurement([[1000] * 20] * 3, Verdict.INVALID, (Reason("canary-drift", "it drifted"),))

Pairs = Iterator[tuple[float, float]]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pairs], list[int]]:
    """Launches of two files come from a stream of pairs; the launches of each look are kept."""

    def given(pairs: Pairs) -> list[int]:
        looks: list[int] = []

        def compare(
            old: Path, new: Path, target: Target, protocol: MeasuringProtocol, **_: Any
        ) -> Comparison:
            assert protocol.launches == protocol.max_launches
            looks.append(protocol.launches)
            taken = list(itertools.islice(pairs, protocol.launches))
            first, second = ([[round(pair[side])] * 20 for pair in taken] for side in (0, 1))
            return Comparison(made_up_measurement(first), made_up_measurement(second))

        monkeypatch.setattr(limits, "compare", compare)
        return looks

    return given


def noisy(ratio: float, noise: float, seed: int) -> Pairs:
    chance = random.Random(seed)
    while True:
        speed = chance.uniform(1e6, 2e6)
        yield speed, speed * ratio * chance.gauss(1, noise)


def ratio(limit: float = 1.03, **options: Any) -> limits.AgainstLimit:
    return ratio_against_limit(Path("old"), Path("new"), limit, HOST, PROTOCOL, **options)


@pytest.mark.parametrize(("true", "finding"), [(1.0, LimitFinding.KEPT), (1.1, LimitFinding.EXCEEDED)])
def test_a_clear_answer_takes_one_look(
    compared: Callable[[Pairs], list[int]], true: float, finding: LimitFinding
) -> None:
    looks = compared(noisy(true, 0.005, 0))
    found = ratio()
    assert (found.finding, found.launches, looks) == (finding, LOOKS[0], [LOOKS[0]])
    assert found.interval is not None
    assert found.interval.low < true < found.interval.high


def test_launches_are_added_while_the_interval_holds_the_limit_up_to_a_maximum(
    compared: Callable[[Pairs], list[int]],
) -> None:
    looks = compared(noisy(1.03, 0.02, 1))
    said: list[str] = []
    found = ratio(on_state=said.append)
    assert found.finding is LimitFinding.UNDECIDED
    assert (found.launches, tuple(looks)) == (sum(LOOKS), LOOKS)
    assert said[0] == "9 launches cannot tell yet, measuring 9 more times"


def test_equal_files_are_hardly_ever_called_slower_and_files_slower_by_five_percent_nearly_always(
    compared: Callable[[Pairs], list[int]],
) -> None:
    """200 comparisons each, on a machine whose launches scatter by 2.5 %."""
    alarms = found = 0
    for seed in range(200):
        compared(noisy(1.0, 0.025, seed))
        alarms += ratio().finding is LimitFinding.EXCEEDED
        compared(noisy(1.05, 0.025, seed))
        found += ratio().finding is LimitFinding.EXCEEDED
    assert alarms <= 5
    assert found >= 190


def test_a_limit_that_is_the_very_ratio_is_exceeded_no_more_often_than_the_error_allows(
    compared: Callable[[Pairs], list[int]],
) -> None:
    alarms = 0
    for seed in range(400):
        compared(noisy(1.03, 0.03, seed))
        alarms += ratio().finding is LimitFinding.EXCEEDED
    assert alarms <= 400 * limits.ERROR / 2


@pytest.mark.parametrize(
    ("second", "why"),
    [(FAILURE, "the new file did not run (load-failed"), (INVALID, "is invalid: it drifted")],
)
def test_nothing_is_known_when_no_launch_counts(
    monkeypatch: pytest.MonkeyPatch, second: Outcome, why: str
) -> None:
    first = made_up_measurement([[1000] * 20] * 9)
    monkeypatch.setattr(limits, "compare", lambda *_, **__: Comparison(first, second))
    found = ratio()
    assert found.finding is LimitFinding.NOT_MEASURED
    assert (found.interval, found.launches) == (None, 0)
    assert any(why in obstacle for obstacle in found.obstacles)
    assert len(found.obstacles) == len(set(found.obstacles))


def test_too_few_launches_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all but one launch of each look were void."""
    one = made_up_measurement([[1000] * 20])
    monkeypatch.setattr(limits, "compare", lambda *_, **__: Comparison(one, one))
    found = ratio()
    assert found.finding is LimitFinding.NOT_MEASURED
    assert found.obstacles == ("only 4 launches can be used",)


@pytest.mark.parametrize(("limit_ns", "finding"), [(1e12, LimitFinding.KEPT), (1, LimitFinding.EXCEEDED)])
def test_a_real_file_is_held_to_a_latency(
    tmp_path: Path, quiet_machine: None, limit_ns: float, finding: LimitFinding
) -> None:
    found = latency_against_limit(write_tiny_onnx(tmp_path / "tiny.onnx"), limit_ns, HOST, QUICK)
    assert found.finding is finding
    assert found.interval is not None
    assert found.interval.low <= found.interval.value <= found.interval.high
    assert found.limit == limit_ns


@pytest.mark.parametrize(
    ("limit_ns", "finding"),
    [(2e6, LimitFinding.KEPT), (1.05e6, LimitFinding.UNDECIDED), (0.5e6, LimitFinding.EXCEEDED)],
)
def test_a_latency_is_held_to_a_limit_as_it_is_at_another_time_and_looks_no_longer_than_that_helps(
    monkeypatch: pytest.MonkeyPatch, limit_ns: float, finding: LimitFinding
) -> None:
    looks: list[int] = []

    def measured(
        jobs: list[Job], target: Target, protocol: MeasuringProtocol, **_: Any
    ) -> dict[str, Outcome]:
        looks.append(protocol.launches)
        return {jobs[0].name: made_up_measurement([[1_000_000] * 20] * protocol.launches)}

    monkeypatch.setattr(limits, "measure", measured)
    between = BetweenBatches(Spread(0.05, 30, 20), Spread(0.01, 30, 4))
    found = latency_against_limit(Path("some.onnx"), limit_ns, HOST, QUICK, between=between)
    assert found.finding is finding
    assert looks == [LOOKS[0]]
    assert latency_against_limit(Path("some.onnx"), 1.05e6, HOST, QUICK).finding is LimitFinding.KEPT


def test_real_files_are_compared(tmp_path: Path, quiet_machine: None) -> None:
    old = write_tiny_onnx(tmp_path / "old.onnx")
    new = Path(shutil.copyfile(old, tmp_path / "new.onnx"))
    found = ratio_against_limit(old, new, 50.0, HOST, QUICK)
    assert found.finding is LimitFinding.KEPT
    assert found.launches == LOOKS[0]
