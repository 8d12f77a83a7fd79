"""What a target can be asked for: declared by its runtime, asked before anything long begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

__all__ = ["NO_ENERGY", "STARTS_KERNELS", "YES", "Capabilities", "Support"]


@dataclass(frozen=True)
class Support:
    """Whether something can be had of a target.

    Attributes:
        possible: it can.
        note: why not; or under which condition.
    """

    possible: bool
    note: str = ""

    def __bool__(self) -> bool:
        return self.possible


YES = Support(True)
STARTS_KERNELS = Support(False, "the profiler times how long it takes to start a kernel, not its run")
NO_ENERGY = Support(False, "no runtime reads an energy counter")


@dataclass(frozen=True)
class Capabilities:
    """What can be had of a target, besides its identity.

    Attributes:
        time: latencies of whole inferences.
        operations: the time of each operation.
        inputs: shapes and values that are given, and those that were used.
        outputs: outputs for given inputs, so that accuracy is taken on the target itself.
        sustained: a run without pause, for heat to show.
        energy: energy per inference.
    """

    time: Support = YES
    operations: Support = YES
    inputs: Support = YES
    outputs: Support = YES
    sustained: Support = YES
    energy: Support = NO_ENERGY

    def __iter__(self) -> Iterator[tuple[str, Support]]:
        """Name and support of each."""
        for each in fields(self):
            yield each.name, getattr(self, each.name)
