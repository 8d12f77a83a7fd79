"""Stage ``feasibility``: what the targets say of the space before anything is searched."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devices.measurement import Measurement, MeasurementFailure, MeasuringProtocol, Outcome, Verdict
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.models import MIN_NETWORKS, NetworkModel
from latency_db.tables import LatencyTable
from pipeline.budget import Budget, allowing
from pipeline.errors import BudgetError
from pipeline.search.budgets.feasibility import Feasibility
from pipeline.spaces.base import Architecture, Space
from pipeline.stages.measuring import Workbench
from pipeline.stages.networks import MeasuredNetwork, SeenNetwork, measure_networks
from pipeline.stages.predictors import LatencyPredictors, block_identities, fit_model
from pipeline.stages.services import Services
from pipeline.stages.space import SpacePlan
from pipeline.stages.targets import BoundTarget
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class FeasibilityInput:
    """The space with its tables, and the budgets on the targets, by name.

    Attributes:
        exporters: what exports networks, by target.
        teacher_ns: the teacher's latency by target, where a budget refers to it.
        networks: how many are drawn and measured, besides reference and extremes.
        seed: of the draw.
    """

    plan: SpacePlan
    tables: Mapping[str, LatencyTable]
    targets: tuple[BoundTarget, ...]
    protocol: MeasuringProtocol
    exporters: Mapping[str, object]
    budgets: Mapping[str, Budget]
    teacher_ns: Mapping[str, float]
    networks: int
    seed: int


@dataclass(frozen=True)
class Feasible:
    """What the space can do on the targets.

    Attributes:
        models: network model per target.
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

    def predictors(self, plan: SpacePlan) -> LatencyPredictors:
        """What a search of the space starts from."""
        return LatencyPredictors(plan, self.models, self.limits_ns, self.soft, self.calibration)


def _told(given: FeasibilityInput, value: Feasible) -> Sequence[str]:
    return [
        f"feasibility  {found.target}: fastest {found.fastest_estimate}, slowest {found.slowest_estimate}, "
        f"budget {given.budgets[found.target].words}: {value.limits_ns[found.target] / 1e6:.4f} ms"
        for found in value.certificate.ranges
    ]


@stage("feasibility", tell=_told)
def check_feasibility(given: FeasibilityInput, folder: StageFolder, services: Services) -> Feasible:
    """Measure a few whole networks, fit the latency models, and compare the space with the budgets.

    Raises:
        EstimateError: too few of the networks have a valid measurement.
        BudgetError: no member of the space runs on every target.
    """
    space, bench = given.plan.space, Workbench(services, given.protocol)
    targets = [each.target for each in given.targets]
    reference = space.reference()
    chosen = _chosen_networks(space, given.tables, reference)
    networks = chosen + _drawn_networks(given, chosen)
    models, limits, calibration = {}, {}, list[MeasuredNetwork]()
    measured_on = measure_networks(bench, space, networks, targets)
    for target in targets:
        outcomes, budget = measured_on[target], given.budgets[str(target)]
        seen = [
            network
            for each, outcome in zip(networks, outcomes, strict=True)
            if (network := SeenNetwork.of(each, target, outcome, scored=each not in chosen))
        ]
        if len(seen) < min(MIN_NETWORKS, len(outcomes)):
            raise EstimateError(
                f"only {len(seen)} of {len(outcomes)} networks have a valid measurement on {target}",
                why=next(_reasons(o) for o in outcomes if SeenNetwork.of(reference, target, o) is None),
                fix="leave the device to the measurement alone and run again: only these are measured again",
            )
        model = fit_model(space, given.tables[str(target)], seen)
        models[str(target)] = model
        reference_ns = given.teacher_ns.get(str(target)) or _reference_ns(target, outcomes[0])
        limits[str(target)] = budget.limit_given(reference_ns)
        estimates = model.estimate([block_identities(space, each.architecture) for each in seen])
        calibration += map(MeasuredNetwork.beside, seen, estimates)
    soft = frozenset(name for name, budget in given.budgets.items() if budget.soft)
    predictors = LatencyPredictors(given.plan, models, limits, soft, tuple(calibration))
    certificate = predictors.constraints.certificate
    return Feasible(models, limits, soft, reference, certificate, tuple(calibration))


def _chosen_networks(
    space: Space, tables: Mapping[str, LatencyTable], reference: Architecture
) -> list[Architecture]:
    """Reference, fastest and slowest by the plain sum on each target; each once."""
    chosen = {reference.identity: reference}
    for table in tables.values():
        for largest in (False, True):
            extreme = space.extreme(lambda block, t=table: t.latency_ns(block.identity), largest=largest)  # type: ignore[misc]
            chosen[extreme.identity] = extreme
    return list(chosen.values())


def _drawn_networks(given: FeasibilityInput, chosen: Sequence[Architecture]) -> list[Architecture]:
    """Random members other than these, whose errors make the interval; each once."""
    space, generator = given.plan.space, random.Random(given.seed)
    wanted = min(given.networks, space.count() - len(chosen))
    drawn: dict[str, Architecture] = {}
    while len(drawn) < wanted:
        architecture = space.sample(generator)
        if architecture not in chosen:
            drawn[architecture.identity] = architecture
    return list(drawn.values())


def _reference_ns(target: Target, outcome: Outcome) -> float:
    if isinstance(outcome, Measurement) and outcome.verdict is not Verdict.INVALID:
        return outcome.latency.value_ns
    raise EstimateError(
        f"the reference network of the space has no latency on {target}",
        why=_reasons(outcome),
        fix="run again; if it stays so, the target cannot run this space",
    )


def _reasons(outcome: Outcome) -> str:
    reasons = [outcome.reason] if isinstance(outcome, MeasurementFailure) else list(outcome.reasons)
    return "; ".join(f"{reason.code}: {reason.detail}" for reason in reasons)
