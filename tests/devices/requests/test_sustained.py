from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

import devices.runtimes
from devices.errors import MeasurementError
from devices.measurement.conditions import Conditions
from devices.measurement.protocol import MeasuringProtocol
from devices.requests.sustained import CHANGE, Pace, SustainedRun, Window, sustain
from devices.target import Target
from tests.devices.hostile_runtime import hostile_runtime
from tests.devices.made_up import DEVICE, RUNTIME

PROTOCOL = MeasuringProtocol()
SECOND = 1_000_000_000

DYING_ENGINE = """
import itertools, os, signal, time

def version():
    return "1.0"

def binaries():
    return [__file__]

class Model:
    inputs = []

    def __init__(self, path, settings):
        self._runs = itertools.count()

    def set_inputs(self, arrays):
        pass

    def run(self):
        time.sleep(0.01)
        if next(self._runs) == 150:  # at least 1.5 s, and so after the first window
            os.kill(os.getpid(), signal.SIGSEGV)
"""


def _run(*medians: int, window_s: int = 5) -> SustainedRun:
    windows = tuple(
        Window(number * window_s * SECOND, (median,) * 3, Conditions(), 3)
        for number, median in enumerate(medians)
    )
    duration_ns = len(medians) * window_s * SECOND
    return SustainedRun(
        "ef" * 32,
        "phone/litert:fp32@1",
        RUNTIME,
        DEVICE,
        PROTOCOL,
        duration_ns,
        window_s * SECOND,
        windows,
        "2025-01-01T00:00:00+00:00",
    )


def test_first_and_last_minute_are_compared_when_the_run_is_long() -> None:
    run = _run(*[1000] * 48, *[1230] * 72)
    assert run.end_ns == 60 * SECOND
    assert len(run.first_ns) == len(run.last_ns) == 12
    assert run.pace is Pace.SLOWS_DOWN
    assert run.ratio == pytest.approx(1.23)
    assert run.onset_ns == 240 * SECOND
    assert str(run) == "slows down by 23% after 4.0 min: last minute 1.23x the first minute"


def test_first_and_last_third_are_compared_when_the_run_is_short() -> None:
    run = _run(*[1000] * 12, window_s=1)
    assert run.end_ns == 4 * SECOND
    assert len(run.first_ns) == len(run.last_ns) == 4
    assert run.pace is Pace.HOLDS
    assert "third" in str(run)


def test_a_run_with_little_change_holds_its_pace() -> None:
    limit = round(1000 * (1 + CHANGE))
    assert _run(*[1000] * 60, *[limit - 5] * 60).pace is Pace.HOLDS
    assert _run(*[1000] * 60, *[limit + 5] * 60).pace is Pace.SLOWS_DOWN


def test_a_clock_that_ramps_up_makes_a_run_faster() -> None:
    run = _run(*[1500] * 24, *[1000] * 24)
    assert run.pace is Pace.SPEEDS_UP
    assert run.onset_ns is None
    assert "gets faster by 33%" in str(run)


def test_one_slow_window_is_not_yet_an_onset() -> None:
    run = _run(*[1000] * 20, 1400, *[1000] * 19, *[1300] * 40)
    assert run.onset_ns == 40 * 5 * SECOND


def test_nothing_is_told_when_single_windows_differ_as_much() -> None:
    random.seed(1)
    noisy = [random.choice((1000, 1600)) for _ in range(12)]
    run = _run(*sorted(noisy[:6]), *[1000] * 36, 1000, 1600, 1000, 1600, 1600, 1600, 1000, 1600, 1600, 1000)
    assert run.ratio is not None
    assert abs(run.ratio - 1) > CHANGE
    assert run.pace is Pace.UNCLEAR
    assert str(run).startswith("cannot tell")


def test_nothing_is_told_of_a_run_of_few_windows() -> None:
    run = _run(1000, 1500, 2000)
    assert run.ratio is None
    assert run.pace is Pace.UNCLEAR
    assert "too short" in str(run)


def test_a_real_model_runs_for_as_long_as_asked_and_tells_its_progress(tiny_tflite: Path) -> None:
    told: list[tuple[int, int]] = []
    run = sustain(
        tiny_tflite,
        Target("host", "litert"),
        PROTOCOL,
        2 * SECOND,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert run.ended_early is None
    assert len(run.windows) >= 6
    starts = [window.start_ns for window in run.windows]
    assert starts == sorted(starts)
    assert all(sample > 0 for window in run.windows for sample in window.samples_ns)
    assert run.pace in Pace
    assert told[-1] == (12, 12)


def test_what_was_measured_is_kept_when_the_model_crashes_in_the_middle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine = tmp_path / "engine.py"
    engine.write_text(DYING_ENGINE)
    runtime = replace(hostile_runtime(), name="dying", engine=engine)
    monkeypatch.setattr(devices.runtimes, "RUNTIMES", (runtime,))
    script = tmp_path / "doomed.script"
    script.write_text("")
    run = sustain(script, Target("host", "dying"), PROTOCOL, 12 * SECOND)
    assert run.ended_early is not None
    assert run.ended_early.code == "crashed-signal-11"
    assert run.windows


def test_a_crash_before_the_first_window_is_an_error(hostile, tmp_path: Path) -> None:
    for word, code in (("die", "crashed-signal-11"), ("refuse", "load-failed"), ("raise", "run-failed")):
        script = tmp_path / f"{word}.script"
        script.write_text(word)
        with pytest.raises(MeasurementError, match=code):
            sustain(script, hostile, PROTOCOL, SECOND)


def test_a_run_of_no_duration_is_refused(tiny_tflite: Path) -> None:
    with pytest.raises(ValueError, match="no duration"):
        sustain(tiny_tflite, Target("host", "litert"), PROTOCOL, 0)
