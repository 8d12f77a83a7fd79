from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import devices.measuring.batch
import devices.measuring.launch
from devices.connections import Completed, LocalConnection
from devices.digests import file_digest
from devices.errors import MeasurementError, TargetError
from devices.locking.queue import lock_state, machine_folder
from devices.measurement.measurement import Measurement, MeasurementFailure, Reason, Verdict
from devices.measuring.batch import Job, measure, probe
from devices.target import Target
from tests.contracts.connection import ODD_NAMES, is_running
from tests.contracts.runtime import QUICK

pytestmark = pytest.mark.usefixtures("undisturbed")

ONCE = replace(QUICK, launches=1)


@pytest.fixture
def script(tmp_path):
    def write(name, text):
        path = tmp_path / f"{name}.script"
        path.write_text(text)
        return Job(name, path)

    return write


class Mangled(LocalConnection):
    """A connection that loses the end of what the first measuring processes say."""

    def __init__(self, spoiled, keep):
        super().__init__()
        self.spoiled, self.keep, self.runs = spoiled, keep, 0

    def run(self, argv, *, on_line=None, **options):
        self.runs += 1
        lines = []
        ended = super().run(argv, on_line=lines.append, **options)
        if 1 < self.runs <= 1 + self.spoiled:
            text = "\n".join(lines)
            lines = text[: int(len(text) * self.keep)].split("\n")
        for line in lines:
            on_line(line)
        return ended


def test_measure_gives_one_outcome_per_job_in_their_order(hostile, script):
    jobs = [script(name, "run") for name in "cab"]
    outcomes = measure(jobs, hostile, QUICK)
    assert list(outcomes) == ["c", "a", "b"]
    for job in jobs:
        outcome = outcomes[job.name]
        assert isinstance(outcome, Measurement)
        assert outcome.artifact_digest == file_digest(job.artifact)
        assert outcome.target == "host/hostile:fp32@1"
        assert (outcome.runtime, outcome.device) == probe(hostile)
        assert len(outcome.launches) == len(outcome.headlines_ns) == 2


def test_measure_starts_one_process_per_launch_when_all_is_well(hostile, script):
    connection = Mangled(0, 1)
    measure(
        [script(name, "run") for name in "abc"], hostile, replace(QUICK, launches=3), connection=connection
    )
    assert connection.runs == 1 + 3


def test_launches_are_spread_over_a_time_and_the_device_is_free_between_them(hostile, script, monkeypatch):
    pauses, taken = [], []

    def sleep(seconds):
        pauses.append(seconds)
        taken.append(lock_state(machine_folder()).taken)

    clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(devices.measuring.batch, "time", clock)
    protocol = replace(QUICK, launches=4, max_launches=4, spread_ns=4_000_000_000_000)
    found = measure([script("a", "run")], hostile, protocol)["a"]
    assert len(found.launches) == 4
    assert taken == [False] * 3
    for number, pause in enumerate(pauses, start=1):
        assert 1000 * number - 120 < pause < 1000 * (number + 1)


@pytest.mark.parametrize("paired", [False, True])
def test_measure_launches_again_while_launches_disagree_and_pairs_them_if_asked(
    hostile, script, tmp_path, paired
):
    # Every launch of the first job is slower than the one before, so it never settles.
    jobs = [script("restless", f"wander {tmp_path / 'turns'}"), script("calm", "slow")]
    protocol = replace(QUICK, launches=2, max_launches=5)
    progress, said = [], []
    outcomes = measure(
        jobs,
        hostile,
        protocol,
        paired=paired,
        on_progress=lambda *done: progress.append(done),
        on_state=lambda text: said.append((text, progress[-1])),
    )
    assert len(outcomes["restless"].launches) == 5
    assert outcomes["restless"].verdict is Verdict.INVALID
    assert len(outcomes["calm"].launches) == (5 if paired else 2)
    assert progress[-1][0] == progress[-1][1] == (10 if paired else 7)
    texts, shown = zip(*said, strict=True)
    assert texts == tuple(f"{count} launches that disagree, measuring again" for count in (2, 3, 4))
    # What is shown as done is never all while another launch runs.
    assert all(done < total for done, total in shown)


