import io

import pytest
from rich.console import Console

from pipeline.progress import ConsoleReporter, duration, pace


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
