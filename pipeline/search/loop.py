"""Ask, evaluate, tell; every candidate goes to a journal, so that a killed search continues where it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import WorkFolderError
from pipeline.search.base import Evaluator, FidelityStrategy, SearchExhausted, Strategy
from pipeline.search.evaluators.workers import InProcess, MakePool, Workers
from pipeline.search.journal import Candidate, Journal
from pipeline.spaces.base import Architecture

OnCandidate = Callable[[int, int, Candidate], None]

_ROUNDING = 1e-9
"""Of sums of shares."""


def search(
    strategy: Strategy,
    evaluator: Evaluator,
    evaluations: int,
    journal: Path,
    on_progress: OnCandidate | None = None,
    *,
    pool: MakePool = InProcess,
    ahead: int = 1,
    cheaper: Mapping[float, Evaluator] = MappingProxyType({}),
    enough: Callable[[], bool] = lambda: False,
) -> list[Candidate]:
    """Evaluate ``evaluations`` proposals of a fresh strategy, in the order they were asked.

    What the journal holds is not evaluated again: the strategy is told it and goes on from there, so that a
    search that was killed ends like one that was not. An evaluator that raises, or gives a value that is not
    finite, makes a failed candidate, as does one that ends its process; the search goes on.

    A strategy may choose among fidelities (``FidelityStrategy``). A cheaper evaluation counts as its share of
    one, so a search ends with at most one evaluation's cost more than was asked for.

    The k-th candidate is told before candidate k + ``ahead`` is asked, whichever is evaluated first. So the
    result depends on ``ahead``, but not on the pool or on how long anything takes.

    Args:
        strategy: fresh, with the same seed and constraints as when the journal was begun.
        evaluator: evaluates what the strategy asks.
        evaluations: candidates in the end, those in the journal included; fewer if the strategy is exhausted
            or there are enough, more if some were evaluated cheaply.
        journal: file that is appended to, one line per candidate.
        on_progress: called with whole evaluations done, ``evaluations``, and the candidate.
        pool: runs the evaluator, by default in this thread.
        ahead: candidates that may be evaluated at the same time.
        cheaper: evaluators of the fidelities below 1, by these; each has a pool of its own.
        enough: whether no more candidates are to be begun; asked once something is evaluated.

    Raises:
        WorkFolderError: the journal cannot be read or written, is damaged, or belongs to another search.
    """
    candidates: list[Candidate] = []
    waiting: deque[tuple[Architecture, float]] = deque()
    begun = done = 0.0
    exhausted = False
    with ExitStack() as open_pools:
        workers = {1.0: open_pools.enter_context(closing(Workers(pool, evaluator)))}
        for fidelity, its_evaluator in cheaper.items():
            workers[fidelity] = open_pools.enter_context(closing(Workers(pool, its_evaluator)))
        written = Journal(journal)
        while True:
            while not exhausted and len(waiting) < ahead and begun < evaluations - _ROUNDING:
                index = len(candidates) + len(waiting)
                if candidates and index >= len(written.past) and enough():
                    break
                try:
                    architecture = strategy.ask()
                except SearchExhausted:
                    # What is told of those that wait may let it ask for one of them again, more dearly.
                    exhausted = not waiting
                    break
                fidelity = strategy.fidelity(architecture) if isinstance(strategy, FidelityStrategy) else 1.0
                if index < len(written.past):
                    past = written.past[index]
                    _check_same_search(journal, index, past, architecture, fidelity)
                    workers[fidelity].know(replace(past, architecture=architecture))
                workers[fidelity].start(architecture)
                waiting.append((architecture, fidelity))
                begun += fidelity
            if not waiting:
                return candidates
            architecture, fidelity = waiting.popleft()
            candidate = replace(workers[fidelity].finish(architecture), fidelity=fidelity)
            if len(candidates) >= len(written.past):
                written.append(candidate)
            strategy.tell(candidate.architecture, candidate.score)
            candidates.append(candidate)
            done += fidelity
            if on_progress is not None:
                on_progress(min(evaluations, int(done + _ROUNDING)), evaluations, candidate)


def _check_same_search(
    journal: Path, index: int, past: Candidate, asked: Architecture, fidelity: float
) -> None:
    if past.architecture.choices != asked.choices or past.fidelity != fidelity:
        raise WorkFolderError(
            f"The search journal {journal} belongs to another search",
            why=f"its candidate {index + 1} is {past.architecture} at {past.fidelity:g} of the cost, and "
            f"this search asks for {asked} at {fidelity:g}",
            fix="delete the journal to search anew, or use another work folder",
        )
