"""What the stages of a compilation are handed that can never decide a result."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.progress import Reporter
from pipeline.work.folder import WorkFolder


@dataclass(frozen=True)
class CompileServices:
    """Where to report, and the work folder, in which stages of parts are found by their whole input."""

    reporter: Reporter
    work: WorkFolder
