"""The student that is shipped, and the candidates that were tried before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.spaces.base import Architecture, Cost
from pipeline.stages.student.compile import Compiled
from pipeline.stages.student.distil import Distilled
from pipeline.stages.student.export import Exported
from pipeline.stages.student.verify import Verified


@dataclass(frozen=True)
class Failure:
    """A candidate that is not shipped: its artifact exceeded a budget, or could not be measured.

    Attributes:
        architecture: of the candidate.
        shares: upper end of the measured latency over the limit, per target that could be measured.
        why: one sentence.
    """

    architecture: Architecture
    shares: Mapping[str, float]
    why: str


@dataclass(frozen=True)
class Winner:
    """A student with everything that was made of it.

    Attributes:
        size: parameters and multiply-accumulates.
        rejected: candidates tried before it that exceeded a budget.
        passed_over: candidates preferred to it that could not be measured, also when repeated.
    """

    distilled: Distilled
    exported: Exported
    compiled: Mapping[str, Compiled]
    verified: Verified
    size: Cost
    rejected: tuple[Failure, ...]
    passed_over: tuple[Failure, ...] = ()
