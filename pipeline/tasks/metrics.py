"""The metrics of all tasks on arrays; the text of these functions is put into the inference scripts too.

Only numpy and the language of Python 3.9 are used.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def names_the_class(logits: Any, labels: Any) -> Any:
    """``(N,)``, whether the largest of the outputs ``(N, K)`` is that of the label ``(N,)``."""
    return logits.argmax(axis=1) == labels


def mean_average_precision(scores: Any, labels: Any) -> float:
    """The mean over labels of the average precision; labels that no image has are left out.

    The average precision is the sum over thresholds of the precision times the gain in recall; images of
    equal scores pass a threshold together.

    ``scores`` ``(N, K)``, larger where the label seems to fit; ``labels`` ``(N, K)`` of 0 and 1.
    """
    found = []
    for score, truth in zip(scores.T, labels.T):
        if not truth.any():
            continue
        order = np.argsort(-score, kind="stable")
        last_of_equals = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
        hits = np.cumsum(truth[order] > 0)[last_of_equals]
        gains = np.diff(np.concatenate([[0], hits])) / hits[-1]
        found.append(float((gains * hits / (last_of_equals + 1)).sum()))
    return float(np.mean(found)) if found else 0.0


def r_squared(values: Any, labels: Any) -> float:
    """The share of the labels' variance that the outputs explain, averaged over outputs; below 0 if they do
    worse than the mean.

    ``values`` and ``labels`` are ``(N, K)``; outputs whose labels are all equal are left out.
    """
    values, labels = values.astype(np.float64), labels.astype(np.float64)
    left = ((values - labels) ** 2).sum(axis=0)
    whole = ((labels - labels.mean(axis=0)) ** 2).sum(axis=0)
    varied = whole > 0
    return float((1 - left[varied] / whole[varied]).mean()) if varied.any() else 0.0


def nearest_is_alike(vectors: Any, labels: Any) -> Any:
    """``(N,)``: 1 if the most similar of the other images has the same label, by the cosine of the vectors
    ``(N, K)``; 0 if not; -1 if no other image has it."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(lengths, 1e-12)
    found = np.full(len(labels), -1)
    for start in range(0, len(labels), 256):
        rows = np.arange(start, min(start + 256, len(labels)))
        alike = unit[rows] @ unit.T
        alike[np.arange(len(rows)), rows] = -np.inf
        same = (labels[rows, None] == labels).sum(axis=1) > 1
        found[rows[same]] = labels[alike[same].argmax(axis=1)] == labels[rows[same]]
    return found
