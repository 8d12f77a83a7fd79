"""Strategies under latency budgets on NAS-Bench-201, where every answer is known beforehand.

python tools/studies/tabular.py [--scale smoke|small|medium|large] [--work FOLDER] [--page PAGE]

For each of up to 19 device settings, budgets that 20, 40 and 60 % of the cells keep, each strategy and seed,
200 cells are asked, each evaluated by its validation accuracy after 12 epochs on CIFAR-10. The regret after
some evaluations is the test accuracy after 200 epochs that the answer lacks against the best cell within the
budget, in points. The answer is the best evaluated cell; of a strategy with a ranking of its own, also the
cell that it ranks first ("predictor, ranked"). The data has no validation accuracy after 200 epochs.
"rated" is the predictor with the four ratings of untrained networks that cell_ratings.py made.

Costs are core-seconds: of short trainings as cell_costs.py measures them on this machine, of ratings as they
were measured when they were made, and of the strategy itself.

NNI's strategies go through the same budgets, if NNI is installed (``tabular_nni.py``).

Reads $LATHE_SHARED_DATA/nasbench201/nasbench201.npz. A latency below a fifth of the device's median is a
failed run, and its cell cannot be chosen. FOLDER/rows.jsonl gets a line for each search, and what it holds is
not searched again, whatever the scale; delete it when strategies have changed. FOLDER/costs.json keeps what
trainings cost. FOLDER/summary-SCALE.json gets the means with bootstrap intervals, and PAGE a page with tables
and a plot beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tabular_nni
from cell_costs import IMAGES, core_seconds
from cell_space import OPERATIONS, CellSpace, TabledLatency
from tabular_page import write_page

from pipeline.search.base import RankingStrategy, Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.evaluators.registry import find_evaluator
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.search.strategies.nsga2 import NSGA2Strategy
from pipeline.search.strategies.policy import PolicySettings, PolicyStrategy
from pipeline.search.strategies.predictor import PredictorStrategy
from pipeline.search.strategies.random_search import RandomStrategy

SHARED = Path(os.environ.get("LATHE_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
PERCENTILES = (20, 40, 60)
RATINGS = Path(__file__).parents[2] / "docs" / "results" / "raters" / "ratings.npz"
UNTRAINED = ("naswot", "synflow", "relation", "readout")
CHECKPOINTS = (1, 2, 3, 5, 7, 10, 15, 20, 25, 35, 50, 75, 100, 125, 150, 175, 200)
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
RATED = "rated"
RATED_AT_ONCE = IMAGES // 4 // sum(find_evaluator(name).images for name in UNTRAINED)
"""Before each short training, as in a recipe (docs/methods/ratings.md)."""
NNI_STRATEGIES = tabular_nni.strategies()
FEW_SEEDS = dict.fromkeys(NNI_STRATEGIES, 10) | {"nni-tpe": 3, "predictor": 4, RATED: 4}
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
        self.macs = data["macs_cifar10"][order].astype(float)
        with np.load(RATINGS) as rated:
            names = [str(name) for name in rated["names"]]
            columns = [names.index(name) for name in UNTRAINED]
            self.ratings = rated["ratings"][:, columns].astype(float)
            self.rating_s = float(rated["seconds_per_cell"][columns].sum())


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
        self._ratings = benchmark.ratings.tolist()

    def search(self, name: str, seed: int) -> dict[str, Any]:
        """Regrets after each of ``CHECKPOINTS`` evaluations by answer, and what was done until then."""
        if name in NNI_STRATEGIES:
            asked = tabular_nni.asked(self, NNI_STRATEGIES[name](seed), CHECKPOINTS[-1])
            return self.found(asked, {"evaluated": self.regrets(asked)})
        looked_at: dict[int, list[float]] = {}
        if name == RATED:
            strategy = PredictorStrategy(
                self.constraints,
                seed,
                ratings=lambda each: looked_at.setdefault(each.number, self._ratings[each.number]),
                rated=RATED_AT_ONCE,
            )
        else:
            strategy = STRATEGIES[name](self.constraints, seed)
        ranks = isinstance(strategy, RankingStrategy)
        asked, ranked, rated, own_s = [], [], [], []
        began = time.process_time()
        for evaluation in range(1, CHECKPOINTS[-1] + 1):
            asked.append(strategy.ask())
            strategy.tell(asked[-1], self.evaluate(asked[-1]))
            if evaluation in CHECKPOINTS:
                rated.append(len(looked_at))
                if ranks:
                    ranked.append(self.regret(strategy.ranking(asked)[0]))
                own_s.append(round(time.process_time() - began, 3))
        regrets = {"evaluated": self.regrets(asked)} | ({"ranked": ranked} if ranks else {})
        return self.found(asked, regrets, rated, own_s)

    def found(self, asked, regrets, rated=(), own_s=()) -> dict[str, Any]:
        """A row: cells by number, in the order in which they were asked; ratings and own core-seconds."""
        numbers = [each.number for each in asked]
        return {"regrets": regrets, "asked": numbers, "rated": list(rated), "own_s": list(own_s)}

    def evaluate(self, architecture) -> Score:
        return Score(self._score[architecture.number])

    def regret(self, architecture) -> float:
        return round(self.best - self._final[architecture.number], 6)

    def regrets(self, asked) -> list[float]:
        """Of the best evaluated of what was asked, after each of ``CHECKPOINTS``."""
        best = (max(asked[:count], key=lambda each: self._score[each.number]) for count in CHECKPOINTS)
        return list(map(self.regret, best))


def read_rows(path: Path) -> dict[tuple, dict[str, Any]]:
    """What earlier searches found; a last line that was cut off is removed."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    if complete != content:
        os.truncate(path, len(complete))
    rows = map(json.loads, complete.splitlines())
    return {(r.pop("device"), r.pop("percentile"), r.pop("strategy"), r.pop("seed")): r for r in rows}


