"""Stage ``space``: the architectures among which the student is searched; with data and teacher, the task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.spaces.base import Architecture, Space
from pipeline.stages.context import Context
from pipeline.stages.inputs import Data, FrozenTeacher


@dataclass(frozen=True)
class SpaceSummary:
    """Size of the space, its distinct blocks, and the network to which relative budgets refer."""

    description: dict[str, Any]
    architectures: int
    distinct_blocks: int
    reference: Architecture


@dataclass(frozen=True)
class Task:
    """What is learned, from whom, and among which architectures."""

    data: Data
    teacher: FrozenTeacher
    space: Space


def describe_space(context: Context, space: Space) -> None:
    """Keep the size of the space, and tell it."""

    def compute(folder: Path) -> SpaceSummary:
        return SpaceSummary(space.description, space.count(), len(space.distinct_blocks()), space.reference())

    summary = context.work.stage("space", space.description, SpaceSummary, compute)
    context.reporter.note(
        f"space        {summary.architectures:,} architectures from {summary.distinct_blocks} distinct blocks"
    )
