"""Random search: the baseline that every other explorer must beat."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.search.explorers.base import ConstrainedExplorer
from pipeline.spaces.base import Architecture


class RandomExplorer(ConstrainedExplorer):
    """Draws within the budgets and learns nothing."""

    def proposals(self) -> Iterator[Architecture]:
        """Independent draws."""
        while True:
            yield self.constraints.draw(self.generator)
