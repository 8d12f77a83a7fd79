import ast
import contextlib
import io
import re
import time

import pytest
from rich.console import Console

from pipeline.progress import HEARTBEAT_S, ConsoleReporter, duration, pace, what_is_going_on
from tests.places import ROOT


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def off_a_terminal(clock: Clock) -> tuple[ConsoleReporter, io.StringIO]:
    stream = io.StringIO()
    return ConsoleReporter(Console(file=stream, force_terminal=False, width=120), clock=clock), stream


def test_pace_shows_rate_and_time_left() -> None:
    assert pace(10, 40, 5.0) == "2.0/s, 15 s left"
    assert pace(2, 4, 10.0) == "5.0 s each, 10 s left"
    assert pace(4, 4, 2.0) == "2.0/s"
    assert pace(0, 4, 2.0) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (7500, "2 h 05 min")]
)
def test_duration_is_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_console_reporter_prints_plain_lines_when_it_is_not_on_a_terminal() -> None:
    stream = io.StringIO()
    reporter = ConsoleReporter(Console(file=stream, force_terminal=False, width=120))
    reporter.note("table [bold] stays as it is")
    with reporter.task("measuring", "blocks") as advance:
        advance(0, 3)
        advance(1, 3)
        advance(3, 3)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "table [bold] stays as it is"
    assert lines[1].startswith("  measuring: 3/3 blocks, ")
    assert len(lines) == 2


def test_console_reporter_shows_a_live_line_on_a_terminal() -> None:
    stream = io.StringIO()
    reporter = ConsoleReporter(Console(file=stream, force_terminal=True, width=120))
    with reporter.task("measuring", "blocks") as advance:
        advance(2, 4)
    assert "measuring" in stream.getvalue()
    assert "2/4" in stream.getvalue()


def test_a_task_that_reports_nothing_still_says_that_it_goes_on() -> None:
    clock = Clock()
    reporter, stream = off_a_terminal(clock)
    with reporter.task("training the teacher", "epochs"):
        for _ in range(60):
            clock.now_s += 1
            reporter.tick()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "  training the teacher: 10 s so far"
    assert len(lines) == 60 / HEARTBEAT_S


def test_a_silent_task_says_how_far_it_is() -> None:
    clock = Clock()
    reporter, stream = off_a_terminal(clock)
    with reporter.task("measuring", "blocks") as task:
        clock.now_s += 6
        task(2, 8)
        clock.now_s += HEARTBEAT_S
        reporter.tick()
    assert stream.getvalue().splitlines() == [
        "  measuring: 2/8 blocks, 3.0 s each, 18 s left, 6 s so far",
        "  measuring: 2/8 blocks, 8.0 s each, 48 s left, 16 s so far",
    ]


def test_no_heartbeat_is_added_to_a_task_that_speaks() -> None:
    clock = Clock()
    reporter, stream = off_a_terminal(clock)
    with reporter.task("measuring", "blocks") as task:
        for done in range(1, 30):
            clock.now_s += 1
            task(done, 100)
            reporter.tick()
    assert len(stream.getvalue().splitlines()) == 29 // 5


def test_what_a_task_waits_for_is_told_at_once_and_once() -> None:
    clock = Clock()
    reporter, stream = off_a_terminal(clock)
    with reporter.task("measuring", "blocks") as task:
        task(1, 4)
        task.say("disturbed, measuring again")
        task(1, 4)
        task.say("")
        task.say("disturbed, measuring again")
    assert stream.getvalue().splitlines() == ["  measuring: 1/4 blocks, disturbed, measuring again"]


def test_a_reporter_in_use_is_not_silent_between_tasks() -> None:
    clock = Clock()
    reporter, stream = off_a_terminal(clock)
    with reporter:
        with reporter.task("training", "epochs"):
            pass
        clock.now_s += HEARTBEAT_S
        reporter.tick()
    clock.now_s += HEARTBEAT_S
    reporter.tick()
    assert stream.getvalue().splitlines() == ["  working: 10 s so far"]


def test_a_thread_beats_while_a_task_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.progress._TICK_S", 0.001)
    clock = Clock()
    reporter, stream = off_a_terminal(clock)
    until = time.monotonic() + 60
    with reporter.task("training", "epochs"):
        clock.now_s += HEARTBEAT_S
        while not stream.getvalue() and time.monotonic() < until:
            time.sleep(0.001)
    assert stream.getvalue() == "  training: 10 s so far\n"


def test_the_task_that_was_begun_last_is_what_is_going_on() -> None:
    reporter, _ = off_a_terminal(Clock())
    with reporter.task("searching", "candidates"):
        with reporter.task("measuring", "blocks") as task:
            assert what_is_going_on() == "measuring"
            task(3, 4)
            assert what_is_going_on() == "measuring (3/4 blocks)"
            task.say("waiting for the device")
            assert what_is_going_on() == "measuring (3/4 blocks, waiting for the device)"
        assert what_is_going_on() == "searching"
    assert what_is_going_on() == ""


def test_a_line_that_is_printed_while_standard_error_is_redirected_is_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reporter = ConsoleReporter()
    with contextlib.redirect_stderr(io.StringIO()):
        reporter.note("still there")
    assert capsys.readouterr().err == "still there\n"


def test_tasks_of_one_terminal_may_be_nested() -> None:
    stream = io.StringIO()
    reporter = ConsoleReporter(Console(file=stream, force_terminal=True, width=120))
    with reporter.task("searching", "candidates"), reporter.task("measuring", "blocks") as task:
        task(2, 4)
    assert "searching" in stream.getvalue()
    assert "2/4" in stream.getvalue()


def test_a_task_whose_total_grows_is_told_of_again_when_it_ends() -> None:
    clock = Clock()
    reporter, stream = off_a_terminal(clock)
    with reporter.task("timing", "launches") as task:
        task(5, 5)
        task(5, 6)
        task.say("5 launches, 2 disturbed, measuring again")
        task(6, 6)
    lines = [line.split(", measuring")[0] for line in stream.getvalue().splitlines()]
    assert [line.strip() for line in lines] == [
        "timing: 5/5 launches",
        "timing: 5/6 launches, 5 launches, 2 disturbed",
        "timing: 6/6 launches, 5 launches, 2 disturbed",
    ]


def test_what_is_going_on_fits_behind_while() -> None:
    """As an interrupt tells it: *interrupted while training the teacher*."""
    nodes = [
        node
        for package in ("devices", "latency_db", "pipeline")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    ]
    said = [
        node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "task"
        if node.args
    ]
    begun = {each.value for each in said if isinstance(each, ast.Constant)}
    assert {"training the teacher", "scoring candidates"} <= begun
    assert [words for words in begun if not re.match(r"[a-z-]+ing ", words)] == []


def test_what_else_was_counted_is_shown_with_the_rest_and_makes_no_lines() -> None:
    clock = Clock()
    reporter, stream = off_a_terminal(clock)
    with reporter.task("scoring", "candidates") as task:
        for count in range(100):
            task.also = f"{count} rated"
        assert stream.getvalue() == ""
        clock.now_s += HEARTBEAT_S
        task(1, 2)
    assert stream.getvalue() == "  scoring: 1/2 candidates, 99 rated, 10.0 s each, 10 s left, 10 s so far\n"
