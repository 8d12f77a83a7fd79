"""Scores of all searches of a work folder, found again by what decides them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pipeline.search.journal import Candidate


@dataclass(frozen=True)
class PastEvaluation:
    """A candidate that some search evaluated.

    Attributes:
        candidate: with its score.
        level: fidelity of the evaluator.
        drawn_by: digest of the strategy's settings.
        limits_ns: by target, under which the strategy drew it.
    """

    candidate: Candidate
    level: int
    drawn_by: str
    limits_ns: Mapping[str, float]

    def drawn_as_freely(self, limits_ns: Mapping[str, float]) -> bool:
        """Whether a search within these limits was free to draw no more than the one that drew this."""
        mine = self.limits_ns
        return mine.keys() == limits_ns.keys() and all(mine[each] >= limits_ns[each] for each in mine)


_PAST = TypeAdapter(PastEvaluation)


class EvaluatedBefore:
    """A file of JSON lines per evaluator, named by the digest of all that decides its scores.

    Args:
        folder: of the files, made when the first score is added; without one, nothing is kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def of(self, evaluator: str) -> list[PastEvaluation]:
        """What an evaluator gave, oldest first; a line that a kill cut off is left out."""
        path = self._folder / f"{evaluator}.jsonl" if self._folder else None
        found = []
        for line in path.read_bytes().splitlines() if path and path.exists() else ():
            try:
                found.append(_PAST.validate_json(line))
            except ValidationError:
                continue
        return found

    def add(self, evaluator: str, past: PastEvaluation) -> None:
        """Append one, and wait until the disk has it.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{evaluator}.jsonl").open("ab") as stream:
            # After a line that a kill cut off, a new one begins.
            stream.write(b"\n" + _PAST.dump_json(past) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