@pytest.mark.parametrize("paired", [False, True])
def test_measure_launches_again_when_launches_are_void_and_keeps_them(hostile, script, monkeypatch, paired):
    void = Reason("other-load", "something ran")

    def mark(launches, protocol, *, cores):
        slow = launches[0].samples_ns[0] > 40_000_000
        return tuple(
            replace(launch, void=void if slow and index == 0 else None)
            for index, launch in enumerate(launches)
        )

    monkeypatch.setattr(devices.measuring.batch, "mark", mark)
    protocol = replace(QUICK, launches=3, max_launches=6, min_count=2, max_count=2)
    other = script("other", "run")
    said = []
    outcomes = measure(
        [script("slow", "slow"), other], hostile, protocol, paired=paired, on_state=said.append
    )
    assert said[0] == "3 launches, 1 disturbed, measuring again"
    slow = outcomes["slow"]
    assert [launch.void for launch in slow.launches[:2]] == [void, None]
    assert len(slow.launches) >= 4
    assert slow.headlines_ns == tuple(launch.quantile_ns(0.1) for launch in slow.launches[1:])
    assert (outcomes["other"].launches[0].void == void) == paired


class Vanishing(LocalConnection):
    """A device that goes away during some of the measuring processes, and later cannot be reached at all, or
    not for some attempts.
    """

    def __init__(self, lost_runs, gone_after=10**9, gone_until=10**9):
        super().__init__()
        self.lost_runs, self.runs = lost_runs, 0
        self.gone_after, self.gone_until = gone_after, gone_until

    def run(self, argv, *, on_line=None, **options):
        self.runs += 1
        if self.gone_after < self.runs <= self.gone_until:
            raise TargetError("no route to the device")
        lines = []
        ended = super().run(argv, on_line=lines.append, **options)
        if self.runs in self.lost_runs:
            kept = [line for line in lines if '"result"' not in line or '"job": 0' in line]
            ended, lines = replace(ended, lost=True), kept
        for line in lines:
            on_line(line)
        return ended


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(devices.measuring.launch, "LOST_PAUSES_S", (0.0, 0.0))


def test_measure_repeats_what_was_under_way_when_the_device_went_away(hostile, script, no_pauses, caplog):
    jobs = [script(name, "run") for name in "abc"]
    connection = Vanishing(lost_runs=(2, 3))
    outcomes = measure(jobs, hostile, QUICK, connection=connection)
    assert all(len(outcome.launches) == QUICK.launches for outcome in outcomes.values())
    assert connection.runs == 1 + QUICK.launches + 2
    assert "went away" in caplog.text


def test_measure_keeps_what_it_has_when_the_device_does_not_come_back(hostile, script, no_pauses):
    jobs = [script(name, "run") for name in "abc"]
    outcomes = measure(jobs, hostile, QUICK, connection=Vanishing(lost_runs=(2,), gone_after=2))
    (kept,) = [outcome for outcome in outcomes.values() if isinstance(outcome, Measurement)]
    assert len(kept.launches) == 1
    assert kept.verdict is not Verdict.VALID
    assert kept.reasons[-1].code == "device-lost"
    others = [outcome for outcome in outcomes.values() if outcome is not kept]
    assert [(other.reason.code, other.passing) for other in others] == [("device-lost", True)] * 2


def test_measure_keeps_what_it_has_when_the_device_cannot_be_had_for_a_later_launch(
    hostile, script, no_pauses
):
    connection = Vanishing((), gone_after=3)
    found = measure([script("a", "run")], hostile, replace(QUICK, launches=4), connection=connection)["a"]
    assert len(found.launches) == 2
    assert found.verdict is Verdict.DEGRADED
    assert (found.reasons[-1].code, found.reasons[-1].detail) == ("device-lost", "no route to the device")
    assert connection.runs == 1 + 2 + 3


def test_measure_keeps_what_it_has_when_later_processes_end_before_they_load_a_model(hostile, script):
    class Exhausted(Vanishing):
        def run(self, argv, *, on_line=None, **options):
            self.runs += 1
            if self.runs > 3:
                return Completed(-9, "out of memory")
            return LocalConnection.run(self, argv, on_line=on_line, **options)

    protocol = replace(QUICK, launches=4)
    found = measure([script("a", "run")], hostile, protocol, connection=Exhausted(()))["a"]
    assert len(found.launches) == 2
    assert found.verdict is Verdict.DEGRADED
    assert found.reasons[-1].code == "crashed-signal-9"


def test_measure_goes_on_when_the_device_can_be_had_again_soon_after_a_launch_began(
    hostile, script, no_pauses
):
    connection = Vanishing((), gone_after=2, gone_until=4)
    found = measure([script("a", "run")], hostile, replace(QUICK, launches=3), connection=connection)["a"]
    assert len(found.launches) == 3
    assert "device-lost" not in [reason.code for reason in found.reasons]


