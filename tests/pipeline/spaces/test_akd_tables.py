"""Latency tables over the space of AKD: traits of its blocks, and estimates of many architectures at once."""

from __future__ import annotations

import random

import numpy as np
import pytest

from devices.measurement import Reason
from devices.statistics import Interval
from devices.target import Target
from latency_db.network_model import NetworkModel
from latency_db.table import LatencyTable
from pipeline.spaces.mobile import MobileSpace
from pipeline.spaces.mobile_config import SpaceConfig
from pipeline.tables.descriptors import describe
from pipeline.tables.traits import traits_of
from pipeline.tables.vectorised import Decomposition, VectorisedModel


def akd(side: int) -> MobileSpace:
    return MobileSpace.from_config(SpaceConfig(preset="akd"), (3, side, side), 10)


def made_up_model(space: MobileSpace, failing: float) -> NetworkModel:
    generator = random.Random(0)
    blocks = space.distinct_blocks()
    rows, failed = {}, {}
    for block in blocks:
        if generator.random() < failing:
            failed[block.identity] = Reason("unsupported", "made up")
        else:
            ns = generator.uniform(1e4, 1e5)
            rows[block.identity] = Interval(ns, ns, ns, 0.9)
    table = LatencyTable(Target("host", "litert"), rows, failed, traits_of(blocks))
    return NetworkModel(table, 0.9, 300.0, 500.0, 1.05, 0.9, 20, -0.001, 0.002)


@pytest.mark.parametrize(("side", "failing"), [(8, 0.0), (32, 0.05), (224, 0.0)])
def test_values_of_many_architectures_equal_the_estimates_one_by_one(side: int, failing: float) -> None:
    space = akd(side)
    model = made_up_model(space, failing)
    drawn = [space.sample(random.Random(seed)) for seed in range(200)]
    one_by_one = [
        estimate.value_ns
        for estimate in model.estimate([[b.identity for b in space.blocks(each)] for each in drawn])
    ]
    decomposition = Decomposition(space)
    values = VectorisedModel(decomposition, model).values_ns(decomposition.indices(drawn))
    assert values == pytest.approx(one_by_one)
    assert np.isinf(values).any() == (failing > 0)


def test_every_block_has_traits_and_finite_descriptors() -> None:
    blocks = akd(32).distinct_blocks()
    assert traits_of(blocks).keys() == {block.identity for block in blocks}
    assert np.isfinite(describe(blocks)).all()
