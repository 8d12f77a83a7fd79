"""The latency table of one target: every block's measured latency, or the reason why it cannot run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, Self

from devices.measurement import (
    DeviceIdentity,
    Interval,
    Measurement,
    MeasurementFailure,
    MeasuringProtocol,
    Outcome,
    Reason,
    RuntimeIdentity,
    Verdict,
)
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.store.keys import kind_of_device


@dataclass(frozen=True)
class TableKey:
    """What a table, and every estimate made from it, is bound to; the device's instance is left out."""

    runtime: RuntimeIdentity
    device: Mapping[str, Any]
    protocol: MeasuringProtocol

    @classmethod
    def of(cls, runtime: RuntimeIdentity, device: DeviceIdentity, protocol: MeasuringProtocol) -> Self:
        """The key of measurements with this runtime on this kind of device by this protocol."""
        return cls(runtime, kind_of_device(device), protocol)

    def differences(self, other: TableKey) -> list[str]:
        """What differs, as ``runtime version: 1.20.0, not 1.21.0``: this key's first."""
        found = []
        for part in ("runtime", "device", "protocol"):
            ours, theirs = _contents(getattr(self, part)), _contents(getattr(other, part))
            found += [
                f"{part} {name}: {ours.get(name)!s}, not {theirs.get(name)!s}"
                for name in sorted(ours.keys() | theirs.keys())
                if ours.get(name) != theirs.get(name)
            ]
        return found


@dataclass(frozen=True)
class BlockTraits:
    """Sizes of a block; 0 where one is not known.

    Attributes:
        boundary_bytes: of its input and output: measured alone, a block reorders or copies them other than
            inside a network.
        weight_bytes: of its weights: measured alone, a block finds them in the caches.
        macs: multiply-accumulates; what a model is compared with, and networks are chosen by.
    """

    boundary_bytes: int = 0
    weight_bytes: int = 0
    macs: int = 0


@dataclass(frozen=True)
class LatencyTable:
    """Blocks, by identity, with what was measured of them on ``target``.

    Attributes:
        rows: headline latency with its interval over launches, of every block that ran.
        failed: why a block could not run, for every block that did not.
        traits: sizes of the blocks, as far as they are known.
        key: under which all rows were measured; ``None`` where nothing ran.
        canaries_ns: how fast the machine was when a block was measured (``Measurement.canary_ns``), where
            known.
    """

    target: Target
    rows: Mapping[str, Interval]
    failed: Mapping[str, Reason]
    traits: Mapping[str, BlockTraits] = field(default_factory=dict)
    key: TableKey | None = None
    canaries_ns: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        target: Target,
        outcomes: Mapping[str, Outcome],
        traits: Mapping[str, BlockTraits] | None = None,
    ) -> Self:
        """Build the table from one outcome per block identity.

        Raises:
            EstimateError: a measurement is invalid, so nothing is known about its block; or two were made
                with different runtimes, kinds of device or protocols.
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
        ran = {block: o for block, o in outcomes.items() if isinstance(o, Measurement)}
        key: TableKey | None = None
        for measurement in ran.values():
            its_key = TableKey.of(measurement.runtime, measurement.device, measurement.protocol)
            if key is not None and its_key != key:
                raise EstimateError(
                    f"the rows of the table of {target} were not measured under one key",
                    why="; ".join(key.differences(its_key)),
                    fix="build the table again, and change nothing on the device meanwhile",
                )
            key = its_key
        return cls(
            target,
            {block: measurement.latency for block, measurement in ran.items()},
            {block: o.reason for block, o in outcomes.items() if isinstance(o, MeasurementFailure)},
            traits or {},
            key,
            {block: pace for block, m in ran.items() if (pace := m.canary_ns) is not None},
        )

    @cached_property
    def canary_ns(self) -> float | None:
        """The table's own pace, the median of its blocks'; ``None`` where none is known."""
        return median(self.canaries_ns.values()) if self.canaries_ns else None

    def slowdown(self, canary_ns: float | None) -> float:
        """A pace over the table's: what to divide by to bring a latency to it; 1 where either is not known.

        Machines run a few per cent faster or slower for minutes at a time, and the canary with them.
        """
        return 1.0 if canary_ns is None or self.canary_ns is None else canary_ns / self.canary_ns

    def require_key(self, key: TableKey) -> None:
        """Check that the table says something of this runtime, device and protocol.

        Raises:
            EstimateError: it was measured under another key; every difference is named.
        """
        if self.key is not None and self.key != key:
            raise EstimateError(
                f"the latency table of {self.target} does not hold for what is asked",
                why="it was measured with " + "; ".join(self.key.differences(key)),
                fix="build a table for it: latencies are not carried over from one to the other",
            )

    def latency_ns(self, block: str) -> float:
        """Headline latency of a block, corrected to the table's canary; infinite if it cannot run there.

        Raises:
            EstimateError: the block was never measured.
        """
        if block in self.failed:
            return math.inf
        self.require([block])
        return self.rows[block].value_ns / self.slowdown(self.canaries_ns.get(block))

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


def _contents(part: Any) -> Mapping[str, Any]:
    return part if isinstance(part, Mapping) else asdict(part)
