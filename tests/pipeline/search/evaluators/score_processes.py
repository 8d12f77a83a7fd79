"""Evaluators that other processes can run, one of which ends the process it runs in."""

import os
from dataclasses import dataclass

from pipeline.search.base import Score


@dataclass(frozen=True)
class NumberEvaluator:
    """A score that follows from the architecture alone."""

    deadly: frozenset = frozenset()

    def evaluate(self, architecture):
        if architecture.identity in self.deadly:
            os._exit(137)
        return Score(int(architecture.identity[:8], 16) / 2**32)
