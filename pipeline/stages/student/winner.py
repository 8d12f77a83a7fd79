"""The student that is shipped, and the candidates that were tried before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.spaces.base import Architecture, Cost
from pipeline.stages.latency.targets import BoundTarget
from pipeline.stages.student.compile import Compiled
from pipeline.stages.student.distil import Distilled
from pipeline.stages.student.export import Exported
from pipeline.stages.student.quantise import Quantised
from pipeline.stages.student.verify import Verified
from pipeline.work.canonical import StoredFile


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
        quantised: for the targets in int8; ``None`` where there are none.
        size: parameters and multiply-accumulates.
        rejected: candidates tried before it that exceeded a budget.
        passed_over: candidates preferred to it that could not be measured, also when repeated.
    """

    distilled: Distilled
    exported: Exported
    quantised: Quantised | None
    compiled: Mapping[str, Compiled]
    verified: Verified
    size: Cost
    rejected: tuple[Failure, ...]
    passed_over: tuple[Failure, ...] = ()

    def quantised_words(self, target: str) -> str:
        """Accuracies in float and in int8 on the validation slice; empty for a target in float."""
        if self.quantised is None or target not in self.quantised.figures:
            return ""
        return self.quantised.words(target)

    def portable(self, target: BoundTarget) -> StoredFile:
        """The exported student, in float, of which the target's artifact was made."""
        models = self.exported.students
        if target.is_int8 and self.quantised is not None:
            models = self.quantised.models
        return models[target.format.in_float]
