"""The wire format of protocol buffers: enough to walk through a message without its schema.

Source: the page "Encoding" of the documentation of Protocol Buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_LENGTHS = {FIXED64: 8, FIXED32: 4}
MOST_VARINT_BYTES = 10

Span = tuple[int, int]
"""Where some bytes begin and end."""


class Walk:
    """Walks through messages in a buffer; all walks of one count their fields together.

    Args:
        content: the buffer.
        most_fields: after so many the buffer is taken for damaged.
    """

    def __init__(self, content: bytes | mmap, most_fields: int) -> None:
        self._content = content
        self._left = most_fields

    def fields(self, span: Span) -> Iterator[tuple[int, int | Span]]:
        """Number of each field of a message with its value: a whole number, or where its bytes are.

        Raises:
            ValueError: the bytes are no message.
        """
        place, end = span
        while place < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("it has too many fields")
            tag, place = self._varint(place, end)
            number, kind = tag >> 3, tag & 7
            if number == 0:
                raise ValueError("a field has no number")
            if kind == VARINT:
                value, place = self._varint(place, end)
                yield number, value
                continue
            length = _LENGTHS.get(kind)
            if kind == BYTES:
                length, place = self._varint(place, end)
            if length is None or place + length > end:
                raise ValueError("a field ends behind its message")
            yield number, (place, place + length)
            place += length

    def text(self, span: Span) -> str:
        """The text in some bytes."""
        return self.bytes(span).decode("utf-8", "replace")

    def bytes(self, span: Span) -> bytes:
        """Some bytes."""
        return self._content[span[0] : span[1]]

    def numbers(self, span: Span) -> list[int]:
        """Whole numbers that are packed into some bytes.

        Raises:
            ValueError: the bytes are no numbers.
        """
        found, (place, end) = [], span
        while place < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("it has too many fields")
            number, place = self._varint(place, end)
            found.append(number)
        return found

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        value = 0
        for count in range(min(MOST_VARINT_BYTES, end - place)):
            byte = self._content[place + count]
            value |= (byte & 0x7F) << (7 * count)
            if byte < 0x80:
                return value, place + count + 1
        raise ValueError("a number does not end")
