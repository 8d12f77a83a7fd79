"""Members of a pool share what there is to measure; one that drops out gives back what it has."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import devices.measuring.launch
import devices.runtimes
from devices.errors import LatheError, TargetError
from devices.measurement import Measurement, Outcome
from devices.measuring import Job, busy_with, compare, measure, probe
from devices.measuring.agreement import canary_ns, disagreement, gather
from devices.target import Target
from tests.contracts.runtime import QUICK
from tests.devices.hostile_runtime import hostile_runtime
from tests.devices.shelf import Member, shelf

__all__ = ["shelf"]

ALL = Target("all", "hostile")
Levels = dict[str, float]


@pytest.fixture(autouse=True)
def _hostile_and_undisturbed(undisturbed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.runtimes, "RUNTIMES", (*devices.runtimes.RUNTIMES, hostile_runtime()))
    monkeypatch.setattr(devices.measuring.launch, "LOST_PAUSES_S", (0.0,))


@pytest.fixture
def real_canary_ns() -> Callable[[Target], float | None]:
    return canary_ns


@pytest.fixture(autouse=True)
def canaries(monkeypatch: pytest.MonkeyPatch) -> Levels:
    """How fast the canary of each device is said to be: this machine's own says nothing in a test."""
    levels = {"a": 1000.0, "b": 1000.0, "c": 1000.0}
    monkeypatch.setattr(devices.measuring.agreement, "canary_ns", lambda target: levels[target.device])
    return levels


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str, str], Job]:
    def write(name: str, text: str) -> Job:
        path = tmp_path / f"{name}.script"
        path.write_text(text)
        return Job(name, path)

    return write


