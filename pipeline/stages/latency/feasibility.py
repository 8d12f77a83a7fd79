"""Stage ``feasibility``: what the targets say of the space before anything is searched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devices.measurement import MeasuringProtocol
from latency_db.errors import EstimateError
from latency_db.models import NetworkModel
from latency_db.tables import LatencyTable
from pipeline.budget import Budget, allowing
from pipeline.errors import BudgetError
from pipeline.search.budgets.feasibility import Feasibility
from pipeline.spaces.base import Architecture
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.latency.targets import BoundTarget
from pipeline.stages.services import Services
from pipeline.tables.building.networks import MeasuredNetwork
from pipeline.tables.building.plan import block_names
from pipeline.tables.building.space_table import SpaceTable, fit_networks
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class FeasibilityInput:
    """The space with its tables, and the budgets on the targets, by name.

    Attributes:
        exporters: what exports networks, by target.
        teacher_ns: the teacher's latency by target, where a budget refers to it.
        networks: how many whole networks the models are fitted on.
    """

    plan: SpacePlan
    tables: Mapping[str, LatencyTable]
    targets: tuple[BoundTarget, ...]
    protocol: MeasuringProtocol
    exporters: Mapping[str, object]
    budgets: Mapping[str, Budget]
    teacher_ns: Mapping[str, float]
    networks: int


@dataclass(frozen=True)
class Feasible:
    """What the space can do on the targets.

    Attributes:
        models: network model per target; where the budget is relative, of networks against each other.
        limits_ns: of the budgets, per target.
        soft: targets whose budget is a wish only.
        reference: network to which relative budgets refer.
        certificate: fastest and slowest members; that all budgets can be kept which are not soft.
        calibration: networks that the models were fitted on.
    """

    models: Mapping[str, NetworkModel]
    limits_ns: Mapping[str, float]
    soft: frozenset[str]
    reference: Architecture
    certificate: Feasibility
    calibration: tuple[MeasuredNetwork, ...]

    @property
    def with_reference(self) -> frozenset[str]:
        """Targets on which the reference network was measured."""
        return frozenset(each.target for each in self.calibration if each.architecture == self.reference)

    @property
    def in_doubt(self) -> bool:
        """Whether a network is estimated within every budget, but its interval reaches beyond one."""
        found = self.certificate
        middles = zip(found.anchor_estimates, found.ranges, strict=True)
        return not found.reachable and all(
            estimate.value_ns <= each.limit_ns for estimate, each in middles if each.target not in self.soft
        )

    def require_reachable(self, budgets: Mapping[str, Budget]) -> None:
        """Refuse budgets that no member of the space keeps.

        Raises:
            BudgetError: names the nearest budgets.
        """
        try:
            self.certificate.require_reachable()
        except BudgetError as error:
            nearest = allowing(budgets, self.certificate.nearest_limits_ns, self.limits_ns)
            fix = f"allow {nearest}, or give the space smaller choices"
            raise BudgetError(error.what, why=error.why, fix=fix) from None

    def predictors(self, plan: SpacePlan, max_parameters: int | None = None) -> LatencyPredictors:
        """What a search of the space starts from."""
        return LatencyPredictors(
            plan, self.models, self.limits_ns, self.soft, self.calibration, max_parameters=max_parameters
        )


def _told(given: FeasibilityInput, value: Feasible) -> Sequence[str]:
    return [
        f"feasibility  {found.target}: fastest {found.fastest_estimate}, slowest {found.slowest_estimate}, "
        f"budget {given.budgets[found.target].words_with(value.limits_ns[found.target])}"
        for found in value.certificate.ranges
    ]


@stage("feasibility", tell=_told)
def check_feasibility(given: FeasibilityInput, folder: StageFolder, services: Services) -> Feasible:
    """Measure a few whole networks, fit the latency models, and compare the space with the budgets.

    Raises:
        EstimateError: too few of the networks have a latency, or the reference of a relative budget has none.
        BudgetError: no member of the space runs on every target.
    """
    space = given.plan.open(folder)
    reference = space.reference()
    tables = {each.target: given.tables[each.name] for each in given.targets}
    found = fit_networks(space, tables, services.bench(given.protocol), networks=given.networks)
    models = {
        str(target): each.model if given.budgets[str(target)].relative is None else each.model.with_level(0.0)
        for target, each in found.items()
    }
    limits, calibration = {}, list[MeasuredNetwork]()
    for target, each in found.items():
        name, budget = str(target), given.budgets[str(target)]
        reference_ns = given.teacher_ns.get(name) or _reference_ns(reference, budget, each)
        limits[name] = budget.limit_given(reference_ns)
        estimates = models[name].estimate([block_names(space, one.architecture) for one in each.networks])
        calibration += map(MeasuredNetwork.beside, each.networks, estimates)
    soft = frozenset(name for name, budget in given.budgets.items() if budget.soft)
    predictors = LatencyPredictors(given.plan, models, limits, soft, tuple(calibration))
    certificate = predictors.constraints.certificate
    return Feasible(models, limits, soft, reference, certificate, tuple(calibration))


def _reference_ns(reference: Architecture, budget: Budget, found: SpaceTable) -> float:
    """Latency of the reference network as fast as the machine was when the table was measured; what an
    absolute budget makes of it does not matter.
    """
    for network in found.networks:
        if network.architecture == reference:
            return found.corrected_ns(network)
    if budget.relative is None:
        return math.nan
    raise EstimateError(
        f"the reference network of the space has no latency on {found.table.target}",
        why="it could not be measured, or one of its blocks has no latency there",
        fix="run again to measure what is missing; if it stays so, give a budget in milliseconds",
    )
