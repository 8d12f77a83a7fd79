"""What a run knows from its recipe and its targets; inputs of stages are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from devices.measurement import MeasuringProtocol
from devices.target import Target
from latency_db.store import Store
from pipeline.budget import Budget
from pipeline.export.base import format_of
from pipeline.progress import Reporter
from pipeline.recipe.loading import Recipe
from pipeline.search.evaluated_before import EvaluatedBefore
from pipeline.search.evaluators.workers import parse_pool
from pipeline.stages.latency.targets import BoundTarget, exporters_of
from pipeline.stages.searching.learning import MeasuredOn
from pipeline.stages.services import Services
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import Stage

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


@dataclass
class Context:
    """One run."""

    recipe: Recipe
    recipe_text: str
    work: WorkFolder
    store: Store
    reporter: Reporter

    def do(self, stage: Stage[I, Services, R], given: I) -> R:
        """The result of a stage, which is done if it was not; what there is to say of it is told.

        Raises:
            LatheError: as the stage does.
        """
        result = self.work.run(stage, given, self.services)
        for line in stage.tell(given, result):
            self.reporter.note(line)
        return result

    def forget(self, stage: Stage[I, Services, R], given: I) -> None:
        """Let the next run do a stage again."""
        self.work.forget(stage, given)

    @cached_property
    def services(self) -> Services:
        """What never decides a result."""
        search = self.recipe.search
        pool, _ = parse_pool(search.executor, search.cpus, search.gpus)
        evaluated = EvaluatedBefore(self.work.path / "evaluated")
        workers = self.recipe.dna.workers
        return Services(self.store, self.reporter, self.work, workers, pool, evaluated=evaluated)

    @cached_property
    def targets(self) -> tuple[BoundTarget, ...]:
        """The targets with what stands behind their names, asked once per run.

        Raises:
            TargetError, MeasurementError: one of them cannot be served to the end, see ``BoundTarget.bind``.
        """
        for config in self.recipe.target:
            format_of(config.target())
        return tuple(BoundTarget.bind(target) for target in self._budgets)

    @property
    def budgets(self) -> dict[str, Budget]:
        """The budget of every target, by its name, in the recipe's order."""
        return {str(target): budget for target, budget in self._budgets.items()}

    @property
    def _budgets(self) -> dict[Target, Budget]:
        return {config.target(): config.limit() for config in self.recipe.target}

    @property
    def tries(self) -> int:
        """How many candidates of a round may be trained in full."""
        return max(self.recipe.verify.candidates, self.recipe.search.finalists)

    @property
    def protocol(self) -> MeasuringProtocol:
        """Protocol of block tables and of whole networks before verification."""
        return MeasuringProtocol(launches=self.recipe.measure.launches)

    @property
    def verification_protocol(self) -> MeasuringProtocol:
        """Protocol of verification: more launches, for a surer interval."""
        return MeasuringProtocol(launches=self.recipe.verify.launches)

    @property
    def where(self) -> MeasuredOn:
        """Where and how whole networks are measured."""
        return MeasuredOn(self.targets, self.protocol, exporters_of(self.targets))
