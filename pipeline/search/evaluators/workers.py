"""Where candidates are evaluated: in this process or in others, of which any may be lost."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Protocol

from devices.host import end_with_parent
from pipeline.search.base import Evaluator, Score
from pipeline.search.journal import Candidate
from pipeline.spaces.base import Architecture

_PROCESSES = re.compile(r"processes:([1-9]\d{0,3})")
_RAY = re.compile(r"ray(://[^\s/:@]+:\d{1,5})?")

MakePool = Callable[[Evaluator], "EvaluatorPool"]


class EvaluatorPool(Protocol):
    """Evaluates architectures by one evaluator, several at a time."""

    def submit(self, architecture: Architecture) -> Future[Candidate]:
        """Begin to evaluate one.

        Raises:
            BrokenExecutor: here or by the future, where a process of the pool was ended.
        """
        ...

    def close(self) -> None:
        """End the pool; what is not begun is given up."""
        ...


class InProcess:
    """Evaluates each architecture at once, in this thread."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def submit(self, architecture: Architecture) -> Future[Candidate]:
        """The finished evaluation; an interrupt is raised here."""
        future: Future[Candidate] = Future()
        future.set_result(evaluated(self._evaluator, architecture))
        return future

    def close(self) -> None:
        """Nothing is left to end."""


class Processes:
    """Evaluates in processes of one thread each, in which small networks train faster than on all threads.

    Args:
        evaluator: travels to each process once, by pickle.
        count: of processes.
    """

    def __init__(self, evaluator: Evaluator, count: int) -> None:
        # Forked from a server that has no threads and imported torch once for all of them.
        context = get_context("forkserver")
        context.set_forkserver_preload(["torch"])
        self._executor = ProcessPoolExecutor(
            count, mp_context=context, initializer=_begin, initargs=(evaluator,)
        )

    def submit(self, architecture: Architecture) -> Future[Candidate]:
        """Begin to evaluate one, when a process is free."""
        return self._executor.submit(_evaluate, architecture)

    def close(self) -> None:
        """End the processes when each has finished what it does now."""
        self._executor.shutdown(cancel_futures=True)


def parse_pool(text: str, cpus: float = 1, gpus: float = 0) -> tuple[MakePool, int | None]:
    """What ``in-process``, ``processes:4``, ``ray`` or ``ray://head:10001`` means.

    Args:
        text: of a recipe.
        cpus: of a candidate, for Ray.
        gpus: of a candidate, for Ray.

    Returns:
        What makes the pool, and how many candidates it evaluates at a time; ``None`` where that changes.

    Raises:
        ValueError: the text means nothing.
    """
    if text == "in-process":
        return InProcess, 1
    if processes := _PROCESSES.fullmatch(text):
        count = int(processes[1])
        return lambda evaluator: Processes(evaluator, count), count
    if _RAY.fullmatch(text):
        return lambda evaluator: _ray(evaluator, None if text == "ray" else text, cpus, gpus), None
    raise ValueError(
        "write in-process, processes:2 for two processes, or ray or ray://HOST:PORT for tasks of Ray, "
        f"not {text!r}"
    )


def require_executor(text: str) -> None:
    """Ask, where that is quick, whether there is what a text that ``parse_pool`` takes needs.

    Raises:
        ExecutorError: Ray is not installed, or nothing answers at the cluster's address.
    """
    if _RAY.fullmatch(text):
        from pipeline.search.evaluators.ray_tasks import require_cluster

        require_cluster(None if text == "ray" else text)


def _ray(evaluator: Evaluator, address: str | None, cpus: float, gpus: float) -> EvaluatorPool:
    from pipeline.search.evaluators.ray_tasks import RayTasks

    return RayTasks(evaluator, address, cpus, gpus)


class Workers:
    """Evaluates architectures by a pool, which is made anew when it breaks; each architecture once.

    A pool breaks when one of its processes ends, for want of memory for example, and takes with it all that
    was going on. What was lost is evaluated again; an architecture that breaks the pool while it is evaluated
    alone has failed.

    Args:
        make: makes a pool of the evaluator.
        evaluator: gives the scores.
    """

    def __init__(self, make: MakePool, evaluator: Evaluator) -> None:
        self._make, self._evaluator = make, evaluator
        self._pool = make(evaluator)
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
        """End the pool; what is not begun is given up."""
        self._pool.close()

    def _evaluate_alone(self, architecture: Architecture) -> Candidate:
        self._restart()
        try:
            return self._submit(architecture).result()
        except BrokenExecutor as error:
            self._restart()
            return Candidate(architecture, failure=f"the process that evaluated it was ended: {error}")

    def _submit(self, architecture: Architecture) -> Future[Candidate]:
        try:
            return self._pool.submit(architecture)
        except BrokenExecutor as error:
            broken: Future[Candidate] = Future()
            broken.set_exception(error)
            return broken

    def _restart(self) -> None:
        self.close()
        self._pool = self._make(self._evaluator)


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


_evaluator: Evaluator


def _begin(evaluator: Evaluator) -> None:
    """Make a process of a pool ready."""
    import torch

    end_with_parent()

    global _evaluator  # noqa: PLW0603 (a process of a pool has one evaluator)
    _evaluator = evaluator
    torch.set_num_threads(1)


def _evaluate(architecture: Architecture) -> Candidate:
    return evaluated(_evaluator, architecture)
