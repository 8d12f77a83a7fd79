"""Real latency models over made-up tables."""

import random

from devices.measurement.measurement import Reason
from devices.measurement.statistics import Interval
from devices.target import Target
from latency_db.models.network_model import NetworkModel
from latency_db.tables.table import LatencyTable
from pipeline.search.latency import TableLatencyModel
from pipeline.spaces.cost import block_cost
from pipeline.spaces.mobile.config import MobileSpaceConfig, StageConfig
from pipeline.spaces.mobile.space import MobileSpace


def latency_model(space, cost, *, target="host/onnxruntime:fp32@1", upper_factor=1.1, fixed_ns=500.0):
    """A model in which ``cost(block)`` nanoseconds is a block's share; None is a block that failed."""
    costs = {block.identity: cost(block) for block in space.distinct_blocks()}
    table = LatencyTable(
        Target.parse(target),
        {name: Interval(ns, ns, ns, 0.9) for name, ns in costs.items() if ns is not None},
        {name: Reason("export-failed", "made up") for name, ns in costs.items() if ns is None},
    )
    return TableLatencyModel(space, NetworkModel(table, 1.0, 0.0, fixed_ns, upper_factor, 0.9, 6))


def by_macs(block) -> float:
    return 1000.0 + block_cost(block).macs


def by_parameters(block) -> float:
    return 1000.0 + 20 * block_cost(block).parameters


def at_random(seed):
    """Costs that have nothing to do with size; about one block in ten fails."""

    def cost(block):
        generator = random.Random(f"{seed} {block.identity}")
        return None if generator.random() < 0.1 else generator.uniform(1.0, 1e6)

    return cost


def small_space(stages: int = 2) -> MobileSpace:
    """36 architectures per stage."""
    stage = StageConfig(
        widths=(4, 8), depths=(1, 2, 3), kernels=(3, 5, 7), expansions=(1, 2), squeeze_excite=(0.0,)
    )
    config = MobileSpaceConfig(stem_width=4, head_width=8, stages=(stage,) * stages)
    return MobileSpace.from_config(config, (1, 8, 8), 3)
