"""From the latency model of block identities to one of architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from latency_db.estimate import Estimate
from latency_db.network_model import NetworkModel
from pipeline.spaces.base import Architecture, Block, Space


@dataclass(frozen=True)
class TableLatencyModel:
    """Predicts architectures of ``space`` by the blocks they are made of; an ``AdditiveLatencyModel``.

    ``network_model`` is over a table whose rows are named by ``Block.identity``.
    """

    space: Space
    network_model: NetworkModel
    _identities: dict[Block, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def estimate(self, architectures: Sequence[Architecture]) -> list[Estimate]:
        """One estimate per architecture, in order; infinite where a block cannot run on the target.

        Raises:
            EstimateError: a block was never measured.
        """
        return self.network_model.estimate(
            [list(map(self._identity, self.space.blocks(architecture))) for architecture in architectures]
        )

    def block_cost_ns(self, block: Block) -> float:
        """What the block adds to a network's latency; infinite if it cannot run on the target.

        Raises:
            EstimateError: the block was never measured.
        """
        return self.network_model.block_cost_ns(self._identity(block))

    @property
    def upper_factor(self) -> float:
        """The upper end of every estimate divided by its value."""
        return self.network_model.upper_factor

    def _identity(self, block: Block) -> str:
        # A digest costs more than the rest of an estimate, and the same blocks come again and again.
        if block not in self._identities:
            self._identities[block] = block.identity
        return self._identities[block]