def instance(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def who_measured(outcomes: dict[str, Outcome]) -> set[str]:
    """The devices that the outcomes name, all of which must be measurements with that instance."""
    found = set()
    for outcome in outcomes.values():
        assert isinstance(outcome, Measurement)
        device = Target.parse(outcome.target).device
        assert outcome.device.instance == instance(device)
        found.add(device)
    return found


@pytest.mark.usefixtures("shelf")
def test_every_member_measures_and_each_measurement_names_its_own(script: Callable[[str, str], Job]) -> None:
    jobs = [script(f"job {number}", "run") for number in range(9)]
    counts: list[tuple[int, int]] = []
    told: dict[str, Outcome] = {}
    outcomes = measure(
        jobs, ALL, QUICK, on_progress=lambda *count: counts.append(count), on_outcome=told.__setitem__
    )
    assert list(outcomes) == [job.name for job in jobs]
    assert told == outcomes
    assert who_measured(outcomes) == {"a", "b", "c"}
    assert counts[-1] == (18, 18)
    assert [done for done, _ in counts] == sorted(done for done, _ in counts)
    assert probe(ALL)[1].instance == instance("a")


def test_what_a_lost_member_had_is_measured_by_the_others(
    shelf: Path, script: Callable[[str, str], Job], caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [script(f"job {number}", "run") for number in range(12)]
    measured_by_b = threading.Event()

    def lose(name: str, outcome: Outcome) -> None:
        if Target.parse(outcome.target).device == "b" and not measured_by_b.is_set():
            measured_by_b.set()
            Member.lose(str(shelf / "b"))

    outcomes = measure(jobs, ALL, QUICK, on_outcome=lose)
    assert measured_by_b.is_set()
    assert {"a", "c"} <= who_measured(outcomes)
    assert all(len(each.launches) == QUICK.launches for each in outcomes.values())
    # It had finished. Next time its share goes to the others, and then nobody waits for it any more.
    for _ in range(2):
        assert who_measured(measure(jobs, ALL, QUICK)) == {"a", "c"}
    assert "'b' is left out of the pool 'all': no route to b" in caplog.text


def test_what_was_under_way_on_a_lost_member_is_given_back(
    shelf: Path, script: Callable[[str, str], Job], caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [script(f"job {number}", "run") for number in range(9)]

    def lose(done: int, total: int) -> None:
        if str(shelf / "b") not in Member.GONE:
            Member.lose(str(shelf / "b"))

    outcomes = measure(jobs, ALL, QUICK, on_progress=lose)
    complete = {name: each for name, each in outcomes.items() if len(each.launches) == QUICK.launches}
    assert complete == outcomes
    assert {"a", "c"} <= who_measured(outcomes)
    assert "'b' is left out of the pool 'all'" in caplog.text


def test_nothing_is_measured_when_no_member_is_left(shelf: Path, script: Callable[[str, str], Job]) -> None:
    gather(ALL)
    for name in "abc":
        Member.lose(str(shelf / name))
    with pytest.raises(TargetError) as caught:
        measure([script("job", "run")], ALL, QUICK)
    assert caught.value.what == "no member of the pool 'all' can be used"
    assert all(f"'{name}': no route to {name}" in caught.value.why for name in "abc")
    assert "lathe devices check all" in caught.value.fix


def test_members_that_cannot_be_reached_at_first_are_left_out(
    shelf: Path, script: Callable[[str, str], Job], caplog: pytest.LogCaptureFixture
) -> None:
    Member.lose(str(shelf / "a"))
    outcomes = measure([script(f"job {number}", "run") for number in range(6)], ALL, QUICK)
    assert who_measured(outcomes) == {"b", "c"}
    assert "'a' is left out of the pool 'all': no route to a" in caplog.text
    assert busy_with("all").cores >= 1


@pytest.mark.usefixtures("shelf")
def test_a_member_whose_canary_disagrees_is_left_out_and_named(
    script: Callable[[str, str], Job], canaries: Levels, caplog: pytest.LogCaptureFixture
) -> None:
    canaries["c"] = 1100.0
    outcomes = measure([script(f"job {number}", "run") for number in range(6)], ALL, QUICK)
    assert who_measured(outcomes) == {"a", "b"}
    assert "'c' is left out of the pool 'all': its canary runs 10.0% slower than the others'" in caplog.text


def test_the_canary_of_a_device_is_timed_by_its_runtime(real_canary_ns: Callable[[Target], float]) -> None:
    assert real_canary_ns(Target("host", "onnxruntime")) > 0
    assert real_canary_ns(Target("host", "hostile")) > 0


@pytest.mark.parametrize(
    "levels, out",
    [
        ({"a": 100.0, "b": 104.0, "c": 96.0}, set()),
        ({"a": 100.0, "b": 110.0, "c": 101.0}, {"b"}),
        ({"a": 100.0, "b": 90.0, "c": 101.0}, {"b"}),
        ({"a": 100.0, "b": 200.0}, {"b"}),  # of two that disagree the slower one: what disturbs adds time
        ({"a": 100.0}, set()),
        ({}, set()),
    ],
)
def test_members_agree_with_the_one_in_the_middle(levels: Levels, out: set[str]) -> None:
    assert set(disagreement(levels)) == out


@pytest.mark.usefixtures("shelf")
def test_what_the_caller_cannot_take_is_no_fault_of_a_member(script: Callable[[str, str], Job]) -> None:
    class FullDiskError(LatheError):
        """What a store raises."""

    def refuse(name: str, outcome: Outcome) -> None:
        raise FullDiskError("no space left")

    with pytest.raises(FullDiskError):
        measure([script(f"job {number}", "run") for number in range(3)], ALL, QUICK, on_outcome=refuse)
    assert len(gather(ALL).members) == 3


@pytest.mark.usefixtures("shelf")
def test_files_that_are_compared_stay_on_one_member(script: Callable[[str, str], Job]) -> None:
    jobs = [script(name, "run") for name in ("one", "other")]
    comparison = compare(jobs[0].artifact, jobs[1].artifact, ALL, QUICK)
    assert len(who_measured({"one": comparison.first, "other": comparison.second})) == 1


def test_unlike_members_are_refused(shelf: Path, script: Callable[[str, str], Job]) -> None:
    release = shelf / "os-release"
    release.write_text('PRETTY_NAME="Another system"\n')
    file = shelf / "devices.toml"
    mount = f"mount --bind {release} /etc/os-release && "
    text = file.read_text()
    cut = text.index("[devices.b]")
    file.write_text(text[:cut] + text[cut:].replace("mount --bind", f"{mount}mount --bind", 1))
    with pytest.raises(TargetError) as caught:
        measure([script("job", "run")], ALL, QUICK)
    assert caught.value.what == "the members of the pool 'all' are unlike"
    assert "'Another system' of 'b'" in caught.value.why
    assert caught.value.exit_code == 6
