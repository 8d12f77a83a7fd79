"""A run on a small space of which every block and network has a measurement in the database, all made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.measurement.conditions import Conditions
from devices.measurement.measurement import Launch, Measurement, Verdict
from devices.measuring.batch import probe
from devices.target import Target
from latency_db.store.store import open_store
from pipeline.export.base import block_workload, format_of, network_workload
from pipeline.progress import Task
from pipeline.recipe.loading import Recipe, parse_recipe
from pipeline.run.context import Context
from pipeline.search.base import Evaluator, Score
from pipeline.spaces.base import Architecture, Space
from pipeline.spaces.cost import block_cost
from pipeline.spaces.mobile.config import MobileSpaceConfig
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.latency.feasibility import FeasibilityInput, check_feasibility
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.searching.candidates import Round, Searched
from pipeline.stages.searching.search import SearchInput, search_candidates
from pipeline.stages.searching.strategy import StrategySettings
from pipeline.tables.building.space_table import measure_blocks
from pipeline.work.canonical import without_influence
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder

TARGET = Target("host", "onnxruntime")
PLAN: dict[str, Any] = {
    "stem_width": 8,
    "head_width": 16,
    "stages": [
        {"widths": [8, 12, 16], "depths": [1, 2, 3], "kernels": [3, 5], "expansions": [2, 3, 4]},
    ],
}
SPACE_PLAN = SpacePlan(MobileSpaceConfig.model_validate(PLAN), (1, 8, 8), 3)
SPACE = SPACE_PLAN.space
MEMBERS = tuple(SPACE.members())

Cost = Callable[[Architecture], float]


def block_ns(block: Any) -> float:
    return 5_000.0 + block_cost(block).macs


def network_ns(architecture: Architecture, space: Space = SPACE) -> float:
    """What blocks of a network cost together is a little less than what they cost alone."""
    return 0.8 * sum(map(block_ns, space.blocks(architecture))) + 2_000


def share_ns(share: float) -> float:
    """A latency that lies at ``share`` of the way from the fastest to the slowest network."""
    latencies = sorted(map(network_ns, MEMBERS))
    return latencies[0] + share * (latencies[-1] - latencies[0])


def recipe_of(budget: str, **search: Any) -> Recipe:
    return parse_recipe(
        {
            "name": "made-up",
            "data": {"kind": "digits"},
            "teacher": [{"kind": "train"}],
            "target": [{"name": str(TARGET), "budget": budget}],
            "search": {"evaluations": 12, "measure_every": 4, "ratings": [], **search},
        },
        Path(),
    )


class Quiet:
    """A reporter that keeps notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def task(self, what: str, unit: str) -> Iterator[Task]:
        yield Task(what, unit)


class ByMacs:
    """The larger, the better: so that a search goes to its limits; dies when it has evaluated ``lives``."""

    def __init__(self, lives: int | None = None) -> None:
        self.lives = lives
        self.evaluated: list[Architecture] = []

    def evaluate(self, architecture: Architecture) -> Score:
        if len(self.evaluated) == self.lives:
            raise KeyboardInterrupt
        self.evaluated.append(architecture)
        return Score(sum(block_cost(block).macs for block in SPACE.blocks(architecture)) / 1e7)


@dataclass(frozen=True)
class MadeUpEvaluation:
    """Hands out an evaluator of the tests; which one decides no score."""

    maker: ByMacs = without_influence()
    score: str = "number"

    def at(self, fidelity: float) -> MadeUpEvaluation:
        return self

    def evaluator(self, folder: StageFolder, level: int) -> Evaluator:
        return self.maker


def keep_everything(context: Context, space: Space, cost: Cost) -> None:
    """Store a measurement of every block and of every network."""
    protocol = context.protocol
    runtime, device = probe(TARGET)
    fmt = format_of(TARGET)

    def ran(latency_ns: float) -> Measurement:
        launch = Launch(1, 1, 1, (round(latency_ns),) * 20, None, Conditions(), Conditions())
        return Measurement(
            "ab" * 32, str(TARGET), runtime, device, protocol, (launch,) * 3, Verdict.VALID, (), "2025-01-01"
        )

    blocks = [(block_workload(block, fmt), block_ns(block)) for block in space.distinct_blocks()]
    networks = [(network_workload(space.description, each, fmt), cost(each)) for each in space.members()]
    context.store.add_all(
        (workload, runtime, device, protocol, ran(ns)) for workload, ns in [*blocks, *networks]
    )


@contextmanager
def made_up_context(
    folder: Path, recipe: Recipe, *, cost: Cost = network_ns, anew: bool = False
) -> Iterator[Context]:
    """A context whose database has everything, from an earlier call with the same folder if there was one."""
    new = not (folder / "latency.db").exists()
    with (
        WorkFolder(folder / "work", anew=anew).opened(recipe.model_dump(mode="json")) as work,
        open_store(str(folder / "latency.db")) as store,
    ):
        context = Context(recipe, "", work, store, Quiet())
        if new:
            keep_everything(context, SPACE, cost)
        yield context


def predictors(context: Context, plan: SpacePlan = SPACE_PLAN) -> LatencyPredictors:
    """What the search of a context starts from."""
    where, recipe = context.where, context.recipe
    bench = context.services.bench(where.protocol)
    tables, _ = measure_blocks(plan.space, [each.target for each in where.targets], bench, networks=0)
    given = FeasibilityInput(
        plan,
        {str(target): table for target, table in tables.items()},
        where.targets,
        where.protocol,
        where.exporters,
        context.budgets,
        {},
        recipe.measure.calibration_networks,
    )
    feasible = context.do(check_feasibility, given)
    feasible.require_reachable(context.budgets)
    return feasible.predictors(plan)


def searched(context: Context, this: Round, evaluator: ByMacs | None = None) -> Searched:
    """A round of the recipe's search, with scores that are made up."""
    evaluation = MadeUpEvaluation(evaluator or ByMacs())
    strategy = StrategySettings.of(context.recipe)
    given = SearchInput(this, evaluation, strategy, 0, context.where, minutes=context.recipe.search.minutes)
    return context.do(search_candidates, given)
