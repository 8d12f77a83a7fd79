from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.connections import Completed, LocalConnection
from devices.errors import PassingTargetError, TargetError
from devices.measurement import Measurement, MeasurementFailure
from devices.measurement.measurement import Launch, Reason, Summary
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring import Entrant, Round, Rounds, measure_round
from devices.runtimes.native.shell import read_platform
from devices.runtimes.native.tools import native_folder
from devices.target import Target
from tests.devices.made_up import made_up_launch
from tests.devices.runtimes.native.native_targets import STANDINS
from tests.places import ROOT

PROTOCOL = MeasuringProtocol()
CANARY = ROOT / "devices" / "canary"
SHORT = replace(PROTOCOL, warmup_count=1, warmup_ns=0, min_count=20, min_ns=0, max_count=20)


def rounds(**levels: list[int]) -> Rounds:
    """One launch of each file and round; ``0`` where a file sat one out."""
    count = max(map(len, levels.values()))
    made = tuple(
        Round(
            {n: made_up_launch([values[k]] * 20) for n, values in levels.items() if values[k : k + 1] > [0]}
        )
        for k in range(count)
    )
    return Rounds(made, PROTOCOL, cores=2)


def test_a_ratio_is_of_the_rounds_in_which_both_ran() -> None:
    found = rounds(one=[200, 400, 600, 800], other=[100, 200, 0, 400])
    ratio = found.ratio("one", "other")
    assert ratio is not None
    assert (ratio.low, ratio.value, ratio.high) == (2, 2, 2)
    assert (found.count("one"), found.count("other")) == (4, 3)
    assert found.ratio("one", "nobody") is None


def test_one_round_decides_what_is_very_far_apart_and_two_what_is_far_apart() -> None:
    assert 1.3 < rounds(one=[200], other=[100]).at_least("one", "other") < 1.5
    assert rounds(one=[140], other=[100]).at_least("one", "other") < 1
    assert rounds(one=[200], other=[]).at_least("one", "other") == 0
    far = rounds(one=[200, 200], other=[100, 100]).at_least("one", "other")
    assert 1.7 < far < 2
    near = rounds(one=[110, 110], other=[100, 100]).at_least("one", "other")
    assert near < 1.03


def test_two_rounds_that_disagree_decide_nothing() -> None:
    assert rounds(one=[130, 400], other=[100, 100]).at_least("one", "other") < 1.03


def test_more_rounds_decide_what_is_nearer() -> None:
    bounds = [rounds(one=[110] * n, other=[100] * n).at_least("one", "other") for n in (2, 4, 9)]
    assert bounds == sorted(bounds)
    assert 1.03 < bounds[-1] < 1.1


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.005, 0.05))
def test_a_bound_is_wrong_in_few_of_many_noisy_series(seed: int, spread: float) -> None:
    generator = random.Random(seed)
    wrong = 0
    for _ in range(40):
        one = [round(100_000 * generator.lognormvariate(0, spread)) for _ in range(5)]
        other = [100_000] * 5
        wrong += rounds(one=one, other=other).at_least("one", "other") > 1
    assert wrong <= 4


def test_a_disturbed_round_does_not_count_where_there_are_enough_others() -> None:
    sound = [made_up_launch([100] * 20) for _ in range(3)]
    odd = replace(made_up_launch([900] * 20), void=Reason("preempted", "it waited"))
    other = [made_up_launch([50] * 20) for _ in range(4)]
    made = tuple(Round({"one": one, "other": two}) for one, two in zip([*sound, odd], other, strict=True))
    ratio = Rounds(made, PROTOCOL, cores=2).ratio("one", "other")
    assert ratio is not None
    assert ratio.high == 2


def test_a_single_round_that_was_disturbed_decides_nothing() -> None:
    odd = replace(made_up_launch([900] * 20), void=Reason("preempted", "it waited"))
    for one, other in ((odd, made_up_launch([50] * 20)), (made_up_launch([900] * 20), odd)):
        table = Rounds((Round({"one": one, "other": other}),), PROTOCOL, cores=2)
        assert table.at_least("one", "other") == 0


def told(median_ns: int) -> Launch:
    """A launch of a tool that tells its median alone."""
    summary = Summary(20, median_ns, median_ns, median_ns, ((0.5, median_ns),))
    return replace(made_up_launch([]), summary=summary)


