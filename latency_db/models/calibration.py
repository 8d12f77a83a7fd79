"""Which whole networks to measure for a network model, some that tell most, some at random; and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

Floats = NDArray[np.float64]

INFORMATIVE_EVERY = 3
"""Each third network is chosen, the others are drawn: only those make the interval."""


def is_random(position: int) -> bool:
    """Whether the network at this position of a plan is one that was drawn."""
    return position % INFORMATIVE_EVERY != INFORMATIVE_EVERY - 1


def spread(blocks: Sequence[T], networks: Sequence[T]) -> list[T]:
    """All in one order, either as it was, with the networks evenly among the blocks.

    What is measured is measured in batches, minutes apart, between which a machine changes in ways that the
    canary does not tell in full. Networks of one batch agree too well with a model that is fitted on them;
    those of all batches differ from it as much as a network will that is measured in a batch to come.
    """
    placed = [
        ((index + 0.5) / len(some), each) for some in (blocks, networks) for index, each in enumerate(some)
    ]
    return [each for _, each in sorted(placed, key=lambda pair: pair[0])]


def order(features: Floats, drawn: int) -> list[int]:
    """Indices of candidates in the order in which they should be measured; a prefix of it is a good plan too.

    The first ``drawn`` candidates are the random ones, which keep their order. Between them stand, each time,
    those of the rest that most increase the determinant of the information matrix of what comes before
    (D-optimal design, greedily; Fedorov, "Theory of Optimal Experiments", 1972), for a linear model of the
    relative error in ``features``.

    Args:
        features: shape (n_candidates, n_features), positive sizes of networks, not their latencies: so the
            plan stays the same when something is measured again.
        drawn: how many candidates are the random ones.
    """
    scaled = features / np.maximum(features.mean(axis=0), 1e-300)
    # A relative error weighs a feature by the latency, for which the mean of the features stands.
    rows = np.column_stack([scaled, np.ones(len(scaled))]) / scaled.mean(axis=1, keepdims=True)
    inverse = np.eye(rows.shape[1]) * 1e3
    rest = np.arange(drawn, len(rows))
    plan: list[int] = []

    def take(index: int) -> None:
        nonlocal inverse
        row = rows[index]
        step = inverse @ row
        inverse = inverse - np.outer(step, step) / (1 + row @ step)
        plan.append(index)

    queue = list(range(drawn - 1, -1, -1))
    while queue or len(rest):
        if queue and (is_random(len(plan)) or not len(rest)):
            take(queue.pop())
        else:
            gains = np.einsum("ij,jk,ik->i", rows[rest], inverse, rows[rest])
            best = int(gains.argmax())
            take(int(rest[best]))
            rest = np.delete(rest, best)
    return plan
