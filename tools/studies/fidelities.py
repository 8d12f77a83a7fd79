"""A predictor that chooses between short and long trainings, on NAS-Bench-201.

python tools/studies/fidelities.py [--devices NAME,...] [--seeds N] [--work FOLDER] [--page PAGE]

A short training is that of 12 epochs on half of CIFAR-10, with its validation accuracy; a long one is that
of 200 epochs on all of it. The data has only the test accuracy of that, a mean over seeds, so the score of
a long training is the truth itself. For each device setting, budgets that 20, 40 and 60 % of the cells
keep, and seeds, each arm may spend as much as a few long trainings cost. Its answer is the cell that its
predictor ranks first; the regret is what that lacks against the best cell within the budget after a long
training.

Reads the data as tabular.py does. FOLDER/rows.jsonl gets a line for each task and seed, and what it holds is
not searched again; delete it when strategies have changed. FOLDER/costs.json keeps what trainings cost here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cell_costs import IMAGES, core_seconds
from tabular import PERCENTILES, Benchmark, Task, interval

from pipeline.search.base import Score
from pipeline.search.strategies.fidelities import FidelityPredictor
from pipeline.search.strategies.predictor import PredictorStrategy

LONG_IMAGES = 200 * 50_000
SHARE = IMAGES / LONG_IMAGES
"""Of the cost of a long training, that a short one takes."""
SPENT = (1, 2, 3, 4, 6)
"""Long trainings' worth, after which an arm is asked for its answer."""
DEVICES = ("2080ti_1", "silver_4114", "essential_ph_1", "samsung_s7")
ARMS = {
    "long": "long trainings alone",
    "short": "short trainings alone",
    "halves": "half on short trainings, then long ones of the best",
    "chosen": "the predictor chooses between both",
}


