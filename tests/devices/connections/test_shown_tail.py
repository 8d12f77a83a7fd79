"""What of a command's errors is shown."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.connections import LocalConnection
from devices.connections.output import KEPT_BYTES, STDERR_TAIL_BYTES, Lines, shown_tail
from tests.devices.local_shell import ShellConnection


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"\x1b[1;31mError:\x1b[0m no file\n", "Error: no file"),
        (b"\x1b]0;title\x07done", "done"),
        (b"one\r\ntwo\tthree\n", "one\ntwo\tthree"),
        (b"bell\x07 \xff", "bell \ufffd"),
    ],
)
def test_escape_sequences_and_control_characters_are_not_shown(written, shown):
    assert shown_tail(written, cut=False) == shown


def test_a_sequence_that_is_cut_in_the_middle_is_not_shown():
    assert shown_tail(b"1;31mError\n\x1b[31mthe cause\x1b[0m\n", cut=True) == "the cause"


@given(st.binary(max_size=KEPT_BYTES), st.booleans())
def test_what_is_shown_is_short_and_plain(written, cut):
    shown = shown_tail(written, cut=cut)
    assert len(shown) <= STDERR_TAIL_BYTES
    assert all(character.isprintable() or character in "\n\t" or ord(character) > 0x7F for character in shown)


@pytest.mark.parametrize("connection", [LocalConnection, ShellConnection])
def test_the_last_errors_of_a_coloured_library_are_shown_as_text(connection):
    program = "import sys; sys.stderr.write('\\x1b[31mred\\x1b[0m line\\n' * 3000 + '\\x1b[1mlast\\x1b[0m')"
    with connection() as opened:
        ended = opened.run((sys.executable, "-c", program), timeout_s=30)
    assert "\x1b" not in ended.stderr_tail
    assert ended.stderr_tail.endswith("red line\nlast")
    assert set(ended.stderr_tail.splitlines()[1:-1]) == {"red line"}


def test_a_line_without_an_end_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devices.connections.output.MOST_LINE_BYTES", 100)
    found: list[str] = []
    lines = Lines(found.append)
    for _ in range(1000):
        lines.add(b"x" * 10)
    lines.add(b"the end of it\nanother\n")
    lines.finish()
    assert len(found[0]) <= 110
    assert found[1:] == ["another"]
