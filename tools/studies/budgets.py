"""Whether budgets hold: what was predicted, measured, and measured again, beside a plain sum of blocks.

python tools/studies/budgets.py [--scale smoke|small|large] [--work FOLDER] [--page docs/results/budgets.md]

On each of two targets, budgets from just above the fastest network of the default mobile space to just below
its slowest one. Under each, the run's own search looks for the network with the most multiply-accumulates:
nothing is trained, and a search that always wants more goes to its limits, which is the hardest case. Its
winner is exported untrained, compiled and measured, as in a run; if it breaks the budget the next candidate
is tried, and then another round. Beside it is the network that the same strategy finds under the plain sum
of its blocks' latencies, as Once-for-All (1908.09791) predicts. When all budgets are done, every winner is
measured once more.

FOLDER keeps the database and the artifacts. Its files winners-SCALE.jsonl and again-SCALE.jsonl get a line
for each budget and target, and what they hold is not done again; summary-SCALE.json gets the figures. --page
writes a page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from budgets_page import write_page

from devices.errors import LatheError, MeasurementError
from devices.measurement import Verdict
from devices.target import Target
from latency_db.models import NetworkModel
from latency_db.store import open_store
from pipeline.budget import Budget
from pipeline.compile import compile_artifact
from pipeline.errors import BudgetError, VerificationError
from pipeline.export.base import format_of
from pipeline.export.network import export_networks
from pipeline.progress import ConsoleReporter
from pipeline.recipe.loading import Recipe, parse_recipe
from pipeline.run.context import Context
from pipeline.run.missed_budgets import search_and_try
from pipeline.search.base import Score
from pipeline.search.loop import search
from pipeline.spaces.base import Architecture
from pipeline.spaces.cost import block_cost
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.latency.feasibility import FeasibilityInput, check_feasibility
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.searching.candidates import Round, Searched
from pipeline.stages.searching.search import SearchInput, search_candidates
from pipeline.stages.searching.strategy import StrategySettings, strategy_of
from pipeline.stages.student.winner import Failure
from pipeline.tables.building.space_table import measure_blocks
from pipeline.target_verdict import judge, measure_artifact
from pipeline.work.canonical import without_influence
from pipeline.work.disk import write_atomically
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder

TARGETS = ("host/onnxruntime:fp32@1", "host/litert:fp32@1")
# Side of the images, and budgets per target.
SCALES = {"smoke": (8, 1), "small": (8, 5), "large": (32, 20)}
SEARCH = {"evaluations": 80, "population": 16, "tournament": 4, "measure_every": 40}


class Rows:
    """JSON lines with a target and a limit each; a last one that was cut off is removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        content = path.read_bytes() if path.exists() else b""
        complete = content[: content.rfind(b"\n") + 1]
        if complete != content:
            write_atomically(path, complete)
        self.all = list(map(json.loads, complete.splitlines()))

    def add(self, row: dict) -> None:
        self.all.append(row)
        with self._path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")

    def get(self, target: str, number: int) -> dict | None:
        return next((r for r in self.all if (r["target"], r["number"]) == (target, number)), None)


