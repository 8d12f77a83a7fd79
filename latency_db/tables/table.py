"""The latency table of one target: what was measured of each block, or why it cannot run."""

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
class BlockSizes:
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
        failed: why a block cannot run, for every block that cannot.
        sizes: of the blocks, as far as they are known.
        key: under which all rows were measured; ``None`` where nothing ran.
        canaries_ns: how fast the machine was when a block was measured (``Measurement.canary_ns``), where
            known.
        disturbed: the blocks among ``rows`` whose measurement was disturbed, so that its interval is wide or
            it is invalid.
        missing: why a block has no latency, although it may have one another time: a timeout, a device that
            went away. Nothing is known of these blocks, and of networks that hold them.
    """

    target: Target
    rows: Mapping[str, Interval]
    failed: Mapping[str, Reason]
    sizes: Mapping[str, BlockSizes] = field(default_factory=dict)
    key: TableKey | None = None
    canaries_ns: Mapping[str, float] = field(default_factory=dict)
    disturbed: tuple[str, ...] = ()
    missing: Mapping[str, Reason] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        target: Target,
        outcomes: Mapping[str, Outcome],
        sizes: Mapping[str, BlockSizes] | None = None,
    ) -> Self:
        """Build the table from one outcome per block identity.

        Raises:
            EstimateError: two measurements were made with different runtimes, kinds of device or protocols.
        """
        ran = {block: o for block, o in outcomes.items() if isinstance(o, Measurement)}
        failures = {block: o for block, o in outcomes.items() if isinstance(o, MeasurementFailure)}
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
            {block: failure.reason for block, failure in failures.items() if not failure.passing},
            sizes or {},
            key,
            {block: canary_ns for block, m in ran.items() if (canary_ns := m.canary_ns) is not None},
            tuple(sorted(block for block, m in ran.items() if not m.sharp)),
            {block: failure.reason for block, failure in failures.items() if failure.passing},
        )

    @cached_property
    def canary_ns(self) -> float | None:
        """The median canary of the blocks' measurements; ``None`` where none is known."""
        return median(self.canaries_ns.values()) if self.canaries_ns else None

    def slowdown(self, canary_ns: float | None) -> float:
        """A canary over the table's: what to divide by to correct a latency for drift; 1 if one is unknown.

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

    def knows(self, block: str) -> bool:
        """Whether the block was measured, cannot run, or is known to be missing."""
        return block in self.rows or block in self.failed or block in self.missing

    def latency_ns(self, block: str) -> float:
        """Headline latency of a block, corrected for drift; infinite if it cannot run there or is missing.

        Raises:
            EstimateError: the table is not of a space with this block.
        """
        self.require([block])
        row = self.rows.get(block)
        return math.inf if row is None else row.value_ns / self.slowdown(self.canaries_ns.get(block))

    def require(self, blocks: Iterable[str]) -> None:
        """Check that the table knows each of these blocks.

        Raises:
            EstimateError: it was made for other blocks.
        """
        unknown = [block for block in dict.fromkeys(blocks) if not self.knows(block)]
        if unknown:
            raise EstimateError(
                f"the latency table of {self.target} lacks {len(unknown)} of the blocks that are asked for",
                why=f"it was made of {len(self.rows) + len(self.failed)} other blocks",
                fix="build the table again from all blocks of the space: only these are measured",
            )


def _contents(part: Any) -> Mapping[str, Any]:
    return part if isinstance(part, Mapping) else asdict(part)
