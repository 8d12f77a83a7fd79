"""Files of Arrow from outside, looked at before anything of them is unpacked."""

from __future__ import annotations

import struct
from pathlib import Path

_BATCHES = {2: 1, 3: None}
"""Messages with rows: of a dictionary, whose field 1 is a batch, and of a batch."""
_HEADER_TYPE, _HEADER, _COMPRESSION = 1, 2, 3
_MOST_MESSAGES = 1_000_000


def refuse_compressed(path: Path) -> None:
    """Refuse a stream whose buffers are compressed: of a small one, gigabytes could be unpacked.

    datasets writes none. Source: Message.fbs of Arrow 1.5, and "FlatBuffers Internals".

    Raises:
        OSError: it cannot be read.
        ValueError: it is compressed, damaged, or no regular file.
    """
    import pyarrow as pa

    from devices.untrusted import regular_size

    regular_size(path)
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.MessageReader.open_stream(source)
        for _ in range(_MOST_MESSAGES):
            try:
                message = reader.read_next_message()
            except StopIteration:
                return
            if _is_compressed(message.metadata.to_pybytes()):
                raise ValueError(f"{path.name} is compressed")
    raise ValueError(f"{path.name} has more than {_MOST_MESSAGES:,} parts")


def _is_compressed(content: bytes) -> bool:
    def number(layout: str, place: int) -> int:
        if place < 0:
            raise ValueError("its messages are damaged")
        return int(struct.unpack_from(layout, content, place)[0])

    def field(table: int, index: int) -> int | None:
        """Where a field of a table is; ``None`` where the table has none."""
        fields = table - number("<i", table)
        place = 4 + 2 * index
        offset = number("<H", fields + place) if place < number("<H", fields) else 0
        return table + offset if offset else None

    def followed(place: int | None) -> int:
        if place is None:
            raise ValueError("its messages are damaged")
        return place + number("<I", place)

    try:
        message = number("<I", 0)
        kind = field(message, _HEADER_TYPE)
        if kind is None or content[kind] not in _BATCHES:
            return False
        batch, inner = followed(field(message, _HEADER)), _BATCHES[content[kind]]
        if inner is not None:
            batch = followed(field(batch, inner))
        return field(batch, _COMPRESSION) is not None
    except (struct.error, IndexError) as error:
        raise ValueError("its messages are damaged") from error
