"""A search with a slow toy evaluator, run as a process of its own to be killed: JOURNAL SECONDS."""

import json
import sys
import time
from pathlib import Path

from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.loop import search
from pipeline.search.strategies.evolution import EvolutionStrategy
from tests.pipeline.search.search_models import by_macs, latency_model, small_space


class SlowEvaluator:
    def __init__(self, seconds):
        self.seconds = seconds

    def evaluate(self, architecture):
        time.sleep(self.seconds)
        number = int(architecture.identity[:8], 16)
        if number % 5 == 0:
            raise RuntimeError("made to fail")
        return Score(number / 2**32, 0.1)


if __name__ == "__main__":
    space = small_space()
    constraints = Constraints(space, {"t": latency_model(space, by_macs)}, {"t": 60_000.0})
    strategy = EvolutionStrategy(constraints, 7, population_size=5, sample_size=2)
    found = search(strategy, SlowEvaluator(float(sys.argv[2])), 20, Path(sys.argv[1]))
    print(json.dumps([candidate.to_json() for candidate in found]))
