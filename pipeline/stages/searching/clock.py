"""How long a stage has worked, in all the processes that worked on it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from pipeline.work.disk import write_atomically


class Clock:
    """Runs from the moment it is made.

    Args:
        path: file of the seconds of processes before; one that cannot be read counts nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._began = path, time.monotonic()
        self._before = 0.0
        if path.exists():
            try:
                before = float(json.loads(path.read_bytes())["seconds"])
            except (ValueError, KeyError, TypeError):
                before = 0.0
            self._before = max(0.0, before) if math.isfinite(before) else 0.0

    def seconds(self) -> float:
        """Of this process and those before."""
        return self._before + time.monotonic() - self._began

    def keep(self) -> None:
        """Remember the time for a process that goes on.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        write_atomically(self._path, json.dumps({"seconds": round(self.seconds(), 3)}).encode())
