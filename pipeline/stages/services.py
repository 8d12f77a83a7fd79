"""What stages are handed that can never decide a result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devices.host import temporary_folder
from latency_db.store import Store
from pipeline.progress import Reporter
from pipeline.search.evaluators.workers import InProcess, MakePool


@dataclass(frozen=True)
class Services:
    """The latency database, where to report, room for scratch, and the processes that may work.

    Attributes:
        store: a measurement is found in it by all that decides it, so whether it was there changes nothing.
        reporter: where to tell of progress.
        folder: on whose disk scratch files go.
        workers: processes that train blocks side by side.
        pool: where candidates are evaluated.
    """

    store: Store
    reporter: Reporter
    folder: Path
    workers: int = 1
    pool: MakePool = InProcess

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that is gone afterwards."""
        with temporary_folder("scratch", self.folder) as folder:
            yield folder
