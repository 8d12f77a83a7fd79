"""Where candidates are rated: any ``concurrent.futures.Executor``, whose workers may be lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

from pipeline.search.base import Rater, Rating
from pipeline.search.journal import Candidate
from pipeline.spaces.base import Architecture


class InProcess(Executor):
    """Runs each call at once, in this thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished call; what it raises is raised here."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Workers:
    """Rates architectures by an executor, which is made anew when it breaks; each architecture once.

    An executor breaks when one of its processes ends, for want of memory for example, and takes with it all
    that was going on. What was lost is rated again; an architecture that breaks the executor while it is
    rated alone has failed.

    Args:
        make: makes an executor. To another process, the rater and its architectures travel by pickle.
        rater: rates.
    """

    def __init__(self, make: Callable[[], Executor], rater: Rater) -> None:
        self._make, self._rater = make, rater
        self._executor = make()
        self._known: dict[str, Candidate] = {}
        self._running: dict[str, tuple[Architecture, Future[Candidate]]] = {}

    def know(self, candidate: Candidate) -> None:
        """Take in a candidate that was rated before."""
        self._known[candidate.architecture.identity] = candidate

    def start(self, architecture: Architecture) -> None:
        """Begin to rate, unless it is known or begun."""
        identity = architecture.identity
        if identity not in self._known and identity not in self._running:
            self._running[identity] = (architecture, self._submit(architecture))

    def finish(self, architecture: Architecture) -> Candidate:
        """The candidate of an architecture that was started."""
        identity = architecture.identity
        if identity not in self._known:
            _, future = self._running.pop(identity)
            try:
                self._known[identity] = future.result()
            except BrokenExecutor:
                self._known[identity] = self._rate_alone(architecture)
                for other, (lost, its_future) in self._running.items():
                    if not its_future.done() or its_future.cancelled() or its_future.exception():
                        self._running[other] = (lost, self._submit(lost))
        return self._known[identity]

    def close(self) -> None:
        """End the executor; what is not begun is given up."""
        self._executor.shutdown(cancel_futures=True)

    def _rate_alone(self, architecture: Architecture) -> Candidate:
        self._restart()
        try:
            return self._submit(architecture).result()
        except BrokenExecutor as error:
            self._restart()
            return Candidate(architecture, failure=f"the process that rated it was ended: {error}")

    def _submit(self, architecture: Architecture) -> Future[Candidate]:
        try:
            return self._executor.submit(rated, self._rater, architecture)
        except BrokenExecutor as error:
            broken: Future[Candidate] = Future()
            broken.set_exception(error)
            return broken

    def _restart(self) -> None:
        self.close()
        self._executor = self._make()


def rated(rater: Rater, architecture: Architecture) -> Candidate:
    """A candidate with its rating; a failed one if the rater raises or gives no finite value."""
    try:
        rating = rater.rate(architecture)
    except Exception as error:  # A candidate may fail in any way; the search has to outlive it.
        return Candidate(architecture, failure=f"{type(error).__name__}: {error}")
    if not math.isfinite(rating.value):
        return Candidate(architecture, failure=f"the rating is {rating.value}")
    spread = rating.spread
    finite = spread is not None and math.isfinite(spread)
    return Candidate(architecture, rating=Rating(rating.value, spread if finite else None))
