"""An NNI model space as choices and the blocks that they make."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import numpy as np
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor

from latency_db.calibration import order
from latency_db.table import BlockTraits
from pipeline.integrations.nni.networks import Networks, UnitBlock
from pipeline.integrations.nni.survey import survey
from pipeline.integrations.nni.trees import follow
from pipeline.integrations.nni.units import Sample, cut, mutables_of
from pipeline.progress import Reporter
from pipeline.spaces.base import Choice

_DRAWN, _POOL, _IDLE = 400, 300, 1000


class BlockSpace:
    """Which blocks the networks of a model space are made of.

    Args:
        space: as its author made it; it is not changed.
        inputs: a batch that it takes.
        reporter: told of progress: dozens of networks are run, once each, to see their blocks.

    Attributes:
        mutables: by label.
        trees: for each unit, the identities of its blocks as a function of the sample.
        blocks: by identity, each with the sample of a network that has it.
        networks: builds and runs them.

    Raises:
        NniError: the space has mutables or modules of a kind that cannot be measured by themselves.
    """

    def __init__(self, space: ModelSpace, inputs: Tensor, reporter: Reporter) -> None:
        self.mutables = mutables_of(space)
        units = cut(space)
        self.networks = Networks(space, units, inputs)
        self.blocks: dict[str, tuple[UnitBlock, Sample]] = {}
        self._outside = 0.0
        with reporter.task("finding the blocks of the model space", "networks") as advance:
            self.trees = tuple(survey(units, self._choices, self._look, advance))
        if self._outside:
            reporter.note(
                f"up to {self._outside:.0%} of a network's multiply-accumulates are done in no module that "
                "is measured by itself, but where a forward puts modules together"
            )

    def blocks_of(self, sample: Sample) -> list[str]:
        """Identities of the blocks of a sample's network, once for each time that they run."""
        return list(itertools.chain.from_iterable(self._at_units(sample)))

    def traits(self) -> dict[str, BlockTraits]:
        """Sizes of the blocks, by identity."""
        return {identity: block.traits for identity, (block, _) in self.blocks.items()}

    def calibration_plan(self) -> list[Sample]:
        """Different networks in the order in which they are measured; it depends on the space alone."""
        found = list(itertools.islice(self._different_networks(), _DRAWN + _POOL))
        traits = self.traits()
        features = []
        for sample in found:
            sizes = [traits[name] for name in self.blocks_of(sample)]
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

    @property
    def _choices(self) -> dict[str, list[Choice]]:
        return {label: list(mutable.values) for label, mutable in self.mutables.items()}

    def _at_units(self, sample: Sample) -> tuple[tuple[str, ...], ...]:
        return tuple(follow(tree, sample) for tree in self.trees)

    def _different_networks(self) -> Iterator[Sample]:
        """Random samples, none with the blocks of another; ends when no new one is drawn for long."""
        generator = random.Random(0)
        seen: set[tuple[tuple[str, ...], ...]] = set()
        idle = 0
        while idle < _IDLE:
            sample = {label: generator.choice(values) for label, values in self._choices.items()}
            blocks = self._at_units(sample)
            idle += 1
            if blocks not in seen:
                idle = 0
                seen.add(blocks)
                yield sample

    def _look(self, sample: Sample) -> list[tuple[str, ...]]:
        anatomy = self.networks.run(sample)
        blocks = list(itertools.chain.from_iterable(anatomy.blocks))
        for block in blocks:
            self.blocks.setdefault(block.identity, (block, sample))
        inside = math.fsum(block.traits.macs for block in blocks)
        if anatomy.macs:
            self._outside = max(self._outside, 1 - inside / anatomy.macs)
        return [tuple(block.identity for block in at_unit) for at_unit in anatomy.blocks]
