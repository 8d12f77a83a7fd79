"""What ratings of networks that nobody trained are worth on NAS-Bench-201, where all accuracies are known.

python tools/studies/raters.py [--cells 1000] [--seed 1] [--ratings FILE] [--page PAGE]

FILE is what cell_ratings.py made: by default the one in docs/results/raters. So many of the networks that are
rated there are drawn, without those that were looked at before. The truth is the test accuracy after 200
epochs. Kendall's tau is told over all of them, as the mean over five bands of equal multiply-accumulates, and
as the mean over such bands of equal latency on the 19 device settings: what costs more is more accurate in
this space, and a rating that knows nothing else is of no use within a budget.

Fusions: sums of ranks, and a Gaussian process as the predictor has it, that knows validation accuracies
after 12 epochs of a tenth of all networks that are rated, and predicts the others.

Reads $LATHE_SHARED_DATA.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
from cell_networks import CellNetworks, live
from cell_ratings import STORED, random_order, representatives
from raters_page import ALL, FUSED, FUSION, KINDS, LIMIT, PROCESS, UNTRAINED, write_page
from scipy.stats import kendalltau, rankdata
from tabular import SHARED, Benchmark

from pipeline.search.strategies.base import trust_in
from pipeline.search.strategies.gaussian_process import (
    GaussianProcess,
    better_shape,
    initial_shape,
    normal_scores,
)

SUPERNETS = ("blockwise", "one-shot")
BANDS, RESAMPLES = 5, 200
LOOKED_AT = 1_176
"""The first networks of ``random_order``: an earlier version of the page, and the choice of ``KINDS``."""
TRUTHS = {
    "cifar10": "acc200_cifar10_test",
    "cifar100": "acc200_cifar100_test",
    "imagenet16": "acc200_imagenet16_120_test",
}


def tuned_on(count: int = 250, seed: int = 0) -> list:
    """The connected networks on which ratings and fusion were tuned."""
    found, generator, space = {}, random.Random(seed), CellNetworks()
    while len(found) < count:
        cell = space.sample(generator)
        found.setdefault(live(cell), cell)
    return list(found.values())


def rated(ratings: dict[str, np.ndarray]) -> np.ndarray:
    """Numbers of the different networks that have all ratings but such as failed."""
    # The supernets' ratings never fail.
    complete = np.isfinite(ratings["blockwise"]) & np.isfinite(ratings["relation"])
    return np.flatnonzero(complete & (representatives() == np.arange(len(complete))))


def drawn(networks: np.ndarray, count: int, seed: int) -> np.ndarray:
    """So many of them, on which nothing was tuned."""
    own = representatives()
    looked_at = {int(own[cell.number]) for cell in tuned_on()} | set(random_order()[:LOOKED_AT])
    left = [number for number in networks.tolist() if number not in looked_at]
    if len(left) < count:
        raise SystemExit(
            f"{len(left)} networks are rated: ask for at most as many, or run cell_ratings.py on"
        )
    return np.random.default_rng(seed).permutation(left)[:count]


def stored(path: Path) -> tuple[dict[str, np.ndarray], dict[str, tuple[float, float]]]:
    """Ratings of all cells by name, in the order of ``Cell.number``; seconds of a cell, and of training."""
    with np.load(path) as data:
        names = [str(name) for name in data["names"]]
        costs = zip(data["seconds_per_cell"].tolist(), data["seconds_of_training"].tolist(), strict=True)
        return dict(zip(names, data["ratings"].T.astype(float), strict=True)), dict(
            zip(names, costs, strict=True)
        )


def tau(values: np.ndarray, truth: np.ndarray) -> float:
    return float(kendalltau(values, truth).statistic)


def in_bands(values: np.ndarray, truth: np.ndarray, cost: np.ndarray) -> float:
    """Mean of tau over bands of equal cost."""
    bands = np.array_split(np.argsort(cost, kind="stable"), BANDS)
    return float(np.mean([tau(values[band], truth[band]) for band in bands]))


def with_interval(statistic, *columns: np.ndarray) -> dict[str, float]:
    """The statistic, with a bootstrap interval over cells."""
    generator = np.random.default_rng(0)
    drawn = [
        statistic(*(column[chosen] for column in columns))
        for chosen in (generator.integers(len(columns[0]), size=len(columns[0])) for _ in range(RESAMPLES))
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"value": round(statistic(*columns), 4), "low": round(low, 4), "high": round(high, 4)}


def predicted(
    groups: list[np.ndarray], scores: np.ndarray, known: np.ndarray, ratings: int = 0
) -> np.ndarray:
    """What the predictor promises of all cells when it knows the scores of some.

    Args:
        groups: features of all cells, the last ``ratings`` of them ratings.
        scores: of all cells.
        known: places of those whose score is known.
        ratings: how many.
    """
    mine = [group[known] for group in groups]
    values = normal_scores(scores[known].tolist())
    shape = better_shape(mine, values, initial_shape(len(groups)))
    means, _ = GaussianProcess(mine, values, shape).predict(groups)
    columns = [group[:, 0] for group in groups[len(groups) - ratings :]]
    return means + sum(trust_in(column[known], scores[known].tolist()) * column for column in columns)


def summary(path: Path, count: int, seed: int) -> dict:
    data, benchmark = np.load(SHARED / "nasbench201" / "nasbench201.npz"), Benchmark()
    order = np.argsort(data["arch_ops"].astype(int) @ 5 ** np.arange(6)[::-1])
    of_all, costs = stored(path)
    networks = rated(of_all)
    numbers = drawn(networks, count, seed)
    places = np.searchsorted(networks, numbers)
    all_macs = data["macs_cifar10"][order][networks]
    macs, latencies = all_macs[places], benchmark.latencies_ns[numbers]
    short = benchmark.score[networks]
    # A rating that failed counts as the middle, as in a search.
    ratings = {
        name: np.where(np.isfinite(values[networks]), values[networks], np.nanmedian(values[networks]))
        for name, values in of_all.items()
    }
    of_drawn = {name: values[places] for name, values in ratings.items()}
    raters = {"multiply-accumulates": macs, **of_drawn, "12 epochs": short[places]}
    ranks = {name: rankdata(values) for name, values in raters.items()}
    raters[UNTRAINED] = sum(ranks[name] for name in FUSED if name not in SUPERNETS)
    raters[ALL] = sum(ranks[name] for name in FUSED)
    raters[FUSION] = sum(ranks[name] for name in KINDS)
    raters[LIMIT] = raters[FUSION] + ranks["12 epochs"]
    members = list(CellNetworks().members())
    codes = np.stack([CellNetworks().encode(members[number]) for number in networks]).astype(float)
    cost = np.log(all_macs)[:, None]
    standard = [normal_scores(ratings[name].tolist())[:, None] for name in FUSED]
    known = np.random.default_rng(0).permutation(len(networks))[: len(networks) // 10]
    raters["process, decisions and cost"] = predicted([codes, cost], short, known)[places]
    raters[PROCESS] = predicted([codes, cost, *standard], short, known, len(standard))[places]
    result = {
        "cells": count,
        "seed": seed,
        "networks": len(networks),
        "known_to_the_process": len(known),
        "raters": {},
    }
    for name, values in raters.items():
        entry = {}
        for label, column in TRUTHS.items():
            truth = data[column][order][numbers]
            entry[label] = {"tau": with_interval(tau, values, truth)}
            entry[label]["in_bands"] = with_interval(in_bands, values, truth, macs)
            entry[label]["in_bands_of_latency"] = round(
                float(np.mean([in_bands(values, truth, latency) for latency in latencies.T])), 4
            )
        if name in costs:
            entry["core_seconds"], entry["core_seconds_of_training"] = (
                round(each, 3) for each in costs[name]
            )
        result["raters"][name] = entry
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ratings", type=Path, default=STORED)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(result := summary(arguments.ratings, arguments.cells, arguments.seed), indent=1))
    if arguments.page:
        write_page(result, arguments.page)


if __name__ == "__main__":
    main()
