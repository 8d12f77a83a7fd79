"""A search with a slow toy rater, run as a process of its own so that it can be killed: JOURNAL SECONDS."""

import json
import sys
import time
from pathlib import Path

from search_models import by_macs, latency_model, small_space

from pipeline.search.base import Rating
from pipeline.search.constraints import Constraints
from pipeline.search.explorers.evolution import EvolutionExplorer
from pipeline.search.loop import search


class SlowRater:
    def __init__(self, seconds):
        self.seconds = seconds

    def rate(self, architecture):
        time.sleep(self.seconds)
        number = int(architecture.identity[:8], 16)
        if number % 5 == 0:
            raise RuntimeError("made to fail")
        return Rating(number / 2**32, 0.1)


if __name__ == "__main__":
    space = small_space()
    constraints = Constraints(space, {"t": latency_model(space, by_macs)}, {"t": 60_000.0})
    explorer = EvolutionExplorer(constraints, 7, population_size=5, sample_size=2)
    found = search(explorer, SlowRater(float(sys.argv[2])), 20, Path(sys.argv[1]))
    print(json.dumps([candidate.to_json() for candidate in found]))
