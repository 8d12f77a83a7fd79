"""What a command writes: cut into lines, and of its errors the last part as plain text."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

STDERR_TAIL_BYTES = 2_000
"""Of what a command wrote on standard error, so much is shown."""
MOST_LINE_BYTES = 64 << 20
"""What of a line comes beyond that is left out, so that output without an end needs no memory."""
KEPT_BYTES = 2 * STDERR_TAIL_BYTES
"""And so much is kept, since what a terminal would act on is not shown."""

_TERMINAL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]"
)
"""Escape sequences (ECMA-48: CSI, OSC and two-byte ones) and control characters but tab and line end."""


def shown_tail(kept: bytes, *, cut: bool) -> str:
    """The last part of what was written, as plain text: no escape sequence is in it, whole or in part.

    Args:
        kept: the last ``KEPT_BYTES`` of it, or all.
        cut: something was written before; the first line, of which a part may be missing, is left out.
    """
    text = kept.decode("utf-8", errors="replace").replace("\r\n", "\n")
    _, end, rest = text.partition("\n")
    text = rest if cut and end else text
    return _TERMINAL.sub("", text).strip()[-STDERR_TAIL_BYTES:].strip()


class Lines:
    """Cuts output into lines, and knows when the last one came."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._rest = bytearray()
        self._too_long = False
        self.last = time.monotonic()

    def add(self, data: bytes) -> None:
        """Take in what came."""
        self._rest += data
        if b"\n" in data:
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                if not self._too_long:
                    self._hand_over(line)
                self._too_long = False
        if len(self._rest) > MOST_LINE_BYTES:
            if not self._too_long:
                self._hand_over(self._rest)
            self._too_long = True
            self._rest.clear()

    def finish(self) -> None:
        """The output has ended; what follows the last line end is a line too."""
        if self._rest and not self._too_long:
            self._hand_over(self._rest)

    def _hand_over(self, line: bytearray) -> None:
        self.last = time.monotonic()
        if self._on_line is not None:
            self._on_line(line.decode("utf-8", errors="replace"))


class Tail:
    """The last part of what was written on standard error."""

    def __init__(self) -> None:
        self._data = b""
        self._size = 0

    def add(self, data: bytes) -> None:
        """Take in what came."""
        self._data = (self._data + data)[-KEPT_BYTES:]
        self._size += len(data)

    def __str__(self) -> str:
        return shown_tail(self._data, cut=self._size > len(self._data))
