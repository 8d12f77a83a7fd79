"""Ask, evaluate, tell; every candidate goes to a journal, so that a killed search continues where it was."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.errors import WorkFolderError
from pipeline.search.base import Evaluator, SearchExhausted, Strategy
from pipeline.search.evaluators.workers import InProcess, MakePool, Workers
from pipeline.search.journal import Candidate, Journal
from pipeline.spaces.base import Architecture

OnCandidate = Callable[[int, int, Candidate], None]


def search(
    strategy: Strategy,
    evaluator: Evaluator,
    evaluations: int,
    journal: Path,
    on_progress: OnCandidate | None = None,
    *,
    pool: MakePool = InProcess,
    ahead: int = 1,
    enough: Callable[[], bool] = lambda: False,
) -> list[Candidate]:
    """Evaluate ``evaluations`` proposals of a fresh strategy, in the order they were asked.

    What the journal holds is not evaluated again: the strategy is told it and goes on from there, so that a
    search that was killed ends like one that was not. An evaluator that raises, or gives a value that is not
    finite, makes a failed candidate, as does one that ends its process; the search goes on.

    The k-th candidate is told before candidate k + ``ahead`` is asked, whichever is evaluated first. So the
    result depends on ``ahead``, but not on the pool or on how long anything takes.

    Args:
        strategy: fresh, with the same seed and constraints as when the journal was begun.
        evaluator: evaluates what the strategy asks.
        evaluations: candidates in the end, those in the journal included; fewer if the strategy is exhausted
            or there are enough.
        journal: file that is appended to, one line per candidate.
        on_progress: called with candidates done, ``evaluations``, and the candidate.
        pool: runs the evaluator, by default in this thread.
        ahead: candidates that may be evaluated at the same time.
        enough: whether no more candidates are to be begun; asked once something is evaluated.

    Raises:
        WorkFolderError: the journal cannot be read or written, is damaged, or belongs to another search.
    """
    candidates: list[Candidate] = []
    waiting: deque[Architecture] = deque()
    exhausted = False
    workers = Workers(pool, evaluator)
    try:
        with Journal(journal) as written:
            while True:
                while not exhausted and len(waiting) < min(ahead, evaluations - len(candidates)):
                    index = len(candidates) + len(waiting)
                    if candidates and index >= len(written.past) and enough():
                        break
                    try:
                        architecture = strategy.ask()
                    except SearchExhausted:
                        exhausted = True
                        break
                    if index < len(written.past):
                        past = written.past[index]
                        _check_same_search(journal, index, past, architecture)
                        workers.know(replace(past, architecture=architecture))
                    workers.start(architecture)
                    waiting.append(architecture)
                if not waiting:
                    return candidates
                candidate = workers.finish(waiting.popleft())
                if len(candidates) >= len(written.past):
                    written.append(candidate)
                strategy.tell(candidate.architecture, candidate.score)
                candidates.append(candidate)
                if on_progress is not None:
                    on_progress(len(candidates), evaluations, candidate)
    finally:
        workers.close()


def _check_same_search(journal: Path, index: int, past: Candidate, asked: Architecture) -> None:
    if past.architecture.choices != asked.choices:
        raise WorkFolderError(
            f"The search journal {journal} belongs to another search",
            why=f"its candidate {index + 1} is {past.architecture}, and this search asks for {asked}",
            fix="delete the journal to search anew, or use another work folder",
        )
