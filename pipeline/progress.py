"""Progress of long work: a live line on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

PLAIN_INTERVAL_S = 5.0

Advance = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


class Reporter(Protocol):
    """Where a run tells what it does."""

    def note(self, text: str) -> None:
        """One line that stays."""
        ...

    def task(self, what: str, unit: str) -> AbstractContextManager[Advance]:
        """A context manager that yields an ``Advance`` for one long piece of work."""
        ...


class ConsoleReporter:
    """Reports to a rich console, which should write to standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        """Print one line; text is never read as markup."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def task(self, what: str, unit: str) -> Iterator[Advance]:
        """Show what, how many, rate and time left until the block ends."""
        if self._console.is_terminal:
            with self._live_task(what, unit) as advance:
                yield advance
        else:
            yield _PlainTask(self.note, what, unit).advance

    @contextmanager
    def _live_task(self, what: str, unit: str) -> Iterator[Advance]:
        columns = (
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn(unit, markup=False),
            _PaceColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)


class _PaceColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(pace(int(task.completed), int(task.total or 0), task.elapsed or 0.0))


class _PlainTask:
    """Prints a line when a piece of work starts to take long, then every few seconds, and at its end."""

    def __init__(self, emit: Callable[[str], None], what: str, unit: str) -> None:
        self._emit, self._what, self._unit = emit, what, unit
        self._started = self._last = time.monotonic()
        self._ended = False

    def advance(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._ended or (done < total and now - self._last < PLAIN_INTERVAL_S):
            return
        self._last, self._ended = now, done >= total
        line = f"  {self._what}: {done}/{total} {self._unit}"
        self._emit(f"{line}, {pace(done, total, now - self._started)}" if done else line)


def pace(done: int, total: int, elapsed_s: float) -> str:
    """Rate and time left as text, e.g. ``2.5/s, 12 s left``; empty while nothing is done."""
    if done <= 0 or elapsed_s <= 0:
        return ""
    rate = done / elapsed_s
    shown = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
    return f"{shown}, {duration((total - done) / rate)} left" if done < total else shown


def duration(seconds: float) -> str:
    """A duration for people: ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