class Bench:
    """One target: its table, and a context for each budget."""

    def __init__(self, target: str, side: int, folder: Path, store, work: WorkFolder) -> None:
        self.target, self.folder = Target.parse(target), folder
        shape = (3, side, side)
        self.plan = SpacePlan(MobileSpace.from_config(None, shape, 10).config, shape, 10)
        self.space = self.plan.space
        self._store, self._work = store, work
        self._side = side
        context = self.context(1e9)
        bench = context.services.bench(context.protocol)
        tables, _ = measure_blocks(self.space, [self.target], bench, networks=0)
        self.tables = {str(target): table for target, table in tables.items()}

    def context(self, limit_ns: float) -> Context:
        return Context(recipe(str(self.target), limit_ns), "", self._work, self._store, ConsoleReporter())

    def predictors(self, context: Context) -> LatencyPredictors:
        where, settings = context.where, context.recipe.measure
        given = FeasibilityInput(
            self.plan,
            self.tables,
            where.targets,
            where.protocol,
            where.exporters,
            context.budgets,
            {},
            settings.calibration_networks,
        )
        feasible = context.do(check_feasibility, given)
        feasible.require_reachable(context.budgets)
        return feasible.predictors(self.plan)

    def limits_ns(self, count: int) -> list[float]:
        """Spread evenly on a logarithmic scale."""
        found = self.predictors(self.context(1e9)).constraints.certificate.ranges[0]
        low, high = 1.05 * found.fastest_estimate.high_ns, 0.95 * found.slowest_estimate.value_ns
        return [low * (high / low) ** ((number + 0.5) / count) for number in range(count)]

    def macs(self, architecture: Architecture) -> int:
        return sum(block_cost(block).macs for block in self.space.blocks(architecture))

    def artifacts(self, architectures: list[Architecture]) -> dict[Architecture, Path]:
        """Untrained networks, exported together and compiled."""
        fmt, folder = format_of(self.target), self.folder / "artifacts" / self.target.runtime
        files = {each: folder / f"{self._side}-{each.identity[:16]}" for each in architectures}
        torch.manual_seed(0)
        missing = {
            file.with_suffix(fmt.suffix): self.space.build(each)
            for each, file in files.items()
            if not file.is_dir()
        }
        if missing:
            export_networks(missing, self.space.input_shape, fmt)
        return {
            each: compile_artifact(file.with_suffix(fmt.suffix), self.target, file).path
            for each, file in files.items()
        }

    def measured(self, context: Context, artifact: Path) -> dict:
        outcome, _ = measure_artifact(artifact, None, self.target, context.verification_protocol)
        if outcome.verdict is Verdict.INVALID:
            raise MeasurementError(
                f"{artifact.name} has no valid measurement on {self.target}",
                why="; ".join(reason.detail for reason in outcome.reasons),
                fix="leave the machine to the study alone and run it again: it goes on where it was",
            )
        kept, why = judge(context.budgets[str(self.target)], outcome, None, None)
        latency = outcome.latency
        return {"ms": latency.value_ns / 1e6, "upper_ms": latency.high_ns / 1e6, "kept": kept, "why": why}


class MostMacs:
    """Scores by size, as a share of the largest network's; a made-up stand-in for accuracy."""

    def __init__(self, bench: Bench) -> None:
        self._macs = bench.macs
        self._largest = bench.macs(bench.space.extreme(lambda block: block_cost(block).macs, largest=True))

    def evaluate(self, architecture: Architecture) -> Score:
        return Score(self._macs(architecture) / self._largest)


@dataclass(frozen=True)
class BySize:
    """Scores by size; the space, which is part of every round, says all of them."""

    bench: Bench = without_influence()
    score: str = "number"

    def evaluator(self, folder: StageFolder, level: int) -> MostMacs:
        return MostMacs(self.bench)


def recipe(target: str, limit_ns: float) -> Recipe:
    document = {
        "name": "budgets",
        "data": {"kind": "digits"},
        "teacher": [{"kind": "train"}],
        "target": [{"name": target, "budget": str(Budget(limit_ms=limit_ns / 1e6))}],
        "search": SEARCH,
    }
    return parse_recipe(document, Path())


def one_budget(bench: Bench, limit_ns: float, number: int) -> dict:
    """The winner under one budget, and the plain sum's beside it."""
    context, name = bench.context(limit_ns), str(bench.target)
    predictors = bench.predictors(context)
    plain, plain_model = plain_sum(bench, context, predictors, limit_ns)
    tried: list[dict] = []

    def attempt(searched: Searched) -> tuple[dict | None, list[Failure]]:
        failures = []
        candidates = list(searched.order[: context.tries])
        files = bench.artifacts([*candidates, *plain])
        for architecture in candidates:
            figures = bench.measured(context, files[architecture])
            candidate = next(c for c in searched.candidates if c.architecture == architecture)
            estimate = candidate.estimates[name]
            figures |= {
                "predicted_ms": estimate.value_ns / 1e6,
                "predicted_upper_ms": estimate.high_ns / 1e6,
                "macs": bench.macs(architecture),
                "artifact": str(files[architecture].relative_to(bench.folder)),
            }
            tried.append(figures)
            if figures["kept"]:
                return figures, failures
            share = figures["upper_ms"] * 1e6 / limit_ns
            failures.append(Failure(architecture, {name: share}, figures["why"]))
        return None, failures

    row = {"target": name, "number": number, "limit_ms": limit_ns / 1e6, "winner": None, "error": None}
    try:
        _, row["winner"] = search_and_try(
            context,
            predictors,
            search=partial(search_round, context, BySize(bench)),
            attempt=attempt,
        )
    except (BudgetError, VerificationError) as error:
        row["error"] = error.what
    row |= {"rejected": [each for each in tried if not each["kept"]], "plain_sum": None}
    for architecture, file in bench.artifacts(plain).items():
        row["plain_sum"] = bench.measured(context, file) | {
            "predicted_ms": plain_model.estimates(architecture)[name].value_ns / 1e6,
            "macs": bench.macs(architecture),
            "artifact": str(file.relative_to(bench.folder)),
        }
    return row


