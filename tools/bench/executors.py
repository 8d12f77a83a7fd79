"""Candidates per minute by each executor, as JSON: ``python tools/bench/executors.py [CANDIDATES]``.

Short trainings of the quickstart's space on the digits without a teacher, in this process with one thread,
in two processes, and as tasks of Ray on this machine, in turn; and what Ray adds to a candidate that costs
nothing. The first candidate waits for the pool to start, and is told apart. Needs the extra ``ray``.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Sequence

import torch

from pipeline.data.config import DataConfig
from pipeline.data.loading import load
from pipeline.distill.settings import DistillationSettings
from pipeline.search.base import Evaluator, Score
from pipeline.search.evaluators.short_training import DistillationEvaluator
from pipeline.search.evaluators.workers import EvaluatorPool, parse_pool
from pipeline.spaces.base import Architecture
from pipeline.spaces.mobile.space import MobileSpace

EXECUTORS = ("in-process", "processes:2", "ray")


class Free:
    """A score at no cost."""

    def evaluate(self, architecture: Architecture) -> Score:
        return Score(0.5)


def measured(text: str, evaluator: Evaluator, asked: Sequence[Architecture]) -> dict[str, float]:
    """Seconds until the first candidate is there, and for each of the others."""
    make: Callable[[Evaluator], EvaluatorPool] = parse_pool(text)[0]
    began = time.perf_counter()
    pool = make(evaluator)
    try:
        pool.submit(asked[0]).result()
        first = time.perf_counter()
        failures = [future.result().failure for future in [pool.submit(each) for each in asked[1:]]]
        ended = time.perf_counter()
    finally:
        pool.close()
    if any(failures):
        raise SystemExit(f"{text}: {next(filter(None, failures))}")
    return {"start_s": first - began, "candidate_s": (ended - first) / (len(asked) - 1)}


def main() -> None:
    """Measure all executors in turn."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    torch.set_num_threads(1)
    dataset = load(DataConfig(kind="digits"), seed=0)
    space = MobileSpace.from_config(None, dataset.input_shape, len(dataset.classes))
    generator = random.Random(0)
    asked = [space.sample(generator) for _ in range(count + 1)]
    settings = DistillationSettings(epochs=3, patience=3)
    trained = {
        text: measured(text, DistillationEvaluator(space, dataset, None, settings, 0), asked)
        for text in EXECUTORS
    }
    free = {text: measured(text, Free(), asked * 8) for text in ("in-process", "ray")}
    alone = trained["in-process"]["candidate_s"]
    times = {text: alone / each["candidate_s"] for text, each in trained.items()}
    print(
        json.dumps(
            {
                "candidates": count,
                "trained": trained,
                "times_as_many_as_in_process": times,
                "ray_overhead_ms": 1e3 * (free["ray"]["candidate_s"] - free["in-process"]["candidate_s"]),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
