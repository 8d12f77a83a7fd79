"""The figures of AKD's study: effects with paired intervals, agreements of rankings, distances of choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from pipeline.spaces.base import Architecture

RESAMPLES = 4000

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


def summarise(
    chosen: Mapping[str, Sequence[Architecture]],
    tested: Mapping[str, Mapping[str, Sequence[float]]],
    evaluators: Mapping[str, Sequence[float]],
    full: Mapping[str, Sequence[float]],
) -> dict:
    """All figures, as JSON; every interval is a 95 % bootstrap percentile interval.

    Args:
        chosen: by whom, the network of each seed.
        tested: by whom it was chosen and by which signal trained, test accuracy of each seed in points.
        evaluators: what says something of the pool's networks beforehand.
        full: test accuracy of the pool's networks after full training, the first teacher's twice.
    """
    points = {by: {signal: np.array(each) for signal, each in row.items()} for by, row in tested.items()}
    return {
        "accuracy": {
            by: {
                signal: interval(lambda seeds, e=each: e[seeds].mean(), len(each))
                for signal, each in row.items()
            }
            for by, row in points.items()
        },
        "effects": effects(points),
        "rankings": rankings(evaluators, {name: np.array(each) for name, each in full.items()}),
        "distances": distances(chosen),
        "tested": {by: {signal: list(each) for signal, each in row.items()} for by, row in tested.items()},
        "pool": {name: list(each) for name, each in full.items()},
    }


def effects(points: Mapping[str, Mapping[str, Floats]]) -> dict:
    """Differences in points, of the same seeds."""
    (a, b), (c, d) = ((points[by]["labels"], points[by]["first"]) for by in ("labels", "first"))
    differences = {
        "chosen by the teacher, not by labels": (c + d - a - b) / 2,
        "trained by the teacher, not by labels": (b + d - a - c) / 2,
        "chosen by the teacher, trained by the teacher": d - b,
        "chosen by the teacher, trained by labels": c - a,
        "interaction": (d - b) - (c - a),
        "against random search": d - points["random"]["first"],
        "against most multiply-accumulates": d - points["macs"]["first"],
        "against most parameters": d - points["parameters"]["first"],
        "its own teacher, not the other": (
            d - points["second"]["first"] + points["second"]["second"] - points["first"]["second"]
        ) / 2,
    }  # fmt: skip
    return {
        name: interval(lambda seeds, e=each: e[seeds].mean(), len(each)) for name, each in differences.items()
    }


def rankings(evaluators: Mapping[str, Sequence[float]], full: Mapping[str, Floats]) -> dict:
    """Kendall's tau over the pool, against trainings that share no seed with what they are compared with."""
    count = len(full["labels"])
    sides = {
        "labels": full["labels"],
        "first": (full["first"] + full["first again"]) / 2,
    }

    def tau(one: Floats, other: Floats) -> Callable[[Integers], float]:
        return lambda rows: kendall(one[rows], other[rows])

    retest = tau(full["first"], full["first again"])
    crossed = tau(full["labels"], full["first again"])
    return {
        "networks": count,
        "retest": interval(retest, count),
        "labels_against_teacher": interval(crossed, count),
        "retest_above_labels": interval(lambda rows: retest(rows) - crossed(rows), count),
        "evaluators": {
            name: {side: interval(tau(np.array(values), points), count) for side, points in sides.items()}
            for name, values in evaluators.items()
        },
    }


def distances(chosen: Mapping[str, Sequence[Architecture]]) -> dict:
    """Share of decisions in which two choices differ: of two signals, and of two seeds of one signal."""
    tables = {
        (one, other): np.array([[distance(x, y) for y in chosen[other]] for x in chosen[one]])
        for one, other in (("labels", "labels"), ("first", "first"), ("labels", "first"), ("first", "second"))
    }
    count = len(chosen["labels"])

    def paired(one: str, other: str) -> Callable[[Integers], float]:
        return lambda seeds: float(np.mean(tables[one, other][seeds, seeds]))

    def between_seeds(signal: str) -> Callable[[Integers], float]:
        def mean(seeds: Integers) -> float:
            different = np.not_equal.outer(seeds, seeds)
            table = tables[signal, signal][np.ix_(seeds, seeds)]
            return float(table[different].mean()) if different.any() else np.nan

        return mean

    labels_seeds, first_seeds = between_seeds("labels"), between_seeds("first")
    signals, teachers = paired("labels", "first"), paired("first", "second")
    return {
        "labels and teacher": interval(signals, count),
        "first and second teacher": interval(teachers, count),
        "two seeds of labels": interval(labels_seeds, count),
        "two seeds of the first teacher": interval(first_seeds, count),
        "signals above seeds": interval(
            lambda seeds: signals(seeds) - (labels_seeds(seeds) + first_seeds(seeds)) / 2, count
        ),
        "teachers above seeds": interval(lambda seeds: teachers(seeds) - first_seeds(seeds), count),
        "same choice": int(sum(x == y for x, y in zip(chosen["labels"], chosen["first"], strict=True))),
    }


def distance(one: Architecture, other: Architecture) -> float:
    return float(np.mean([a != b for a, b in zip(one.choices, other.choices, strict=True)]))


def kendall(one: Floats, other: Floats) -> float:
    """Tau-b; undefined where either side is constant."""
    return float(kendalltau(one, other).statistic)


def interval(statistic: Callable[[Integers], float], count: int) -> dict[str, float | None]:
    """The statistic over all ``count`` units, and the interval over draws of as many with replacement.

    Draws for which it is undefined are left out; an undefined figure is null.
    """
    generator = np.random.default_rng(0)
    drawn = np.array([statistic(generator.integers(count, size=count)) for _ in range(RESAMPLES)])
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, (0.025, 0.975)) if len(drawn) else (np.nan, np.nan)
    figures = {"value": float(statistic(np.arange(count))), "low": float(low), "high": float(high)}
    return {name: round(value, 4) if np.isfinite(value) else None for name, value in figures.items()}