def search_round(context: Context, evaluation: BySize, this: Round) -> Searched:
    strategy = StrategySettings.of(context.recipe)
    return context.do(search_candidates, SearchInput(this, evaluation, strategy, 0, context.where))


def plain_sum(
    bench: Bench, context: Context, predictors: LatencyPredictors, limit_ns: float
) -> tuple[list[Architecture], LatencyPredictors]:
    """What the same strategy finds when a network is taken to cost what its blocks do alone: one, or none."""
    name = str(bench.target)
    model = NetworkModel(bench.tables[name], 1.0, 0.0, 0.0, 1.0, predictors.models[name].coverage, 0)
    plain = LatencyPredictors(bench.plan, {name: model}, predictors.limits_ns, frozenset(), ())
    file = f"{bench.target.runtime}-{bench.space.input_shape[1]}-{limit_ns:.0f}.jsonl"
    try:
        strategy = strategy_of(StrategySettings.of(context.recipe), plain, 1)
    except BudgetError:
        return [], plain
    found = search(strategy, MostMacs(bench), SEARCH["evaluations"], bench.folder / "plain" / file)
    return [max(found, key=lambda candidate: candidate.score.value).architecture], plain


def study(scale: str, folder: Path) -> dict:
    side, count = SCALES[scale]
    folder.mkdir(parents=True, exist_ok=True)
    winners, again = (Rows(folder / f"{name}-{scale}.jsonl") for name in ("winners", "again"))
    with open_store(str(folder / "latency.db")) as store, WorkFolder(folder / "work").opened() as work:
        benches = {target: Bench(target, side, folder, store, work) for target in TARGETS}
        limits = {target: bench.limits_ns(count) for target, bench in benches.items()}
        for target, number in every(count):
            if winners.get(target, number) is None:
                winners.add(one_budget(benches[target], limits[target][number], number))
                print(json.dumps(winners.all[-1]), file=sys.stderr)
        for target, number in every(count):
            if again.get(target, number) is None:
                row = winners.get(target, number)
                context = benches[target].context(row["limit_ms"] * 1e6)
                repeated = {"target": target, "number": number}
                for kind in ("winner", "plain_sum"):
                    file = row[kind] and folder / row[kind]["artifact"]
                    repeated[kind] = file and benches[target].measured(context, file)
                again.add(repeated)
    rows = [
        winners.get(target, number) | {"again": again.get(target, number)} for target, number in every(count)
    ]
    return {"scale": scale, "side": side, "targets": {t: figures(rows, t) for t in TARGETS}, "rows": rows}


def every(count: int) -> Iterator[tuple[str, int]]:
    return ((target, number) for target in TARGETS for number in range(count))


def figures(rows: list[dict], target: str) -> dict:
    """How many budgets were kept, by the winners and by the plain sum's networks."""
    here = [row for row in rows if row["target"] == target]
    return {
        "budgets": len(here),
        "budgets_with_rejected": sum(bool(row["rejected"]) for row in here),
        "mean_macs_over_plain_sum": mean(
            [
                row["winner"]["macs"] / row["plain_sum"]["macs"]
                for row in here
                if row["winner"] and row["plain_sum"]
            ]
        ),
        **{kind: kept([row for row in here if row[kind]], kind) for kind in ("winner", "plain_sum")},
    }


def kept(rows: list[dict], kind: str) -> dict:
    ratios = [row["again"][kind]["ms"] / row["limit_ms"] for row in rows]
    errors = [row[kind]["predicted_ms"] / row["again"][kind]["ms"] - 1 for row in rows]
    return {
        "networks": len(rows),
        "kept_when_measured": sum(row[kind]["kept"] for row in rows),
        "kept_when_measured_again": sum(row["again"][kind]["kept"] for row in rows),
        "within_by_value_again": sum(ratio <= 1 for ratio in ratios),
        "largest_share_of_limit_again": max(ratios, default=None),
        "mean_share_of_limit_again": mean(ratios),
        "mean_prediction_error": mean(errors),
        "worst_prediction_error": max(errors, key=abs) if errors else None,
    }


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="smoke")
    parser.add_argument("--work", type=Path, default=Path("lathe-work/budgets"))
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    try:
        result = study(arguments.scale, arguments.work)
    except LatheError as error:
        sys.exit(f"error: {error}")
    text = json.dumps(result, indent=1)
    (arguments.work / f"summary-{arguments.scale}.json").write_text(text + "\n")
    print(text)
    if arguments.page:
        write_page(result, arguments.page)


if __name__ == "__main__":
    main()