def test_a_file_whose_tool_tells_only_its_median_is_compared_by_medians() -> None:
    by_median = replace(PROTOCOL, headline_quantile=0.5)
    samples = made_up_launch([100] * 5 + [200] * 15)
    made = Round(
        {"tool": told(400), "agent": samples, "like": told(200)},
        adapted=dict.fromkeys(("tool", "like"), by_median),
    )
    table = Rounds((made,) * 3, PROTOCOL, cores=2)
    for one, other in (("tool", "agent"), ("tool", "like")):
        ratio = table.ratio(one, other)
        assert ratio is not None
        assert ratio.value == 2
        assert table.at_least(one, other) > 1
    assert table.sharp("tool")


def test_files_of_a_tool_are_measured_and_judged_by_the_protocol_that_it_can_follow(
    hostile: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shutil.copytree(STANDINS, native_folder() / read_platform(LocalConnection()))
    for name in ("model.tflite", "model.script"):
        (tmp_path / name).write_text("run\n")
    entrants = [
        Entrant("tool", tmp_path / "model.tflite", Target("host", "litert", threads=3, options=("native",))),
        Entrant("agent", tmp_path / "model.script", hostile),
    ]
    with LocalConnection() as connection:
        found = Rounds((measure_round(entrants, SHORT, 0, connection),), SHORT, cores=2)
    assert found.ratio("tool", "agent") is not None
    outcome = found.outcome(entrants[0], "now")
    assert isinstance(outcome, Measurement)
    assert outcome.protocol.headline_quantile == 0.5
    assert outcome.sharp == found.sharp("tool")


class Gone(LocalConnection):
    """A device that goes away after some runs."""

    def __init__(self, after: int, error: type[TargetError]) -> None:
        super().__init__()
        self.left, self.error = after, error

    def run(self, argv: Sequence[str], **options: Any) -> Completed:
        self.left -= 1
        if self.left < 0:
            raise self.error("the phone is offline")
        return super().run(argv, **options)


@pytest.mark.usefixtures("undisturbed")
def test_a_device_that_goes_away_between_targets_ends_the_round_and_fails_no_file(
    hostile: Target, tmp_path: Path
) -> None:
    file = tmp_path / "a.script"
    file.write_text("run")
    entrants = [Entrant(str(n), file, replace(hostile, threads=n)) for n in (1, 2)]
    found = measure_round(entrants, SHORT, 0, Gone(1, PassingTargetError))
    assert len(found.launches) == 1
    assert not found.failed
    assert found.lost == Reason("device-lost", "the phone is offline")
    refused = measure_round(entrants, SHORT, 0, Gone(1, TargetError))
    assert refused.lost is None
    assert [reason.code for reason in refused.failed.values()] == ["bad-target"]


def test_a_file_that_failed_has_its_reason_for_outcome(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"x")
    entrant = Entrant("one", file, Target("host", "onnxruntime"))
    reason = Reason("load-failed", "no such operation")
    found = Rounds((Round({}, {"one": reason}),), PROTOCOL, cores=2).outcome(entrant, "now")
    assert isinstance(found, MeasurementFailure)
    assert found.reason == reason
    lost = Rounds((Round({}, {}, Reason("device-lost", "gone")),), PROTOCOL, cores=2)
    outcome = lost.outcome(entrant, "now")
    assert isinstance(outcome, MeasurementFailure)
    assert outcome.reason.code == "device-lost"


def test_files_of_two_runtimes_run_in_one_round_and_a_broken_one_stops_no_other(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    entrants = [
        Entrant("onnx", CANARY / "canary.onnx", Target("host", "onnxruntime")),
        Entrant("litert", CANARY / "canary.tflite", Target("host", "litert")),
        Entrant("broken", broken, Target("host", "onnxruntime")),
    ]
    timed: list[int] = []
    with LocalConnection() as connection:
        found = measure_round(entrants, SHORT, 0, connection, on_timed=lambda: timed.append(1))
    assert set(found.launches) == {"onnx", "litert"}
    assert set(found.failed) == {"broken"}
    assert len(timed) == 2
    outcome = Rounds((found,), SHORT, cores=2).outcome(entrants[0], "now")
    assert isinstance(outcome, Measurement)
    assert outcome.target == "host/onnxruntime:fp32@1"
