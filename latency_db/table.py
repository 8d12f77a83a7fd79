"""The latency table of one target: every block's measured latency, or the reason why it cannot run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from devices.measurement import Measurement, MeasurementFailure, Outcome, Reason, Verdict
from devices.statistics import Interval
from devices.target import Target
from latency_db.errors import EstimateError


@dataclass(frozen=True)
class LatencyTable:
    """Blocks, by identity, with what was measured of them on ``target``.

    Attributes:
        rows: headline latency with its interval over launches, of every block that ran.
        failed: why a block could not run, for every block that did not.
    """

    target: Target
    rows: Mapping[str, Interval]
    failed: Mapping[str, Reason]

    @classmethod
    def of(cls, target: Target, outcomes: Mapping[str, Outcome]) -> Self:
        """Build the table from one outcome per block identity.

        Raises:
            EstimateError: a measurement is invalid, so nothing is known about its block.
        """
        invalid = {
            block: outcome
            for block, outcome in outcomes.items()
            if isinstance(outcome, Measurement) and outcome.verdict is Verdict.INVALID
        }
        if invalid:
            block, outcome = next(iter(invalid.items()))
            raise EstimateError(
                f"{len(invalid)} of {len(outcomes)} blocks have no valid measurement on {target}",
                why=f"{block}: " + "; ".join(reason.detail for reason in outcome.reasons),
                fix="leave the device to the measurement alone and run again: only these are measured again",
            )
        return cls(
            target,
            {block: o.latency for block, o in outcomes.items() if isinstance(o, Measurement)},
            {block: o.reason for block, o in outcomes.items() if isinstance(o, MeasurementFailure)},
        )

    def latency_ns(self, block: str) -> float:
        """Headline latency of a block; infinite if it cannot run on the target.

        Raises:
            EstimateError: the block was never measured.
        """
        if block in self.failed:
            return math.inf
        self.require([block])
        return self.rows[block].value_ns

    def require(self, blocks: Iterable[str]) -> None:
        """Check that each block was measured, or is known not to run.

        Raises:
            EstimateError: lists the blocks that were not.
        """
        missing = sorted(set(blocks) - self.rows.keys() - self.failed.keys())
        if missing:
            raise EstimateError(
                f"the latency table of {self.target} lacks {len(missing)} blocks",
                why=f"not measured: {', '.join(missing)}",
                fix="build the table again from all blocks of the space: only these are measured",
            )
