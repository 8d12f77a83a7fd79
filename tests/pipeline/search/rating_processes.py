"""Raters that other processes can run, one of which ends the process it runs in."""

import os
from dataclasses import dataclass

from pipeline.search.base import Rating


@dataclass(frozen=True)
class NumberRater:
    """A rating that follows from the architecture alone."""

    deadly: frozenset = frozenset()

    def rate(self, architecture):
        if architecture.identity in self.deadly:
            os._exit(137)
        return Rating(int(architecture.identity[:8], 16) / 2**32)
