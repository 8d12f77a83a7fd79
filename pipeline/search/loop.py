"""Ask, rate, tell; every candidate goes to a journal, so that a killed search continues where it was."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.errors import WorkFolderError
from pipeline.search.base import Explorer, Rater, Rating, SearchExhausted
from pipeline.search.journal import Candidate, Journal
from pipeline.spaces.base import Architecture

OnCandidate = Callable[[int, int, Candidate], None]


def search(
    explorer: Explorer,
    rater: Rater,
    evaluations: int,
    journal: Path,
    on_progress: OnCandidate | None = None,
) -> list[Candidate]:
    """Rate ``evaluations`` proposals of a fresh explorer, in the order they were asked.

    What the journal holds is not rated again: the explorer is told it and goes on from there, so that a
    search that was killed ends like one that was not. A rater that raises, or gives a value that is not
    finite, makes a failed candidate, and the search goes on.

    Args:
        explorer: fresh, with the same seed and constraints as when the journal was begun.
        rater: rates what the explorer asks.
        evaluations: candidates in the end, those in the journal included; fewer if the explorer is exhausted.
        journal: file that is appended to, one line per candidate.
        on_progress: called with candidates done, ``evaluations``, and the candidate.

    Raises:
        WorkFolderError: the journal cannot be read or written, is damaged, or belongs to another search.
    """
    candidates: list[Candidate] = []
    known: dict[str, Candidate] = {}
    with Journal(journal) as written:
        while len(candidates) < evaluations:
            try:
                architecture = explorer.ask()
            except SearchExhausted:
                break
            if len(candidates) < len(written.past):
                past = written.past[len(candidates)]
                _check_same_search(journal, len(candidates), past, architecture)
                candidate = replace(past, architecture=architecture)
            else:
                candidate = known.get(architecture.identity) or _rated(rater, architecture)
                written.append(candidate)
            explorer.tell(architecture, candidate.rating)
            known[architecture.identity] = candidate
            candidates.append(candidate)
            if on_progress is not None:
                on_progress(len(candidates), evaluations, candidate)
    return candidates


def _rated(rater: Rater, architecture: Architecture) -> Candidate:
    try:
        rating = rater.rate(architecture)
    except Exception as error:  # A candidate may fail in any way; the search has to outlive it.
        return Candidate(architecture, failure=f"{type(error).__name__}: {error}")
    if not math.isfinite(rating.value):
        return Candidate(architecture, failure=f"the rating is {rating.value}")
    return Candidate(architecture, rating=Rating(rating.value, _finite_or_none(rating.spread)))


def _finite_or_none(spread: float | None) -> float | None:
    return spread if spread is not None and math.isfinite(spread) else None


def _check_same_search(journal: Path, index: int, past: Candidate, asked: Architecture) -> None:
    if past.architecture.choices != asked.choices:
        raise WorkFolderError(
            f"The search journal {journal} belongs to another search",
            why=f"its candidate {index + 1} is {past.architecture}, and this search asks for {asked}",
            fix="delete the journal to search anew, or use another work folder",
        )
