"""Progress of long work: live lines on a terminal, plain lines elsewhere; always on standard error.

Silence looks like a fault. Whoever does long work opens a task and cannot be silent in it: where a task says
nothing, a thread tells every few seconds what it is and how long it has taken.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.progress import Task as Row
from rich.text import Text

PLAIN_INTERVAL_S = 5.0
"""How long two lines of a task that advances are apart, where it is not on a terminal."""
HEARTBEAT_S = 10.0
"""How long it is silent at most."""
_TICK_S = 1.0

Advance = Callable[[int, int], None]
"""Called with how many are done and how many there are."""

_open: list[Task] = []


class Task:
    """One long piece of work: what it is, how far it is, and what it waits for or does again.

    Args:
        what: it is.
        unit: what is counted, in the plural.
        changed: called with the task when it has changed.
        clock: seconds.

    Attributes:
        also: what else was counted; shown with the rest, but no news of its own.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        changed: Callable[[Task], None] = lambda task: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.unit = what, unit
        self.done, self.total = 0, 0
        self.said = self.also = ""
        self._changed, self._clock = changed, clock
        self._started = clock()

    def __call__(self, done: int, total: int) -> None:
        """So many are done, of so many."""
        self.done, self.total = done, total
        self._changed(self)

    def say(self, text: str) -> None:
        """What it does or waits for now; an empty text ends that."""
        self.said = text
        self._changed(self)

    @property
    def count(self) -> str:
        """How many are done of how many, or nothing where nothing is counted."""
        return f"{self.done}/{self.total} {self.unit}".rstrip() if self.total else ""

    @property
    def pace(self) -> str:
        """Rate and time left, once something is done, and how long it has taken."""
        elapsed_s = self._clock() - self._started
        shown = pace(self.done, self.total, elapsed_s)
        return ", ".join(filter(None, (shown, f"{duration(elapsed_s)} so far" if elapsed_s >= 1 else "")))

    @property
    def line(self) -> str:
        """All of it as one line."""
        facts = ", ".join(filter(None, (self.count, self.also, self.said, self.pace)))
        return f"  {self.what}: {facts}" if facts else f"  {self.what}"


class Reporter(Protocol):
    """Where a run tells what it does."""

    def note(self, text: str) -> None:
        """One line that stays."""
        ...

    def task(self, what: str, unit: str) -> AbstractContextManager[Task]:
        """A context manager that yields the task for one long piece of work."""
        ...


class SilentReporter:
    """Tells nothing."""

    def note(self, text: str) -> None:
        """Drop a line."""

    @contextmanager
    def task(self, what: str, unit: str) -> Iterator[Task]:
        """Drop a task's progress."""
        yield Task(what, unit)


def what_is_going_on() -> str:
    """The task that was begun last of those that are not ended, in words; nothing if there is none."""
    if not _open:
        return ""
    task = _open[-1]
    facts = ", ".join(filter(None, (task.count, task.said)))
    return f"{task.what} ({facts})" if facts else task.what


class ConsoleReporter:
    """Reports to a rich console, which should write to standard error.

    As a context manager it never is silent for long between tasks either.

    Args:
        console: standard error unless given.
        clock: seconds.
    """

    def __init__(
        self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # This stream, also while something redirects standard error.
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._clock = clock
        self._tasks: list[Task] = []
        self._lock = threading.RLock()
        self._spoke_at = clock()
        self._live = _Live(self._console)

    def __enter__(self) -> ConsoleReporter:
        self._begin(Task("working", "", clock=self._clock))
        return self

    def __exit__(self, *_: object) -> None:
        self._end(self._tasks[0])

    def note(self, text: str) -> None:
        """Print one line; text is never read as markup."""
        with self._lock:
            self._spoke_at = self._clock()
            try:
                self._console.print(text, markup=False, soft_wrap=True)
            except OSError as error:
                # A log on a full disk is no reason to end the work.
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise

    @contextmanager
    def task(self, what: str, unit: str) -> Iterator[Task]:
        """Show what, how many, rate and time left until the block ends."""
        plain = _Plain(self.note, self._clock)
        changed = self._live.update if self._console.is_terminal else plain.update
        task = Task(what, unit, changed, self._clock)
        self._begin(task)
        try:
            yield task
        finally:
            self._end(task)

    def tick(self) -> None:
        """Say what is going on if nothing was said for long; a thread calls this while a task is open."""
        with self._lock:
            if self._tasks and self._clock() - self._spoke_at >= HEARTBEAT_S:
                self.note(self._tasks[-1].line)

    def _begin(self, task: Task) -> None:
        with self._lock:
            self._tasks.append(task)
            _open.append(task)
            if self._console.is_terminal:
                self._live.add(task)
            elif len(self._tasks) == 1:
                self._spoke_at = self._clock()
                threading.Thread(target=self._beat, args=(task,), name="heartbeat", daemon=True).start()

    def _end(self, task: Task) -> None:
        with self._lock:
            self._tasks.remove(task)
            _open.remove(task)
            self._live.remove(task)

    def _beat(self, first: Task) -> None:
        while True:
            time.sleep(_TICK_S)
            with self._lock:
                # When all tasks are ended and another has begun, that has a thread of its own.
                if not self._tasks or self._tasks[0] is not first:
                    return
                self.tick()


class _Live:
    """Open tasks as lines of a terminal that are gone when they end."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=24),
            _TaskColumn(),
            console=console,
            transient=True,
        )
        self._rows: dict[int, TaskID] = {}

    def add(self, task: Task) -> None:
        self._progress.start()
        self._rows[id(task)] = self._progress.add_task(task.what, total=None, its=task)

    def update(self, task: Task) -> None:
        if id(task) in self._rows:
            total = task.total or None
            self._progress.update(self._rows[id(task)], completed=task.done, total=total)

    def remove(self, task: Task) -> None:
        if id(task) in self._rows:
            self._progress.refresh()
            self._progress.remove_task(self._rows.pop(id(task)))
            if not self._rows:
                self._progress.stop()


class _TaskColumn(ProgressColumn):
    def render(self, task: Row) -> Text:
        its: Task = task.fields["its"]
        return Text("  ".join(filter(None, (its.count, its.also, its.pace, its.said))))


class _Plain:
    """Prints a line when a task starts to take long, then every few seconds, at its end, and what it says."""

    def __init__(self, emit: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._emit, self._clock = emit, clock
        self._last = clock()
        self._ended = False
        self._said = ""

    def update(self, task: Task) -> None:
        now = self._clock()
        news = bool(task.said) and task.said != self._said
        over = task.total > 0 and task.done >= task.total
        if not news and (self._ended if over else now - self._last < PLAIN_INTERVAL_S):
            return
        self._last, self._said = now, task.said
        self._ended = over
        self._emit(task.line)


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
