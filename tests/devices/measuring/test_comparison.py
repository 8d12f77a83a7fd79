from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from devices.measurement.conditions import RunQueue
from devices.measurement.measurement import Measurement, MeasurementFailure, Reason, Verdict
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring.comparison import Comparison, Finding, compare
from tests.devices.made_up import made_up_launch, made_up_measurement

QUICK = MeasuringProtocol(
    launches=6, max_launches=6, warmup_count=1, warmup_ns=0, min_count=20, min_ns=0, max_count=20
)
DRIFTED = Reason("canary-drift", "the canary ran slower")
FAILURE = MeasurementFailure("ef" * 32, "host/litert:fp32@1", Reason("load-failed", "no such operation"))


def _levels(*levels: int):
    return made_up_measurement([[level] * 20 for level in levels])


def _noisy(level: int):
    return _levels(*(level + offset for offset in (-4, -3, -2, -1, 0, 1, 2, 3, 4)))


def test_first_is_faster_when_every_launch_of_the_second_takes_longer() -> None:
    found = Comparison(_noisy(1000), _noisy(1200))
    assert found.finding is Finding.FASTER
    assert found.ratio is not None
    assert found.ratio.low <= 1.2 <= found.ratio.high
    assert found.describe("a", "b").startswith("a is faster than b by 1.200x [")


def test_first_is_slower_by_the_inverse_ratio_when_the_files_change_places() -> None:
    there, back = Comparison(_noisy(1000), _noisy(1300)), Comparison(_noisy(1300), _noisy(1000))
    assert back.finding is Finding.SLOWER
    assert back.ratio is not None
    assert there.ratio is not None
    assert back.ratio.inverse.value == pytest.approx(there.ratio.value)
    assert back.ratio.inverse.low <= back.ratio.inverse.value <= back.ratio.inverse.high
    assert "slower than b by 1.300x" in back.describe("a", "b")


def test_no_difference_is_shown_when_the_interval_holds_one() -> None:
    first = _levels(*[1000] * 9)
    second = _levels(900, 950, 1100, 1080, 1120, 940, 1060, 1090, 970)
    found = Comparison(first, second)
    assert found.finding is Finding.NO_DIFFERENCE
    assert found.describe("a", "b").startswith("no difference shown")


def test_a_sure_difference_below_the_practical_threshold_does_not_count() -> None:
    found = Comparison(_levels(*[1000] * 9), _levels(*[1010] * 9))
    assert found.ratio is not None
    assert found.ratio.low > 1
    assert found.finding is Finding.NO_DIFFERENCE
    assert "no difference that matters" in found.describe("a", "b")


def test_pairing_shows_a_difference_that_a_drift_of_both_would_hide() -> None:
    drift = [1000, 1200, 1500, 1900, 2400, 3000, 3700, 4500, 5400]
    found = Comparison(_levels(*drift), _levels(*(round(1.1 * level) for level in drift)))
    assert found.finding is Finding.FASTER


@pytest.mark.parametrize("place", ["first", "second"])
def test_nothing_can_be_told_when_one_failed(place: str) -> None:
    found = replace(Comparison(_noisy(1000), _noisy(2000)), **{place: FAILURE})
    assert found.finding is Finding.CANNOT_TELL
    assert "load-failed" in found.describe("a", "b")
    assert place in found.describe("a", "b")


@pytest.mark.parametrize("share", [0.5, 0.8, 0.99])
def test_a_large_difference_is_sure_under_any_load(share: float) -> None:
    """Both wait for the same share of their time, and only the longer one has to: what was seen is either."""
    waited = RunQueue(round(1e9 * share), 1_000)

    def slowed(level: int, queue: RunQueue) -> Measurement:
        found = made_up_measurement([[level] * 20] * 9, Verdict.INVALID, (DRIFTED,))
        launches = (
            replace(each, void=DRIFTED, queue=replace(queue, waiting_ns=round(share * 20 * level)))
            for each in found.launches
        )
        return replace(found, launches=tuple(launches))

    both = Comparison(slowed(8_000_000, waited), slowed(64_000_000, waited))
    assert both.finding is Finding.FASTER
    shorter = slowed(1_000, replace(waited, slices=1))
    longer = slowed(round(8_000 / (1 - share)), waited)
    assert Comparison(shorter, longer).finding is Finding.FASTER


def test_nothing_can_be_told_from_five_launches() -> None:
    found = Comparison(_levels(*[1000] * 5), _levels(*[2000] * 5))
    assert found.finding is Finding.CANNOT_TELL
    assert "94%" in found.describe("a", "b")


def test_nothing_can_be_told_when_launches_do_not_pair() -> None:
    found = Comparison(_levels(*[1000] * 9), _levels(*[2000] * 8))
    assert found.ratio is None
    assert found.finding is Finding.CANNOT_TELL


def test_void_launches_do_not_count() -> None:
    void = made_up_launch([9_000_000] * 20, Reason("preempted", "it waited"))
    first, second = _noisy(1000), _noisy(1200)
    first = replace(first, launches=(*first.launches, void))
    second = replace(second, launches=(*second.launches, void))
    assert Comparison(first, second).ratio == Comparison(_noisy(1000), _noisy(1200)).ratio


def test_compare_pairs_launches_of_two_real_files(undisturbed, tiny_onnx: Path, tmp_path: Path) -> None:
    from devices.target import Target

    copy = tmp_path / "copy.onnx"
    copy.write_bytes(tiny_onnx.read_bytes())
    done: list[int] = []
    found = compare(
        tiny_onnx,
        copy,
        Target("host", "onnxruntime"),
        QUICK,
        on_progress=lambda count, total: done.append(count),
    )
    assert found.ratio is not None
    assert found.ratio.confidence > 0.95
    assert found.ratio.low <= found.ratio.value <= found.ratio.high
    assert done[-1] == 12


def test_compare_keeps_the_sound_side_when_the_other_cannot_be_loaded(hostile, tmp_path: Path) -> None:
    sound, refused = tmp_path / "sound.script", tmp_path / "refused.script"
    sound.write_text("run")
    refused.write_text("refuse")
    found = compare(sound, refused, hostile, replace(QUICK, launches=1, max_launches=1))
    assert found.first.kind == "measurement"
    assert found.second.kind == "failure"
    assert found.finding is Finding.CANNOT_TELL