def study(scale: str, folder: Path) -> dict:
    """Search what is not yet in the rows, and summarise."""
    benchmark = Benchmark()
    names, seeds = SCALES[scale]
    devices = names or tuple(benchmark.devices)
    strategies = (*STRATEGIES, RATED, *NNI_STRATEGIES)
    of = {name: range(min(seeds, FEW_SEEDS.get(name, seeds))) for name in strategies}
    searches = [(each, seed) for each in strategies for seed in of[each]]
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
                    stream.write(json.dumps(row | rows[key]) + "\n")
                    stream.flush()
            print(f"{device} {percentile} %: {time.perf_counter() - began:.1f} s", file=sys.stderr)
    training_s = core_seconds(benchmark.macs, folder / "costs.json")

    def of_all(name: str, value: Callable[[dict], Sequence[float]]) -> np.ndarray:
        return np.array(
            [[[value(rows[d, p, name, seed]) for seed in of[name]] for p in PERCENTILES] for d in devices]
        )

    def cost(row: dict) -> np.ndarray:
        trained = np.cumsum(training_s[row["asked"]])
        at = np.minimum(CHECKPOINTS, len(trained)) - 1
        others = np.zeros(len(CHECKPOINTS)) if not row["own_s"] else np.array(row["own_s"])
        return trained[at] + others + benchmark.rating_s * np.array(row["rated"] or 0)

    regrets, costs = {}, {}
    for name in strategies:
        for answer in rows[devices[0], PERCENTILES[0], name, 0]["regrets"]:
            label = name if answer == "evaluated" else f"{name}, {answer}"
            regrets[label] = of_all(name, lambda row, answer=answer: row["regrets"][answer])
            costs[label] = of_all(name, cost).mean(axis=(0, 1, 2)).round(1).tolist()
    return {
        "scale": scale,
        "devices": list(devices),
        "percentiles": list(PERCENTILES),
        "seeds": {name: len(own) for name, own in of.items()},
        "evaluations": list(CHECKPOINTS),
        "regret_when_all_are_evaluated": float(np.mean(least)),
        "strategies": {
            label: summary(values, regrets["random"]) | {"core_seconds": costs[label]}
            for label, values in regrets.items()
        },
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
