"""What a report says is left of a teacher, beside the student itself."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from torch import nn

from devices.measurement import Interval
from pipeline.data.base import Preprocessing
from pipeline.methods.subgraph.structures import find_structures
from pipeline.methods.subgraph.units import OpenTeacherSpace, describe_teacher
from pipeline.report import KeptUnit
from pipeline.spaces.base import Architecture
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.stages.delivery.kept import kept_units
from pipeline.stages.inputs.space import SpacePlan
from pipeline.teachers.config import TeacherConfig
from pipeline.teachers.teacher import AdaptedNetwork
from pipeline.work.stage import StageFolder
from tests.pipeline.methods.subgraph.networks import SHAPE, fused, projected, resnet

FOLDER = StageFolder(Path("nowhere"))


@dataclass
class Plan:
    """A plan whose teacher is at hand."""

    space: OpenTeacherSpace

    def open(self, folder: StageFolder) -> OpenTeacherSpace:
        return self.space


def space_of(network: Callable[[], nn.Module]) -> OpenTeacherSpace:
    teacher = network()
    config = describe_teacher(teacher, SHAPE, find_structures(teacher, SHAPE), most_blocks=80)
    return OpenTeacherSpace(config, SHAPE, 5, lambda: teacher)


def left(
    space: OpenTeacherSpace, architecture: Architecture, missing: Collection[str] = ()
) -> tuple[KeptUnit, ...]:
    """With latencies that are the multiply-accumulates of a block, and 1000 more, of all but some blocks."""
    values = {block.identity: float(space.cost(block).macs + 1000) for block in space.distinct_blocks()}
    rows = {identity: Interval(value, value, value, 0.9) for identity, value in values.items()}
    rows = {identity: each for identity, each in rows.items() if identity not in missing}
    return kept_units(cast(SpacePlan, Plan(space)), architecture, {"target": rows}, FOLDER)


@pytest.fixture(scope="module")
def of_resnet() -> OpenTeacherSpace:
    return space_of(resnet)


def test_the_whole_teacher_is_left_of_the_reference(of_resnet: OpenTeacherSpace) -> None:
    units = left(of_resnet, of_resnet.reference())
    assert [unit.name for unit in units] == ["", "layer1.0", "layer2.0", "layer3.0", ""]
    for unit in units:
        assert not unit.removed
        assert all(layer.kept == layer.whole for layer in unit.layers)
        ((_, before, after),) = unit.latencies
        assert before == after
    assert sum(unit.latencies[0][1] for unit in units) == pytest.approx(1)


def test_where_a_block_of_the_teacher_does_not_run_there_are_no_shares_of_its_latency(
    of_resnet: OpenTeacherSpace,
) -> None:
    whole = {each.name: each.count for each in of_resnet.config.structures}
    missing = of_resnet.block(of_resnet.config.units[1], whole).identity
    units = left(of_resnet, of_resnet.reference(), {missing})
    assert [unit.name for unit in units] == ["", "layer1.0", "layer2.0", "layer3.0", ""]
    assert all(unit.latencies == () for unit in units)


def test_nothing_is_left_of_a_block_that_was_removed(of_resnet: OpenTeacherSpace) -> None:
    units = left(of_resnet, of_resnet.reference().with_choice("layer1.0.kept", False))
    (gone,) = [unit for unit in units if unit.removed]
    assert gone.name == "layer1.0"
    assert [(layer.name, layer.kept, layer.whole) for layer in gone.layers] == [
        ("layer1.0.conv1", 0, 8),
        ("layer1.0.conv2", 0, 8),
        ("", 0, 0),
    ]
    ((target, before, after),) = gone.latencies
    assert target == "target"
    assert before > after == 0


def test_layers_that_a_sum_joins_are_narrowed_together() -> None:
    space = space_of(projected)
    counts = {each.name: each.count for each in space.config.structures}
    (joined,) = [each for each in space.config.structures if len(each.gated) > 1]
    counts[joined.name] = space.config.widths[joined.name][0]
    units = left(space, space.architecture(counts))
    sizes = {layer.name: (layer.kept, layer.whole) for unit in units for layer in unit.layers if layer.name}
    narrowed = {name for name, (kept, whole) in sizes.items() if kept < whole}
    assert narrowed == {"3.conv", "3.project", "4.expand", "5.expand"}
    before, after = (sum(unit.latencies[0][which] for unit in units) for which in (1, 2))
    assert before == pytest.approx(1)
    assert after < before


def test_layers_of_an_adapted_teacher_have_the_names_that_they_have_in_it() -> None:
    settings = {"kind": "factory", "factory": "a:b", "weights": "w.pt", "mean": [0.5] * 3, "std": [0.2] * 3}
    config = TeacherConfig.model_validate(settings)
    normalised = Preprocessing((0.4,) * 3, (0.3,) * 3)
    space = space_of(lambda: AdaptedNetwork(resnet(), config, normalised).eval())
    units = left(space, space.reference().with_choice("layer1.0.kept", False))
    assert [unit.name for unit in units] == ["", "layer1.0", "layer2.0", "layer3.0", ""]
    assert units[1].removed
    assert units[0].layers[0].name == "conv1"


def test_of_attention_the_heads_are_counted() -> None:
    space = space_of(fused)
    units = left(space, space.reference().with_choice("layers.0.attention", 1))
    heads = {
        layer.name: (layer.kept, layer.whole)
        for unit in units
        for layer in unit.layers
        if layer.parts == "heads"
    }
    assert heads == {"layers.0.attention": (1, 4), "layers.1.attention": (4, 4)}


def test_another_space_has_no_teacher_to_be_left() -> None:
    space = MobileSpace.from_config(None, SHAPE, 5)
    plan = SpacePlan(space.config, SHAPE, 5)
    assert kept_units(plan, space.reference(), {}, FOLDER) == ()
