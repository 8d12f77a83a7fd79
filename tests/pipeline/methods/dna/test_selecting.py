import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.measurement.measurement import Reason
from devices.measurement.statistics import Interval
from devices.target import Target
from latency_db.models.network_model import NetworkModel
from latency_db.tables.table import LatencyTable
from pipeline.errors import BudgetError, RecipeError
from pipeline.methods.dna.result import BlockScores, CellScores, block_losses
from pipeline.methods.dna.selecting import select_architectures
from pipeline.search.latency import TableLatencyModel
from pipeline.spaces.cost import block_cost, network_cost
from pipeline.spaces.dna.config import CellConfig, DnaBlockConfig, DnaSpaceConfig
from pipeline.spaces.dna.space import DnaSpace

CELLS = [CellConfig(depth=1, width=4), CellConfig(depth=2, width=4), CellConfig(depth=1, width=8)]


def space_of(blocks):
    configs = tuple(DnaBlockConfig(cells=tuple(cells), kernels=(3, 5), expansions=(2,)) for cells in blocks)
    return DnaSpace(DnaSpaceConfig(stem_width=4, head_width=8, blocks=configs), (1, 16, 16), 3)


def scores_of(space, generator):
    """Random, some equal."""
    return tuple(
        BlockScores(
            1.0,
            (),
            tuple(
                CellScores(
                    cell.name,
                    tuple(
                        generator.choice([0.25, 0.5, generator.random()])
                        for _ in range(len(space.operations(index)) ** cell.depth)
                    ),
                )
                for cell in block.cells
            ),
        )
        for index, block in enumerate(space.config.blocks)
    )


def model_of(space, cost, target="host/onnxruntime:fp32@1", fixed_ns=300.0):
    costs = {block.identity: cost(block) for block in space.distinct_blocks()}
    table = LatencyTable(
        Target.parse(target),
        {name: Interval(ns, ns, ns, 0.9) for name, ns in costs.items() if ns is not None},
        {name: Reason("export-failed", "made up") for name, ns in costs.items() if ns is None},
    )
    return TableLatencyModel(space, NetworkModel(table, 1.0, 0.0, fixed_ns, 1.25, 0.9, 6))


def brute_force(space, scores, models, limits):
    """Every architecture as (loss, ratio, architecture) by the definitions, without those that cannot run."""
    found = []
    for member in space.members():
        cost = network_cost(space.blocks(member))
        costs = {name: model.estimate([member])[0].high_ns for name, model in models.items()}
        costs |= {"macs": cost.macs, "parameters": cost.parameters}
        ratio = max(costs[name] / limit for name, limit in limits.items())
        if math.isfinite(max(costs.values())):
            found.append((math.fsum(block_losses(space, scores, member)), ratio, member))
    return found


spaces = st.lists(
    st.lists(st.sampled_from(CELLS), min_size=1, max_size=3, unique=True), min_size=1, max_size=3
).map(space_of)


@settings(max_examples=25)
@given(space=spaces, seed=st.integers(0, 2**32), share=st.floats(-0.1, 1.0), count=st.integers(1, 5))
def test_selection_equals_brute_force_where_costs_depend_on_the_width_that_enters(space, seed, share, count):
    generator = random.Random(seed)
    scores = scores_of(space, generator)
    costs = {
        block: generator.choice([generator.uniform(1, 100)] * 9 + [None]) for block in space.distinct_blocks()
    }
    models = {"host": model_of(space, costs.__getitem__)}
    everything = brute_force(space, scores, models, {"host": 1.0})
    if not everything:
        with pytest.raises(BudgetError, match="runs on all of host"):
            select_architectures(space, scores, models, {"host": 1.0})
        return
    low, high = min(ratio for _, ratio, _ in everything), max(ratio for _, ratio, _ in everything)
    limits = {"host": low + share * (high - low) + 1e-6, "macs": 1e12}
    within = sorted(loss for loss, ratio, _ in everything if ratio <= limits["host"])
    found = select_architectures(space, scores, models, limits, count=count)
    assert found.exact
    assert [each.loss for each in found.selected] == pytest.approx(within[:count])
    assert len({each.architecture for each in found.selected}) == len(found.selected)
    for each in found.selected:
        assert sum(each.block_losses) == pytest.approx(each.loss)
        estimate = models["host"].estimate([each.architecture])[0]
        assert each.costs["host"] == pytest.approx(estimate.high_ns)
        assert each.costs["macs"] == network_cost(space.blocks(each.architecture)).macs
    if not within:
        assert found.nearest.costs["host"] == pytest.approx(low)
    else:
        assert found.nearest is None
    assert found.bound <= (within[count] if len(within) > count else math.inf) + 1e-9
    assert not found.selected or found.bound >= found.selected[-1].loss - 1e-9


def test_several_targets_and_sizes_are_limited_at_once():
    space, generator = space_of([CELLS, CELLS]), random.Random(2)
    scores = scores_of(space, generator)
    models = {
        "one": model_of(space, lambda block: 100.0 + block_cost(block).macs),
        "two": model_of(space, lambda block: 100.0 + generator.uniform(0, 5000)),
    }
    members = brute_force(space, scores, models, {"one": 1.0})
    middle = {
        name: np.median([m.estimate([a])[0].high_ns for *_, a in members]) for name, m in models.items()
    }
    limits = middle | {"parameters": 0.8 * network_cost(space.blocks(space.reference())).parameters}
    within = sorted(loss for loss, ratio, _ in brute_force(space, scores, models, limits) if ratio <= 1)
    found = select_architectures(space, scores, models, limits, count=3)
    assert [each.loss for each in found.selected] == pytest.approx(within[:3])


def test_next_ones_follow_in_the_order_of_their_losses():
    space = space_of([CELLS, CELLS])
    scores = scores_of(space, random.Random(1))
    found = select_architectures(space, scores, {}, {"macs": 1e12}, count=space.count() + 1)
    losses = [each.loss for each in found.selected]
    assert len(losses) == space.count()
    assert losses == sorted(losses)


@pytest.mark.parametrize("limits", [{}, {"elsewhere": 1.0}, {"macs": -1.0}, {"macs": math.inf}])
def test_limits_without_meaning_are_refused(limits):
    space = space_of([CELLS])
    with pytest.raises(RecipeError):
        select_architectures(space, scores_of(space, random.Random(0)), {}, limits)


def test_no_architecture_cannot_be_asked_for():
    space = space_of([CELLS])
    with pytest.raises(RecipeError, match="0 selections"):
        select_architectures(space, scores_of(space, random.Random(0)), {}, {"macs": 1e9}, count=0)


def test_loss_of_an_architecture_is_read_from_the_path_that_it_takes():
    space = space_of([[CELLS[1]]])
    scores = (BlockScores(1.0, (), (CellScores("2x4", (0.0, 1.0, 2.0, 3.0)),)),)
    names = [operation.name for operation in space.operations(0)]
    for number, (first, second) in enumerate(itertools.product(names, repeat=2)):
        architecture = space.reference().with_choice("block1.layer1", first)
        architecture = architecture.with_choice("block1.layer2", second)
        assert block_losses(space, scores, architecture) == (float(number),)
