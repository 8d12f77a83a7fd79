"""The append-only record of a search: JSON lines, each on the disk before the search goes on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pipeline.errors import WorkFolderError
from pipeline.search.base import Score
from pipeline.spaces.base import Architecture


@dataclass(frozen=True)
class Candidate:
    """An architecture with either its score or why it has none.

    Attributes:
        fidelity: share of the dearest evaluation's cost that the evaluator had.
    """

    architecture: Architecture
    score: Score | None = None
    failure: str | None = None
    fidelity: float = 1.0

    def __post_init__(self) -> None:
        if (self.score is None) == (self.failure is None):
            raise ValueError("a candidate has either a score or a failure")

    def to_json(self) -> dict[str, Any]:
        """Choices, score, failure and fidelity."""
        return {
            "choices": [list(pair) for pair in self.architecture.choices],
            "score": None if self.score is None else asdict(self.score),
            "failure": self.failure,
            "fidelity": self.fidelity,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The candidate of ``to_json``.

        Raises:
            KeyError, TypeError, ValueError: the content is something else.
        """
        score = None if content["score"] is None else Score(**content["score"])
        choices = tuple((name, choice) for name, choice in content["choices"])
        return cls(Architecture(choices), score, content["failure"], content["fidelity"])


class Journal:
    """Reads what an earlier process wrote, drops a last line that a kill cut off, and appends.

    Attributes:
        past: candidates found in the file.

    Raises:
        WorkFolderError: the file cannot be read or written, or a line other than the last is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b", buffering=0) as stream:
                stream.seek(0)
                content = stream.read()
                complete = content[: content.rfind(b"\n") + 1]
                stream.truncate(len(complete))
        except OSError as error:
            raise self._unusable(error) from error
        lines = complete.split(b"\n")[:-1]
        self.past = [self._parsed(number, line) for number, line in enumerate(lines, start=1)]

    def append(self, candidate: Candidate) -> None:
        """Write one line and wait until the disk has it.

        Raises:
            WorkFolderError: the disk is full or failed.
        """
        line = json.dumps(candidate.to_json(), allow_nan=False).encode() + b"\n"
        try:
            with self._path.open("ab", buffering=0) as stream:
                written = 0
                while written < len(line):
                    written += stream.write(line[written:])
                os.fsync(stream.fileno())
        except OSError as error:
            raise self._unusable(error) from error

    def _parsed(self, number: int, line: bytes) -> Candidate:
        try:
            return Candidate.from_json(json.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            raise WorkFolderError(
                f"The search journal {self._path} is damaged",
                why=f"line {number} is not a candidate ({type(error).__name__}: {error})",
                fix="delete the journal to search anew, or restore it from a copy",
            ) from error

    def _unusable(self, error: OSError) -> WorkFolderError:
        return WorkFolderError(
            f"The search journal {self._path} cannot be written",
            why=f"{error.strerror}",
            fix="make room or give write permission, then run again: evaluated candidates are kept",
        )
