"""Where candidates are evaluated: any ``concurrent.futures.Executor``, whose workers may be lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any

from pipeline.search.base import Evaluator, Score
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
    """Evaluates architectures by an executor, which is made anew when it breaks; each architecture once.

    An executor breaks when one of its processes ends, for want of memory for example, and takes with it all
    that was going on. What was lost is evaluated again; an architecture that breaks the executor while it is
    evaluated alone has failed.

    Args:
        make: makes an executor. To another process, the evaluator and its architectures travel by pickle.
        evaluator: gives the scores.
    """

    def __init__(self, make: Callable[[], Executor], evaluator: Evaluator) -> None:
        self._make, self._evaluator = make, evaluator
        self._executor = make()
        self._known: dict[str, Candidate] = {}
        self._running: dict[str, tuple[Architecture, Future[Candidate]]] = {}

    def know(self, candidate: Candidate) -> None:
        """Take in a candidate that was evaluated before."""
        self._known[candidate.architecture.identity] = candidate

    def start(self, architecture: Architecture) -> None:
        """Begin to evaluate, unless it is known or begun."""
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
                self._known[identity] = self._evaluate_alone(architecture)
                for other, (lost, its_future) in self._running.items():
                    if not its_future.done() or its_future.cancelled() or its_future.exception():
                        self._running[other] = (lost, self._submit(lost))
        return self._known[identity]

    def close(self) -> None:
        """End the executor; what is not begun is given up."""
        self._executor.shutdown(cancel_futures=True)

    def _evaluate_alone(self, architecture: Architecture) -> Candidate:
        self._restart()
        try:
            return self._submit(architecture).result()
        except BrokenExecutor as error:
            self._restart()
            return Candidate(architecture, failure=f"the process that evaluated it was ended: {error}")

    def _submit(self, architecture: Architecture) -> Future[Candidate]:
        try:
            return self._executor.submit(evaluated, self._evaluator, architecture)
        except BrokenExecutor as error:
            broken: Future[Candidate] = Future()
            broken.set_exception(error)
            return broken

    def _restart(self) -> None:
        self.close()
        self._executor = self._make()


def evaluated(evaluator: Evaluator, architecture: Architecture) -> Candidate:
    """A candidate with its score; a failed one if the evaluator raises or gives no finite value."""
    try:
        score = evaluator.evaluate(architecture)
    except Exception as error:  # A candidate may fail in any way; the search has to outlive it.
        return Candidate(architecture, failure=f"{type(error).__name__}: {error}")
    if not math.isfinite(score.value):
        return Candidate(architecture, failure=f"the score is {score.value}")
    spread = score.spread
    finite = spread is not None and math.isfinite(spread)
    return Candidate(architecture, score=Score(score.value, spread if finite else None))
