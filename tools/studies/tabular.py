"""Strategies under latency budgets on NAS-Bench-201, where every answer is known beforehand.

python tools/studies/tabular.py [--scale smoke|small|medium|large] [--work FOLDER] [--page PAGE]

For each of up to 19 device settings, budgets that 20, 40 and 60 % of the cells keep, each strategy and seed,
200 cells are asked, each evaluated by its validation accuracy after 12 epochs on CIFAR-10. The regret after
some evaluations is the test accuracy after 200 epochs that the answer lacks against the best cell within the
budget, in points. The answer is the best evaluated cell; of a strategy with a ranking of its own, also the
cell that it ranks first ("predictor, ranked"). The data has no validation accuracy after 200 epochs.

NNI's strategies go through the same budgets, if NNI is installed (``tabular_nni.py``).

Reads $LATHE_SHARED_DATA/nasbench201/nasbench201.npz. A latency below a fifth of the device's median is a
failed run, and its cell cannot be chosen. FOLDER/rows.jsonl gets a line for each search, and what it holds is
not searched again, whatever the scale; delete it when strategies have changed. FOLDER/summary-SCALE.json gets
the means with bootstrap intervals, and PAGE a page with tables and a plot beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import tabular_nni
from cell_space import OPERATIONS, CellSpace, TabledLatency
from tabular_page import write_page

from pipeline.search.base import RankingStrategy, Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.search.strategies.nsga2 import NSGA2Strategy
from pipeline.search.strategies.policy import PolicySettings, PolicyStrategy
from pipeline.search.strategies.predictor import PredictorStrategy
from pipeline.search.strategies.random_search import RandomStrategy

SHARED = Path(os.environ.get("LATHE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
PERCENTILES = (20, 40, 60)
CHECKPOINTS = (10, 25, 50, 75, 100, 125, 150, 175, 200)
RESAMPLES = 2000
STRATEGIES = {
    "random": RandomStrategy,
    "evolution": EvolutionStrategy,
    "nsga2": NSGA2Strategy,
    "reinforce": lambda constraints, seed: PolicyStrategy(
        constraints, seed, settings=PolicySettings(clip=None)
    ),
    "ppo": PolicyStrategy,
    "predictor": PredictorStrategy,
}
NNI_STRATEGIES = tabular_nni.strategies()
FEW_SEEDS = dict.fromkeys(NNI_STRATEGIES, 10) | {"nni-tpe": 3}
# Device settings and seeds. The four of the small scale are a GPU, a CPU, and two phones.
SCALES = {
    "smoke": (("pixel3", "2080ti_1"), 2),
    "small": (("2080ti_1", "gold_6240", "pixel3", "samsung_s7"), 10),
    "medium": (None, 10),
    "large": (None, 50),
}


class Benchmark:
    """Accuracies in points and latencies of all cells, in the order of ``Cell.number``."""

    def __init__(self) -> None:
        data = np.load(SHARED / "nasbench201" / "nasbench201.npz")
        numbers = data["arch_ops"].astype(int) @ len(OPERATIONS) ** np.arange(6)[::-1]
        order = np.argsort(numbers)
        if [str(name) for name in data["op_names"]] != list(OPERATIONS):
            raise SystemExit("the operations of nasbench201.npz are in another order")
        self.score = data["acc12_cifar10_val"][order]
        self.final = data["acc200_cifar10_test"][order]
        latencies = data["latency_ms"][order] * 1e6
        ran = latencies >= np.median(latencies, axis=0) / 5
        self.latencies_ns = np.where(ran, latencies, np.inf)
        self.devices = [str(name) for name in data["device"]]


class Task:
    """A device setting and a budget."""

    def __init__(self, benchmark: Benchmark, device: str, percentile: int) -> None:
        latencies = benchmark.latencies_ns[:, benchmark.devices.index(device)]
        limit_ns = float(np.percentile(latencies[np.isfinite(latencies)], percentile))
        self.constraints = Constraints(CellSpace(), {device: TabledLatency(latencies)}, {device: limit_ns})
        inside = np.flatnonzero(latencies <= limit_ns)
        self.best = float(benchmark.final[inside].max())
        # Of the cells of the highest score: what is lost when everything is evaluated.
        self.least_regret = self.best - float(benchmark.final[inside[benchmark.score[inside].argmax()]])
        self._score, self._final = benchmark.score.tolist(), benchmark.final.tolist()

    def search(self, name: str, seed: int) -> dict[str, list[float]]:
        """Regrets after each of ``CHECKPOINTS`` evaluations, by answer."""
        if name in NNI_STRATEGIES:
            return {
                "evaluated": self.regrets(
                    tabular_nni.asked(self, NNI_STRATEGIES[name](seed), CHECKPOINTS[-1])
                )
            }
        strategy = STRATEGIES[name](self.constraints, seed)
        ranks = isinstance(strategy, RankingStrategy)
        asked, ranked = [], []
        for evaluation in range(1, CHECKPOINTS[-1] + 1):
            asked.append(strategy.ask())
            strategy.tell(asked[-1], self.evaluate(asked[-1]))
            if ranks and evaluation in CHECKPOINTS:
                ranked.append(self.regret(strategy.ranking(asked)[0]))
        regrets = {"evaluated": self.regrets(asked)}
        return regrets | ({"ranked": ranked} if ranks else {})

    def evaluate(self, architecture) -> Score:
        return Score(self._score[architecture.number])

    def regret(self, architecture) -> float:
        return round(self.best - self._final[architecture.number], 6)

    def regrets(self, asked) -> list[float]:
        """Of the best evaluated of what was asked, after each of ``CHECKPOINTS``."""
        best = (max(asked[:count], key=lambda each: self._score[each.number]) for count in CHECKPOINTS)
        return list(map(self.regret, best))


def read_rows(path: Path) -> dict[tuple, dict[str, list[float]]]:
    """Regrets of earlier searches by answer; a last line that was cut off is removed."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if complete != content:
        os.truncate(path, len(complete))
    rows = map(json.loads, complete.splitlines())
    return {(r["device"], r["percentile"], r["strategy"], r["seed"]): r["regrets"] for r in rows}


