"""From the latency model of block identities to one of architectures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from devices.words import count_of
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.models import NetworkModel
from pipeline.spaces.base import Architecture, Block, Space

_NAMED = 5


@dataclass(frozen=True)
class TableLatencyModel:
    """Predicts architectures of ``space`` by the blocks they are made of; an ``AdditiveLatencyModel``.

    ``network_model`` is over a table whose rows are named by ``Block.identity``.
    """

    space: Space
    network_model: NetworkModel
    _costs_ns: dict[Block, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    def estimate(self, architectures: Sequence[Architecture]) -> list[Estimate]:
        """One estimate per architecture, in order; infinite where a block cannot run on the target.

        Raises:
            EstimateError: a block was never measured; it names those of the space that were not.
        """
        fixed_ns = self.network_model.fixed_ns
        return [
            self.network_model.around(fixed_ns + math.fsum(map(self.block_cost_ns, self.space.blocks(each))))
            for each in architectures
        ]

    def block_cost_ns(self, block: Block) -> float:
        """What the block adds to a network's latency; infinite if it cannot run on the target.

        Raises:
            EstimateError: the block was never measured; it names those of the space that were not.
        """
        # Identities and table rows cost more than the rest of an estimate, and the same blocks come again.
        cost_ns = self._costs_ns.get(block)
        if cost_ns is None:
            if not self._knows(block):
                raise self._lacking(block)
            cost_ns = self._costs_ns[block] = self.network_model.block_cost_ns(block.identity)
        return cost_ns

    @property
    def upper_factor(self) -> float:
        """The upper end of every estimate divided by its value."""
        return self.network_model.upper_factor

    def _knows(self, block: Block) -> bool:
        return self.network_model.table.knows(block.identity)

    def _lacking(self, block: Block) -> EstimateError:
        of_space = itertools.filterfalse(self._knows, self.space.distinct_blocks())
        missing = list(dict.fromkeys([block, *of_space]))
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        target = self.network_model.table.target
        return EstimateError(
            f"the latency table of {target} lacks {count_of(len(missing), 'block')} of the space",
            why=f"not measured: {', '.join(map(str, missing[:_NAMED]))}{more}",
            fix="run lathe table build again for this space: only these are measured",
        )
