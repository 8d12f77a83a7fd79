"""What ratings of untrained networks are worth on NAS-Bench-201, where all accuracies are known.

python tools/studies/raters.py [--cells 1000] [--seed 1] [--work FOLDER] [--page PAGE]

Connected cells are drawn, each a network of its own, and rated by each of Lathe's untrained evaluators, with
the benchmark's skeleton at one cell a stage, images of CIFAR-10 (JPEG), and as teacher a ResNet-56 as others
trained it. The truth is the test accuracy after 200 epochs. Kendall's tau is told over all cells, and as the
mean over five bands of equal multiply-accumulates: what costs more is more accurate in this space, and a
rating that knows nothing else is of no use within a budget.

Fusions: the sum of ranks, and a Gaussian process as the predictor has it, that knows validation accuracies
after 12 epochs of a tenth of the cells and predicts the others.

Reads $LATHE_SHARED_DATA. FOLDER/rows.jsonl gets a line for each cell, and a study that was ended goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from cell_networks import CellNetworks, is_connected, live
from raters_page import write_page
from safetensors.torch import load_file
from scipy.stats import kendalltau, rankdata
from tabular import SHARED, Benchmark

from pipeline.data.base import Dataset
from pipeline.data.config import DataConfig
from pipeline.data.loading import load
from pipeline.distill.settings import DistillationSettings
from pipeline.search.evaluators.registry import EvaluationTask, find_evaluator
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.search.strategies.base import trust_in
from pipeline.search.strategies.gaussian_process import (
    GaussianProcess,
    better_shape,
    initial_shape,
    normal_scores,
)
from pipeline.teachers.resnet import resnet_cifar

RATINGS = ("naswot", "synflow", "relation", "readout")
BANDS, RESAMPLES = 5, 200
TRUTHS = {
    "cifar10": "acc200_cifar10_test",
    "cifar100": "acc200_cifar100_test",
    "imagenet16": "acc200_imagenet16_120_test",
}


def cells(count: int, seed: int) -> list:
    """Different connected networks, in a random order."""
    found, generator, space = {}, random.Random(seed), CellNetworks()
    while len(found) < count:
        cell = space.sample(generator)
        if is_connected(cell):
            found.setdefault(live(cell), cell)
    return list(found.values())


def dataset() -> Dataset:
    path = SHARED / "cifar10_jpeg" / "cifar10_jpeg_bytes.npz"
    return load(DataConfig(kind="npz", path=path, train_limit=2000, test_limit=100), seed=0)


def teacher() -> torch.nn.Module:
    network = resnet_cifar(depth=56)
    weights = load_file(SHARED / "teachers_cifar10" / "resnet56.safetensors")
    network.load_state_dict(weights, strict=False)
    return network.eval().requires_grad_(False)


def rated(count: int, seed: int, path: Path) -> list[dict]:
    """A row for each cell: its number, ratings and their seconds."""
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    known, network = {row["cell"] for row in rows}, teacher()
    task = EvaluationTask(
        CellNetworks(),
        dataset(),
        DistillationSettings(epochs=1),
        0,
        lambda: network,
        lambda: None,
        SupernetSettings(),
        dict,
    )
    evaluators = {name: find_evaluator(name).make(task) for name in RATINGS}
    with path.open("a") as stream:
        for place, cell in enumerate(cells(count, seed)):
            if cell.number in known:
                continue
            row = {"cell": cell.number, "ratings": {}, "seconds": {}}
            for name, evaluator in evaluators.items():
                began = time.process_time()
                row["ratings"][name] = evaluator.evaluate(cell).value
                row["seconds"][name] = round(time.process_time() - began, 4)
            rows.append(row)
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            if place % 50 == 49:
                print(f"{place + 1} cells", flush=True)
    wanted = {cell.number for cell in cells(count, seed)}
    return [row for row in rows if row["cell"] in wanted]


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


def summary(rows: list[dict], seed: int) -> dict:
    data, benchmark = np.load(SHARED / "nasbench201" / "nasbench201.npz"), Benchmark()
    order = np.argsort(data["arch_ops"].astype(int) @ 5 ** np.arange(6)[::-1])
    numbers = np.array([row["cell"] for row in rows])
    macs = data["macs_cifar10"][order][numbers]
    short = benchmark.score[numbers]
    ratings = {name: np.array([row["ratings"][name] for row in rows]) for name in RATINGS}
    raters = {"multiply-accumulates": macs, **ratings, "12 epochs": short}
    ranks = {name: rankdata(values) for name, values in raters.items()}
    raters["sum of ranks, untrained"] = sum(ranks[name] for name in RATINGS)
    raters["sum of ranks, with 12 epochs"] = raters["sum of ranks, untrained"] + ranks["12 epochs"]
    space, generator = CellNetworks(), np.random.default_rng(0)
    members = dict(enumerate(space.members()))
    codes = np.stack([space.encode(members[number]) for number in numbers]).astype(float)
    cost = np.log(macs)[:, None]
    standard = [normal_scores(values.tolist())[:, None] for values in ratings.values()]
    known = generator.permutation(len(rows))[: max(20, len(rows) // 10)]
    raters["process, decisions and cost"] = predicted([codes, cost], short, known)
    raters["process, with ratings"] = predicted([codes, cost, *standard], short, known, len(standard))
    result = {"cells": len(rows), "seed": seed, "known_to_the_process": len(known), "raters": {}}
    for name, values in raters.items():
        entry = {}
        for label, column in TRUTHS.items():
            truth = data[column][order][numbers]
            entry[label] = {"tau": with_interval(tau, values, truth)}
            entry[label]["in_bands"] = with_interval(in_bands, values, truth, macs)
        if name in RATINGS:
            entry["core_seconds"] = round(float(np.median([row["seconds"][name] for row in rows])), 3)
        result["raters"][name] = entry
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("lathe-work/raters"))
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = rated(arguments.cells, arguments.seed, arguments.work / "rows.jsonl")
    text = json.dumps(result := summary(rows, arguments.seed), indent=1)
    (arguments.work / "summary.json").write_text(text + "\n")
    print(text)
    if arguments.page:
        write_page(result, arguments.page)


if __name__ == "__main__":
    main()