@pytest.mark.parametrize(("gone_until", "launches", "pauses"), [(5, 3, 3), (10**9, 1, 3)])
def test_spread_launches_go_on_at_the_next_moment_after_the_device_went_away(
    hostile, script, no_pauses, monkeypatch, gone_until, launches, pauses
):
    slept = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=slept.append)
    monkeypatch.setattr(devices.measuring.batch, "time", clock)
    protocol = replace(QUICK, launches=4, max_launches=4, spread_ns=4_000_000_000_000)
    connection = Vanishing((), gone_after=2, gone_until=gone_until)
    found = measure([script("a", "run")], hostile, protocol, connection=connection)["a"]
    assert len(found.launches) == launches
    assert len([pause for pause in slept if pause > 100]) == pauses
    assert found.reasons[-1].code == "device-lost"


def test_a_batch_that_lost_its_device_waits_for_no_further_launch(hostile, script, no_pauses, monkeypatch):
    asked = []
    protocol = replace(QUICK, launches=2, max_launches=6)
    connection = Vanishing((), gone_after=2)
    measure([script("a", "run")], hostile, protocol, connection=connection, on_state=asked.append)
    assert asked == []
    assert connection.runs == 1 + 1 + 3


def test_measure_says_that_the_device_cannot_be_reached_when_it_never_could(hostile, script):
    with pytest.raises(TargetError, match="no route"):
        measure([script("a", "run")], hostile, QUICK, connection=Vanishing((), gone_after=0))


def test_measure_reports_where_operations_ran_and_fails_on_fallback_if_asked(hostile, script):
    jobs = [script("whole", "run"), script("split", "fall-back")]
    found = measure(jobs, hostile, ONCE)
    assert found["whole"].placement.full
    assert str(found["split"].placement) == (
        "2 of 3 operations on hostile in 2 partitions, 1 of 3 operations on elsewhere"
    )
    asked = measure(jobs, hostile, ONCE, require_full_delegation=True)
    assert isinstance(asked["whole"], Measurement)
    assert asked["split"].reason.code == "fallback"
    assert "elsewhere" in asked["split"].reason.detail


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("refuse", "load-failed"),
        ("raise", "run-failed"),
        ("exhaust", "out-of-memory"),
        ("die-loading", "crashed-signal-11"),
        ("die", "crashed-signal-11"),
        ("exit", "crashed-exit-5"),
        pytest.param("hang", "timeout", marks=pytest.mark.slow),
    ],
)
def test_measure_names_the_cause_and_goes_on_when_a_job_fails(hostile, script, text, code):
    jobs = [script("one", "run"), script("bad", text), script("two", "run")]
    outcomes = measure(jobs, hostile, ONCE, job_timeout_s=5 if text == "hang" else 60)
    failure = outcomes["bad"]
    assert isinstance(failure, MeasurementFailure)
    assert failure.reason.code == code
    assert failure.reason.detail.startswith("launch 1: ")
    assert isinstance(outcomes["one"], Measurement)
    assert isinstance(outcomes["two"], Measurement)


def test_measure_keeps_the_tail_of_standard_error_when_a_job_kills_its_process(hostile, script):
    outcome = measure([script("bad", "die")], hostile, ONCE)["bad"]
    assert "about to die" in outcome.reason.detail


def test_measure_tries_a_job_once_more_when_its_process_was_killed(hostile, script, tmp_path):
    jobs = [script("flaky", f"die-once {tmp_path / 'mark'}"), script("sound", "run")]
    outcomes = measure(jobs, hostile, QUICK)
    assert [len(outcomes[name].launches) for name in ("flaky", "sound")] == [2, 2]


def test_measure_is_not_misled_when_a_library_writes_on_standard_output(hostile, script):
    outcome = measure([script("loud", "babble")], hostile, ONCE)["loud"]
    assert isinstance(outcome, Measurement)
    assert len(outcome.launches[0].samples_ns) == 20


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_measure_tries_again_when_output_is_cut_short(hostile, script, keep):
    jobs = [script(name, "run") for name in "abc"]
    outcomes = measure(jobs, hostile, ONCE, connection=Mangled(1, keep))
    assert [len(outcome.launches) for outcome in outcomes.values()] == [1, 1, 1]


def test_measure_gives_up_in_bounds_when_output_never_comes(hostile, script):
    connection = Mangled(99, 0.0)
    with pytest.raises(MeasurementError, match="truncated-output"):
        measure([script("a", "run")], hostile, ONCE, connection=connection)
    assert connection.runs < 10


def test_measure_leaves_no_process_behind_when_a_job_hangs(hostile, script, tmp_path):
    measure([script("bad", f"hang {tmp_path / 'pid'}")], hostile, ONCE, job_timeout_s=5)
    assert not is_running(int((tmp_path / "pid").read_text()))


