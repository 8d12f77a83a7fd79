"""An NNI model space as choices and the blocks that they make."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor

from latency_db.models import order
from latency_db.tables import BlockSizes
from pipeline.integrations.nni.blocks import UnitBlock, unit_block
from pipeline.integrations.nni.errors import NniError
from pipeline.integrations.nni.networks import Networks, Shape
from pipeline.integrations.nni.survey import survey
from pipeline.integrations.nni.trees import Leaf, Tree, follow, grafted, grow
from pipeline.integrations.nni.units import Sample, Unit, cut, mutables_of
from pipeline.progress import Reporter
from pipeline.spaces.base import Choice

MOST_VARIANTS = 1000
"""Variants that one unit may have: each is measured."""

_DRAWN, _POOL, _IDLE = 400, 300, 1000

Names = tuple[str, ...]


class ModelSpaceBlocks:
    """Which blocks the networks of a model space are made of.

    Args:
        space: as its author made it; it is not changed.
        inputs: a batch that it takes.
        reporter: told of progress: dozens of networks are run, once each, to see the shapes in them.

    Attributes:
        mutables: by label.
        trees: for each unit, the identities of its blocks as a function of the sample.
        blocks: by identity.
        networks: builds and runs them.

    Raises:
        NniError: the space has mutables or modules of a kind that cannot be measured by themselves.
    """

    def __init__(self, space: ModelSpace, inputs: Tensor, reporter: Reporter) -> None:
        self.mutables = mutables_of(space)
        self.networks = Networks(space, inputs)
        self.blocks: dict[str, UnitBlock] = {}
        self._choices: dict[str, list[Choice]] = {
            label: list(mutable.values) for label, mutable in self.mutables.items()
        }
        units = cut(space)
        for unit in units:
            if unit.variants > MOST_VARIANTS:
                raise NniError(
                    f"'{unit}' has {unit.variants} variants",
                    why=f"it cannot be cut further, and no more than {MOST_VARIANTS} are measured",
                    fix=f"give {', '.join(unit.labels)} fewer choices",
                )
        with reporter.task("finding the blocks of the model space", "networks") as advance:
            shapes = survey(
                units, self._choices, lambda sample: self.networks.input_shapes(units, sample), advance
            )
        with reporter.task("looking at the units of the model space", "units") as advance:
            trees = []
            for unit, tree in zip(units, shapes, strict=True):
                trees.append(self._blocks_at(unit, tree))
                advance(len(trees), len(units))
        self.trees = tuple(trees)
        self._tell_what_is_outside(reporter)

    def blocks_of(self, sample: Sample) -> list[str]:
        """Identities of the blocks of a sample's network, once for each time that they run."""
        return list(itertools.chain.from_iterable(self._at_units(sample)))

    def sizes(self) -> dict[str, BlockSizes]:
        """Sizes of the blocks, by identity."""
        return {identity: block.sizes for identity, block in self.blocks.items()}

    def calibration_plan(self) -> list[Sample]:
        """Different networks in the order in which they are measured; it depends on the space alone."""
        found = list(itertools.islice(self._different_networks(), _DRAWN + _POOL))
        features = []
        for sample in found:
            sizes = [self.blocks[name].sizes for name in self.blocks_of(sample)]
            features.append(
                [
                    len(sizes),
                    sum(each.macs for each in sizes),
                    sum(each.boundary_bytes for each in sizes),
                    sum(each.weight_bytes for each in sizes),
                ]
            )
        drawn = min(_DRAWN, max(len(found) // 2, 1))
        return [found[index] for index in order(np.array(features, np.float64), drawn)]

    def _blocks_at(self, unit: Unit, shapes: Tree[tuple[Shape, ...]]) -> Tree[Names]:
        """From the shapes of a unit's inputs to its blocks, which depend on the choices inside it too."""
        known: dict[tuple[Shape, tuple[Choice, ...]], Names] = {}

        def names(shape: Shape, sample: Sample) -> Names:
            key = shape, tuple(sample[label] for label in unit.labels)
            if key not in known:
                block = unit_block(self.networks, unit, sample, shape)
                if block is not None:
                    self.blocks.setdefault(block.identity, block)
                known[key] = () if block is None else (block.identity,)
            return known[key]

        def subtree(called_with: tuple[Shape, ...], chosen: Sample) -> Tree[Names]:
            if not called_with:
                return Leaf(())
            free = [label for label in unit.labels if label not in chosen]
            table = {}
            for combination in itertools.product(*(self._choices[label] for label in free)):
                first = {label: values[0] for label, values in self._choices.items()}
                sample = {**first, **chosen, **dict(zip(free, combination, strict=True))}
                table[combination] = tuple(
                    itertools.chain.from_iterable(names(shape, sample) for shape in called_with)
                )
            return grow(free, self._choices, table)

        return grafted(shapes, subtree)

    def _at_units(self, sample: Sample) -> tuple[Names, ...]:
        return tuple(follow(tree, sample) for tree in self.trees)

    def _different_networks(self) -> Iterator[Sample]:
        """Random samples, none with the blocks of another; ends when no new one is drawn for long."""
        generator = random.Random(0)
        seen: set[tuple[Names, ...]] = set()
        idle = 0
        while idle < _IDLE:
            sample = {label: generator.choice(values) for label, values in self._choices.items()}
            blocks = self._at_units(sample)
            idle += 1
            if blocks not in seen:
                idle = 0
                seen.add(blocks)
                yield sample

    def _tell_what_is_outside(self, reporter: Reporter) -> None:
        sample = next(self._different_networks())
        macs = self.networks.trace(sample).macs
        inside = sum(self.blocks[name].sizes.macs for name in self.blocks_of(sample))
        if inside < macs:
            reporter.note(
                f"{1 - inside / macs:.0%} of a network's multiply-accumulates are done in no module that is "
                "measured by itself, but where a forward puts modules together"
            )
