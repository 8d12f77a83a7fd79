from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from devices.measurement.measurement import Reason
from devices.measurement.statistics import Interval
from devices.target import Target
from latency_db.models.network_model import NetworkModel
from latency_db.tables.table import LatencyTable
from pipeline.spaces.base import Block, Decision
from pipeline.spaces.decisions import DecisionSpace
from pipeline.spaces.mobile.config import Preset, SpaceConfig
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building.block_sizes import sizes_of
from tools.bench import vectorised
from tools.bench.vectorised import Decomposition, NotDecomposable, VectorisedModel


def model_of(space, failing: float = 0.0) -> NetworkModel:
    """A model with all terms over made-up latencies; a share of the blocks fails."""
    generator = random.Random(0)
    blocks = space.distinct_blocks()
    rows, failed = {}, {}
    for block in blocks:
        if generator.random() < failing:
            failed[block.identity] = Reason("unsupported", "made up")
        else:
            ns = generator.uniform(1e4, 1e5)
            rows[block.identity] = Interval(ns, ns, ns, 0.9)
    table = LatencyTable(Target("host", "litert"), rows, failed, sizes_of(blocks))
    return NetworkModel(table, 0.9, 300.0, 500.0, 1.05, 0.9, 20, -0.001, 0.002)


@pytest.mark.parametrize(
    ("preset", "size", "failing"),
    [
        *(("mobile", size, failing) for size in (8, 32, 96) for failing in (0.0, 0.1)),
        ("akd", 8, 0.0),
        ("akd", 32, 0.05),
    ],
)
def test_values_equal_the_estimates_one_by_one(preset: Preset, size: int, failing: float) -> None:
    space = MobileSpace.from_config(SpaceConfig(preset=preset), (3, size, size), 10)
    model = model_of(space, failing)
    drawn = [space.sample(random.Random(seed)) for seed in range(200)]
    one_by_one = [
        estimate.value_ns
        for estimate in model.estimate([[b.identity for b in space.blocks(each)] for each in drawn])
    ]
    decomposition = Decomposition(space)
    values = VectorisedModel(decomposition, model).values_ns(decomposition.indices(drawn))
    assert values == pytest.approx(one_by_one)
    assert np.isinf(values).any() == (failing > 0)


def test_sample_draws_choices_of_the_space() -> None:
    space = MobileSpace.from_config(None, (3, 32, 32), 10)
    indices = Decomposition(space).sample(np.random.default_rng(0), 1000)
    assert indices.shape == (1000, len(space.decisions))
    assert list(indices.max(axis=0)) == [len(decision.choices) - 1 for decision in space.decisions]
    assert (indices.min(axis=0) == 0).all()


@dataclass(frozen=True)
class OneBlockSpace(DecisionSpace):
    """Every decision acts on one and the same block."""

    count_of_decisions: int

    @property
    def decisions(self):
        return tuple(Decision(f"d{i}", (0, 1, 2, 3)) for i in range(self.count_of_decisions))

    def blocks(self, architecture):
        return (Block("all", (1, 1, 1), architecture.choices),)


def test_space_whose_decisions_all_act_together_is_one_table(monkeypatch) -> None:
    decomposition = Decomposition(OneBlockSpace(3))
    total = decomposition.totals(lambda block: sum((i + 1) * c for i, (_, c) in enumerate(block.arguments)))
    assert total(np.array([[1, 2, 3], [0, 0, 0]])).tolist() == [14.0, 0.0]
    monkeypatch.setattr(vectorised, "LARGEST_GROUP", 63)
    with pytest.raises(NotDecomposable):
        Decomposition(OneBlockSpace(3))