def test_measure_leaves_no_process_behind_when_it_is_killed_itself(tmp_path, script):
    job, mark = script("bad", f"hang {tmp_path / 'pid'}"), tmp_path / "pid"
    code = (
        "import sys, pathlib, devices.runtimes as r\n"
        "from tests.devices.hostile_runtime import hostile_runtime\n"
        "from devices.measuring.batch import Job, measure\n"
        "from devices.measurement.measurement import MeasuringProtocol\n"
        "from devices.target import Target\n"
        "r.RUNTIMES = (hostile_runtime(),)\n"
        "artifact = pathlib.Path(sys.argv[1])\n"
        "measure([Job('a', artifact)], Target('host', 'hostile'), MeasuringProtocol())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(job.artifact)])
    while not (mark.exists() and mark.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while is_running(int(mark.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_measure_takes_files_whatever_their_names(hostile, script, name):
    assert isinstance(measure([script(name, "run")], hostile, ONCE)[name], Measurement)


def test_measure_reports_progress_up_to_the_total_when_some_jobs_fail(hostile, script, tmp_path):
    (tmp_path / "x.other").write_text("run")
    jobs = [script("one", "run"), script("bad", "raise"), Job("other", tmp_path / "x.other")]
    seen, known = [], []
    measure(
        jobs, hostile, QUICK, on_progress=lambda *p: seen.append(p), on_outcome=lambda *o: known.append(o)
    )
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (6, 6)
    assert {name: outcome.kind for name, outcome in known} == {
        "other": "failure",
        "bad": "failure",
        "one": "measurement",
    }
    assert dict(known)["other"].reason.code == "unsupported-artifact"


def test_measure_stops_at_the_cap_and_says_so_when_a_model_is_slow(hostile, script):
    outcome = measure([script("slow", "slow")], hostile, replace(ONCE, max_ns=100_000_000))["slow"]
    assert len(outcome.launches[0].samples_ns) <= 3
    assert "few-samples" in [reason.code for reason in outcome.reasons]


def test_measure_gives_nothing_when_there_are_no_jobs(hostile):
    assert measure([], hostile, QUICK) == {}


def test_measure_refuses_two_jobs_of_one_name(hostile, script):
    with pytest.raises(ValueError, match="names"):
        measure([script("a", "run")] * 2, hostile, ONCE)


@pytest.mark.parametrize(
    ("target", "word"),
    [
        (Target("pixel8", "litert"), "host"),
        (Target("host", "tflite"), "litert"),
        (Target("host", "litert", "bf16"), "fp32"),
        (Target("host", "litert", options=("no-such",)), "no-such"),
    ],
)
def test_probe_says_what_is_known_when_a_target_is_not(target, word):
    with pytest.raises(TargetError) as caught:
        probe(target)
    assert word in str(caught.value)


class Rewriting(LocalConnection):
    """A device whose agent's lines are changed on their way, or that says it ended otherwise."""

    def __init__(self, rewrite, **ending):
        super().__init__()
        self.rewrite, self.ending = rewrite, ending

    def run(self, argv, *, on_line=None, **options):
        def rewritten(line):
            for each in self.rewrite(line):
                on_line(each)

        return replace(super().run(argv, on_line=on_line and rewritten, **options), **self.ending)


def results_only(change):
    return lambda line: [change(line) if line.startswith('{"event": "result"') else line]


@pytest.mark.parametrize(
    "rewrite",
    [
        results_only(lambda line: line.replace('"samples_ns": [', '"samples_ns": [-1, ')),
        results_only(lambda line: line.replace('"job": 0', '"job": 7')),
        results_only(lambda line: line.replace('"peak_memory_bytes": ', '"peak_memory_bytes": 1e308')),
        results_only(lambda line: line[: len(line) // 2]),
        lambda line: [line, line] if '"result"' in line or '"started"' in line else [line],
        lambda line: [line] if '"started"' not in line else ['{"event": "started", "job": -1}'],
    ],
)
def test_measure_fails_with_the_beginning_of_a_line_that_cannot_be(hostile, script, rewrite):
    connection = Rewriting(rewrite)
    try:
        outcomes = measure([script("a", "run")], hostile, QUICK, connection=connection)
    except MeasurementError as error:
        code, detail = error.what, error.why
    else:
        (outcome,) = outcomes.values()
        assert isinstance(outcome, MeasurementFailure)
        code, detail = outcome.reason.code, outcome.reason.detail
    assert "malformed-answer" in code
    assert "it begins" in detail


def test_measure_does_not_believe_a_process_that_crashes_after_its_result(hostile, script):
    outcomes = measure(
        [script("a", "run")], hostile, QUICK, connection=Rewriting(lambda line: [line], returncode=-11)
    )
    (outcome,) = outcomes.values()
    assert isinstance(outcome, MeasurementFailure)
    assert outcome.reason.code == "crashed-signal-11"