class Arms:
    """What each arm finds in a task: its regret, and what it trained, after each of ``SPENT``."""

    def __init__(self, benchmark: Benchmark, device: str, percentile: int, seed: int) -> None:
        self._task, self._seed = Task(benchmark, device, percentile), seed
        self._short, self._long = benchmark.score.tolist(), benchmark.final.tolist()

    def all(self) -> dict[str, Any]:
        """By arm: regrets, and at the same times the cells that were trained short and long."""
        short, asked = self.short()
        return {"long": self.long(), "short": short, "halves": self.halves(asked), "chosen": self.chosen()}

    def long(self) -> dict[str, Any]:
        strategy, asked = self._predictor(initial=max(2, SPENT[-1] // 3)), []
        found = _Found()
        for count in range(1, SPENT[-1] + 1):
            asked.append(strategy.ask())
            strategy.tell(asked[-1], Score(self._long[asked[-1].number]))
            if count in SPENT:
                found.add(self._regret(strategy.ranking(asked)[0]), [], asked)
        return vars(found)

    def short(self) -> tuple[dict[str, Any], dict[int, list]]:
        """Also, for ``halves``, what is ranked and known when all but its long trainings are spent."""
        strategy, asked, best, found = self._predictor(), [], {}, _Found()
        for count in range(1, int(SPENT[-1] / SHARE) + 1):
            asked.append(strategy.ask())
            strategy.tell(asked[-1], Score(self._short[asked[-1].number]))
            for spent in SPENT:
                if count == int((spent - spent // 2) / SHARE):
                    best[spent] = (strategy.ranking(asked), list(asked))
                if count == int(spent / SHARE):
                    found.add(self._regret(strategy.ranking(asked)[0]), asked, [])
        return vars(found), best

    def halves(self, best: dict[int, Any]) -> dict[str, Any]:
        found = _Found()
        for spent in SPENT:
            ranking, asked = best[spent]
            finalists = ranking[: spent // 2]
            answer = max(finalists or ranking[:1], key=lambda each: self._long[each.number])
            found.add(self._regret(answer), asked, finalists)
        return vars(found)

    def chosen(self) -> dict[str, Any]:
        strategy = FidelityPredictor(self._task.constraints, self._seed, fidelities=(SHARE, 1.0))
        found, asked, spent = _Found(), {SHARE: [], 1.0: []}, 0.0
        for limit in SPENT:
            while spent < limit - 1e-9:
                architecture = strategy.ask()
                fidelity = strategy.fidelity(architecture)
                scores = self._long if fidelity == 1 else self._short
                strategy.tell(architecture, Score(scores[architecture.number]))
                asked[fidelity].append(architecture)
                spent += fidelity
            found.add(self._regret(strategy.ranking(asked[SHARE])[0]), asked[SHARE], asked[1.0])
        return vars(found)

    def _predictor(self, **settings: int) -> PredictorStrategy:
        return PredictorStrategy(self._task.constraints, self._seed, **settings)

    def _regret(self, architecture) -> float:
        return self._task.regret(architecture)


class _Found:
    """What ``vars`` makes a row of."""

    def __init__(self) -> None:
        self.regrets: list[float] = []
        self.short: list[list[int]] = []
        self.long: list[list[int]] = []

    def add(self, regret: float, short, long) -> None:
        self.regrets.append(regret)
        self.short.append([each.number for each in short])
        self.long.append([each.number for each in long])


def rows(devices: tuple[str, ...], seeds: int, folder: Path) -> dict[tuple, dict[str, Any]]:
    """Search what is not yet in the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path, benchmark = folder / "rows.jsonl", Benchmark()
    lines = path.read_text().splitlines() if path.exists() else []
    found = {tuple(row["key"]): row["found"] for row in map(json.loads, lines)}
    for key in itertools.product(devices, PERCENTILES, range(seeds)):
        if key not in found:
            began = time.process_time()
            found[key] = Arms(benchmark, *key).all()
            with path.open("a") as stream:
                stream.write(json.dumps({"key": key, "found": found[key]}) + "\n")
            print(*key, f"{time.process_time() - began:.1f} s", file=sys.stderr)
    return found


def summary(devices: tuple[str, ...], seeds: int, folder: Path) -> dict[str, Any]:
    """Mean regrets with bootstrap intervals, and core-hours of trainings."""
    found = rows(devices, seeds, folder)
    short_s = core_seconds(Benchmark().macs, folder / "costs.json")

    def of_all(value) -> np.ndarray:
        return np.array(
            [[[value(found[d, p, s]) for s in range(seeds)] for p in PERCENTILES] for d in devices]
        )

    def hours(row: dict[str, Any]) -> list[float]:
        trained = zip(row["short"], row["long"], strict=True)
        return [(short_s[short].sum() + short_s[long].sum() / SHARE) / 3600 for short, long in trained]

    def of_arm(arm: str) -> dict[str, Any]:
        regrets = of_all(lambda row: row[arm]["regrets"])
        halves = of_all(lambda row: row["halves"]["regrets"])
        counts = of_all(lambda row: [len(long) for long in row[arm]["long"]])
        return {
            "regret": interval(regrets),
            "less_than_halves": interval(halves - regrets),
            "core_hours": of_all(lambda row: hours(row[arm])).mean(axis=(0, 1, 2)).round(1).tolist(),
            "long": counts.mean(axis=(0, 1, 2)).round(1).tolist(),
        }

    return {"devices": devices, "seeds": seeds, "arms": {arm: of_arm(arm) for arm in ARMS}}


def page(result: dict[str, Any]) -> Iterator[str]:
    """The lines of the page."""
    head = " | ".join(f"{spent} long" for spent in SPENT)
    yield "# Short and long trainings on NAS-Bench-201\n"
    chosen = f"--devices {','.join(result['devices'])} --seeds {result['seeds']}"
    command = f"python tools/studies/fidelities.py {chosen} --page docs/results/fidelities.md"
    yield f"`{command}` wrote this page.\n"
    yield _filled(
        f"""A search may look at many candidates after a short training, or at few after a long one, or choose
        ([`search.fidelities`](../methods/predictor.md#several-fidelities)). Here short is 12 epochs
        of half of CIFAR-10, and long 200 epochs of all of it, which take 33 times as long. The
        **regret** of an arm is the accuracy that its answer lacks after a long training against the
        best cell within the budget, in points. Its answer is the cell that its predictor ranks
        first; with half and half, it is the best of the cells that were trained long. No arm has
        ratings. Tasks: budgets that 20, 40 and 60 % of the cells keep on
        {", ".join(result["devices"])}, seeds for each: {result["seeds"]}. Means, with 95 % bootstrap
        intervals."""
    )
    yield "## Regret after the cost of so many long trainings\n"
    yield from _table(head, lambda arm: _with_intervals(arm["regret"]), result)
    yield "## Less regret than half and half, on the same task and seed\n"
    yield from _table(head, lambda arm: _with_intervals(arm["less_than_halves"]), result, skip="halves")
    yield "## Core-hours of trainings\n"
    yield _filled(
        """By multiply-accumulates, as `tools/studies/cell_costs.py` measured them on one core: a search
        counts all trainings of a fidelity alike, and these depend on the cells."""
    )
    yield from _table(head, lambda arm: [f"{each:.1f}" for each in arm["core_hours"]], result)
    yield "## Long trainings among them\n"
    yield from _table(head, lambda arm: [f"{each:g}" for each in arm["long"]], result)
    yield "## How to read it\n"
    yield _filled(
        """The score of a long training is the test accuracy that regret is measured by, a mean over seeds:
        the data has no other. So a long training tells the truth here, which favours every arm that has
        some. A real one is noisy. The strategies have their default settings; the first draws of
        long trainings alone are a third of them, as in a recipe. Of two formulas for the worth of a
        training, we took the better one on gold_6240 and pixel3, whose cells have the same
        accuracies."""
    )


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 118, break_on_hyphens=False) + "\n"


def _with_intervals(found: dict[str, list[float]]) -> list[str]:
    cells = zip(found["mean"], found["low"], found["high"], strict=True)
    return [f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in cells]


def _table(head: str, cells, result: dict[str, Any], skip: str = "") -> Iterator[str]:
    yield f"| arm | {head} |\n| --- |{' --- |' * len(SPENT)}"
    for arm, found in result["arms"].items():
        if arm != skip:
            yield f"| {ARMS[arm]} | {' | '.join(cells(found))} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--devices", default=",".join(DEVICES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("lathe-work/fidelities"))
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    result = summary(tuple(arguments.devices.split(",")), arguments.seeds, arguments.work)
    print(json.dumps(result, indent=1))
    if arguments.page:
        arguments.page.write_text("\n".join(page(result)))


if __name__ == "__main__":
    main()
