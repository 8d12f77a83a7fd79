"""Random search: the baseline that every other strategy must beat."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.search.strategies.base import ConstrainedStrategy
from pipeline.spaces.base import Architecture


class RandomStrategy(ConstrainedStrategy):
    """Draws within the budgets and learns nothing."""

    def proposals(self) -> Iterator[Architecture]:
        """Independent draws."""
        while True:
            yield self.constraints.draw(self.generator)
