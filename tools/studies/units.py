"""Work of a study that is done once: a line for each piece, on the disk before the next begins."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Units:
    """Values by the name of the piece of work, in a file of JSON lines; a line that a kill cut off goes.

    Args:
        path: made with its folder where it does not exist.

    Attributes:
        done: JSON values by the name of the piece.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        complete = content[: content.rfind(b"\n") + 1]
        if complete != content:
            os.truncate(path, len(complete))
        self._path = path
        self.done = {row["unit"]: row["value"] for row in map(json.loads, complete.splitlines())}

    def get(self, unit: str, compute: Callable[[], Any]) -> Any:
        """The value of a piece of work, computed where the file has none."""
        if unit not in self.done:
            # As a later run reads it.
            value = json.loads(json.dumps(compute()))
            with self._path.open("a") as stream:
                stream.write(json.dumps({"unit": unit, "value": value}) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            self.done[unit] = value
            print(f"{unit}: {value:.4f}" if isinstance(value, float) else unit, file=sys.stderr)
        return self.done[unit]

    def known(self, unit: str) -> Any:
        """The value, if it was computed."""
        return self.done.get(unit)
