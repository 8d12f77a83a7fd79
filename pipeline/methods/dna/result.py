"""What DNA finds: scores of every path of every block, and the architectures selected by them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.spaces.base import Architecture
from pipeline.spaces.dna.space import DnaSpace


@dataclass(frozen=True)
class CellScores:
    """Scores of all paths of one cell, smaller is better, the last layer's operation changing fastest."""

    cell: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class BlockScores:
    """Scores of one block.

    Attributes:
        sigma: standard deviation of the teacher's features at the end of the block, over the score images.
        training_losses: mean squared error by epoch, averaged over steps and cells.
        cells: in the order of the space.
    """

    sigma: float
    training_losses: tuple[float, ...]
    cells: tuple[CellScores, ...]


@dataclass(frozen=True)
class EvaluatedArchitecture:
    """An architecture with what it is expected to lose and to cost.

    Attributes:
        architecture: of the space.
        loss: sum of the scores of its blocks, smaller is better.
        block_losses: the score of each block.
        costs: upper end of the latency in ns by target, ``macs`` and ``parameters``.
    """

    architecture: Architecture
    loss: float
    block_losses: tuple[float, ...]
    costs: dict[str, float]


@dataclass(frozen=True)
class DnaResult:
    """The outcome of a run.

    Attributes:
        scores: one per block.
        selected: architectures within all limits, the smallest loss first; empty if there is none.
        nearest: where ``selected`` is empty, the architecture whose largest ratio of a cost to its limit is
            smallest.
        exact: whether it is proved that nothing better is missing.
    """

    scores: tuple[BlockScores, ...]
    selected: tuple[EvaluatedArchitecture, ...]
    nearest: EvaluatedArchitecture | None
    exact: bool


def block_losses(
    space: DnaSpace, scores: tuple[BlockScores, ...], architecture: Architecture
) -> tuple[float, ...]:
    """The score of each block of any architecture of the space; their sum is the architecture's loss."""
    losses = []
    for block, (evaluated, choice) in enumerate(zip(scores, space.block_choices(architecture), strict=True)):
        operations = space.operations(block)
        path = [operations.index(operation) for operation in choice.operations]
        values = evaluated.cells[space.config.blocks[block].cells.index(choice.cell)].values
        losses.append(values[np.ravel_multi_index(path, [len(operations)] * len(path))])
    return tuple(losses)