def study(scale: str, folder: Path) -> dict:
    """Search what is not yet in the rows, and summarise."""
    benchmark = Benchmark()
    names, seeds = SCALES[scale]
    devices = names or tuple(benchmark.devices)
    searches = [
        (name, seed)
        for name in (*STRATEGIES, *NNI_STRATEGIES)
        for seed in range(min(seeds, FEW_SEEDS.get(name, seeds)))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.jsonl"
    rows = read_rows(path)
    least = []
    with path.open("a") as stream:
        for device, percentile in itertools.product(devices, PERCENTILES):
            task = Task(benchmark, device, percentile)
            least.append(task.least_regret)
            began = time.perf_counter()
            for name, seed in searches:
                key = (device, percentile, name, seed)
                if key not in rows:
                    rows[key] = task.search(name, seed)
                    row = dict(zip(("device", "percentile", "strategy", "seed"), key, strict=True))
                    stream.write(json.dumps(row | {"regrets": rows[key]}) + "\n")
                    stream.flush()
            print(f"{device} {percentile} %: {time.perf_counter() - began:.1f} s", file=sys.stderr)
    regrets = {}
    for name, group in itertools.groupby(searches, key=lambda search: search[0]):
        own = [seed for _, seed in group]
        for answer in rows[devices[0], PERCENTILES[0], name, 0]:
            label = name if answer == "evaluated" else f"{name}, {answer}"
            regrets[label] = np.array(
                [[[rows[d, p, name, seed][answer] for seed in own] for p in PERCENTILES] for d in devices]
            )
    return {
        "scale": scale,
        "devices": list(devices),
        "percentiles": list(PERCENTILES),
        "seeds": seeds,
        "few_seeds": FEW_SEEDS,
        "evaluations": list(CHECKPOINTS),
        "regret_when_all_are_evaluated": float(np.mean(least)),
        "strategies": {label: summary(values, regrets["random"]) for label, values in regrets.items()},
    }


def summary(regrets: np.ndarray, baseline: np.ndarray) -> dict:
    """Means with 95 % intervals, also of the difference to the baseline on the same task and seed.

    Devices and seeds are resampled, the three budgets of a device together.

    Args:
        regrets: shape (n_devices, n_budgets, n_seeds, n_checkpoints).
        baseline: likewise, with at least as many seeds.
    """
    return {
        "regret": interval(regrets),
        "less_than_random": interval(baseline[:, :, : regrets.shape[2]] - regrets),
    }


def interval(values: np.ndarray) -> dict[str, list[float]]:
    generator = np.random.default_rng(0)
    devices, _, seeds, _ = values.shape
    by_budget = values.mean(axis=1)
    means = [
        by_budget[generator.integers(devices, size=devices)][:, generator.integers(seeds, size=seeds)].mean(
            axis=(0, 1)
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    mean = values.mean(axis=(0, 1, 2))
    return {
        "mean": mean.round(4).tolist(),
        "low": low.round(4).tolist(),
        "high": high.round(4).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="smoke")
    parser.add_argument("--work", type=Path, default=Path("lathe-work/tabular"))
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    result = study(arguments.scale, arguments.work)
    text = json.dumps(result, indent=1)
    (arguments.work / f"summary-{arguments.scale}.json").write_text(text + "\n")
    print(text)
    if arguments.page:
        write_page(result, arguments.page)


if __name__ == "__main__":
    main()
