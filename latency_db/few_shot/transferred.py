"""A target on which little was measured: what was, and estimates of everything else.

It is no latency table and cannot become one: a table holds measurements of every block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devices.measurement import Interval, Reason
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.tables.table import TableKey


@dataclass(frozen=True)
class TransferredModel:
    """Blocks and networks of a space on ``target``, from few measurements and other targets' tables.

    Blocks stand by their identities, each in at most one of ``measured``, ``estimated`` and ``failed``.

    Attributes:
        key: under which the measurements on the target were made.
        sources: the other targets.
        measured: headline latency of the blocks that were measured on the target.
        estimated: latency of blocks that were not.
        failed: why a block that was tried could not run.
        costs_ns: what a block adds to a network, for every block that is measured or estimated.
        fixed_ns: cost of a network without blocks.
        upper_factor: the interval of a network is ``value / upper_factor`` to ``value * upper_factor``.
        coverage: share of networks that the interval claims to hold.
        fitted_networks: number of networks measured on the target.
        canary_ns: how fast the machine is taken to be (``Measurement.canary_ns``); ``None`` if unknown.
        disturbed: the blocks among ``measured`` whose measurement was disturbed, so that its interval is wide
            or it is invalid.
    """

    target: Target
    key: TableKey
    sources: tuple[Target, ...]
    measured: Mapping[str, Interval]
    estimated: Mapping[str, Estimate]
    failed: Mapping[str, Reason]
    costs_ns: Mapping[str, float]
    fixed_ns: float
    upper_factor: float
    coverage: float
    fitted_networks: int
    canary_ns: float | None = None
    disturbed: tuple[str, ...] = ()

    def estimate(self, networks: Sequence[Sequence[str]]) -> list[Estimate]:
        """One estimate per network, each given by the identities of its blocks.

        It is infinite where a block was tried on the target and cannot run there.

        Raises:
            EstimateError: nothing is known of a block.
        """
        return [
            self.around(math.fsum(map(self.block_cost_ns, network)) + self.fixed_ns) for network in networks
        ]

    def around(self, value_ns: float) -> Estimate:
        """The estimate of a network whose value is ``value_ns``."""
        return Estimate(value_ns / self.upper_factor, value_ns, value_ns * self.upper_factor, self.coverage)

    def slowdown(self, canary_ns: float | None) -> float:
        """A canary over the model's, as ``LatencyTable.slowdown``; 1 where either is not known."""
        return 1.0 if canary_ns is None or self.canary_ns is None else canary_ns / self.canary_ns

    def block_cost_ns(self, block: str) -> float:
        """What a block adds to a network; infinite if it cannot run on the target.

        Raises:
            EstimateError: nothing is known of the block.
        """
        if block in self.failed:
            return math.inf
        if block not in self.costs_ns:
            raise EstimateError(
                f"nothing is known of the block {block} on {self.target}",
                why="it ran on none of the targets that were transferred from, and was not measured",
                fix="name a source on which it runs, or run 'lathe table build' for the target",
            )
        return self.costs_ns[block]
