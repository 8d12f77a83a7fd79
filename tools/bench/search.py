"""What a search costs besides score, as JSON: ``python tools/bench/search.py [CANDIDATES] > search.json``.

CPU seconds per candidate of each strategy, of the certificate, and to filter a million architectures by a
table, on presets of the mobile space for 32x32 and 224x224 images. Tables and scores are made up: a block
takes as long as its MACs and parameters say, and budgets lie 20 % of the way from the fastest network to the
slowest.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from vectorised import Decomposition, VectorisedModel

from devices.measurement import Interval
from devices.target import Target
from latency_db.models import NetworkModel
from latency_db.tables import LatencyTable
from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.latency import TableLatencyModel
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.search.strategies.nsga2 import NSGA2Strategy
from pipeline.search.strategies.policy import PolicySettings, PolicyStrategy
from pipeline.search.strategies.predictor import PredictorStrategy
from pipeline.search.strategies.random_search import RandomStrategy
from pipeline.spaces.cost import block_cost
from pipeline.spaces.mobile.config import SpaceConfig
from pipeline.spaces.mobile.space import MobileSpace

TARGETS = ("host/onnxruntime:fp32@1", "host/litert:fp32@1")
SPACES = (("mobile", 32), ("mobile", 224), ("akd", 224))
SHARE = 0.2
STRATEGIES = {
    "random": RandomStrategy,
    "evolution": EvolutionStrategy,
    "nsga2": NSGA2Strategy,
    "reinforce": lambda constraints, seed: PolicyStrategy(
        constraints, seed, settings=PolicySettings(clip=None)
    ),
    "ppo": PolicyStrategy,
    "predictor": PredictorStrategy,
}


def models(space: MobileSpace) -> dict[str, TableLatencyModel]:
    """A block takes a nanosecond per 10 MACs on one target, per 4 parameters on the other, and 2 us more."""
    found = {}
    for target, weights in zip(TARGETS, ((0.1, 0.0), (0.0, 0.25)), strict=True):
        rows = {}
        for block in space.distinct_blocks():
            cost = block_cost(block)
            ns = 2000 + weights[0] * cost.macs + weights[1] * cost.parameters
            rows[block.identity] = Interval(ns, ns, ns, 0.9)
        table = LatencyTable(Target.parse(target), rows, {})
        found[target] = TableLatencyModel(space, NetworkModel(table, 1.0, 0.0, 500.0, 1.05, 0.9, 8))
    return found


def budgets(space: MobileSpace, latency: dict[str, TableLatencyModel]) -> dict[str, float]:
    loose = Constraints(space, latency, dict.fromkeys(latency, 1e15)).certificate
    return {
        r.target: r.fastest_estimate.high_ns
        + SHARE * (r.slowest_estimate.high_ns - r.fastest_estimate.high_ns)
        for r in loose.ranges
    }


def seconds_per_candidate(make, constraints: Constraints, candidates: int) -> dict[str, float]:
    strategy = make(constraints, 0)
    generator = np.random.default_rng(0)
    seconds = []
    for _ in range(candidates):
        began = time.process_time()
        architecture = strategy.ask()
        strategy.tell(architecture, Score(float(generator.random())))
        seconds.append(time.process_time() - began)
    return {"mean": float(np.mean(seconds)), "longest": max(seconds)}


def filtering(space: MobileSpace, constraints: Constraints, count: int = 1_000_000) -> dict[str, float]:
    """Seconds to tabulate the space once, and to filter architectures on the first target."""
    target, limit_ns = next(iter(constraints.limits_ns.items()))
    began = time.process_time()
    decomposition = Decomposition(space)
    model = VectorisedModel(decomposition, constraints.models[target].network_model)
    tabulated = time.process_time() - began
    drawn = decomposition.sample(np.random.default_rng(0), count)
    began = time.process_time()
    within = model.values_ns(drawn) * model.model.upper_factor <= limit_ns
    filtered = time.process_time() - began
    return {"tabulating_s": tabulated, "filtering_s": filtered, "share_within": float(within.mean())}


def main() -> None:
    torch.set_num_threads(1)
    candidates = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    result = {}
    for preset, size in SPACES:
        space = MobileSpace.from_config(SpaceConfig(preset=preset), (3, size, size), 10)
        latency = models(space)
        constraints = Constraints(space, latency, budgets(space, latency))
        began = time.process_time()
        ratio = constraints.certificate.ratio
        certificate = time.process_time() - began
        result[f"{preset} {size}x{size}"] = {
            "architectures": space.count(),
            "decisions": len(space.decisions),
            "certificate_s": certificate,
            "ratio": ratio,
            "filter_a_million": filtering(space, constraints),
            "seconds_per_candidate": {
                name: seconds_per_candidate(make, constraints, candidates)
                for name, make in STRATEGIES.items()
            },
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
