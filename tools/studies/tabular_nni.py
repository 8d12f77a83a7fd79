"""NNI's strategies in the tabular study: through the same budgets, with the same scores, and a journal."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace


def strategies() -> dict:
    """By name what makes each from a seed; none if NNI is not installed."""
    if find_spec("nni") is None:
        return {}
    from nni.nas.strategy import TPE, Random, RegularizedEvolution, hpo

    logging.getLogger("nni").setLevel(logging.CRITICAL)
    # NNI waits a second after each proposal of a tuner. What it proposes does not depend on that.
    hpo.time = SimpleNamespace(sleep=lambda _: None)
    return {
        "nni-random": lambda seed: Random(seed=seed),
        "nni-evolution": lambda seed: RegularizedEvolution(seed=seed),
        "nni-evolution-20": lambda seed: RegularizedEvolution(
            population_size=20, sample_size=5, mutation_prob=1 / 6, seed=seed
        ),
        "nni-tpe": lambda seed: TPE("maximize", seed=seed),
    }


def asked(task, strategy, evaluations: int) -> list:
    """Different cells in the order they were proposed; fewer if some were proposed again, or it stops."""
    from pipeline.integrations.nni.strategies import run_nni_strategy

    with TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.jsonl"
        found = run_nni_strategy(task.constraints, task, strategy, evaluations, journal)
    return [candidate.architecture for candidate in found.candidates]
