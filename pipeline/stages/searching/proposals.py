"""Stage ``proposals`` of method ``subgraph``: the candidates with which its search begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from devices.words import count_of
from pipeline.distill.divergence import divergence_is
from pipeline.distill.settings import DistillationSettings
from pipeline.errors import VerificationError
from pipeline.methods.subgraph.costs import Costs, least_counts
from pipeline.methods.subgraph.settings import Price, Proposal, SubgraphSettings
from pipeline.spaces.base import Architecture, Block
from pipeline.spaces.teacher.space import TeacherSpace
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.importance import open_importance
from pipeline.stages.inputs.structures import open_network
from pipeline.stages.inputs.teacher import TeacherSummary, soft_targets
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.services import Services
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class ProposalsInput:
    """Which subgraphs are proposed, within which limits, and how gates are trained."""

    predictors: LatencyPredictors
    kinds: tuple[Proposal, ...]
    settings: SubgraphSettings
    importance: StoredFile
    seed: int
    data: DataSummary = by_digest()
    teacher: TeacherSummary = by_digest()


@dataclass(frozen=True)
class Proposed:
    """A subgraph, and the share of the tightest budget that it takes as predicted."""

    kind: Proposal
    architecture: Architecture
    share: float


@dataclass(frozen=True)
class Proposals:
    """Different subgraphs, in the order of the kinds that were asked for."""

    found: tuple[Proposed, ...]


def _told(given: ProposalsInput, value: Proposals) -> Sequence[str]:
    found = ", ".join(f"{each.kind} ({each.share:.0%})" for each in value.found)
    lines = [f"proposals    subgraphs, with the share of the budgets that they take: {found}"]
    if missing := [kind for kind in given.kinds if kind not in {each.kind for each in value.found}]:
        lines.append(f"             none within the budgets, or equal to one of these: {', '.join(missing)}")
    return lines


@stage("proposals", packages=("torch", "torch-pruning"), resumes=True, tell=_told)
def propose_subgraphs(given: ProposalsInput, folder: StageFolder, services: Services) -> Proposals:
    """Cut the teacher in each of the ways; equal subgraphs are proposed once.

    Raises:
        BudgetError: the smallest subgraph is above a limit.
        VerificationError: the training of gates diverges.
    """
    from pipeline.methods.subgraph.proposals import proposal

    space = given.predictors.space
    assert isinstance(space, TeacherSpace)
    costs = costs_of(space, given.predictors, given.settings.cost)
    costs.require_reachable()
    matter = {
        name: value.sort(descending=True).values.tolist()
        for name, value in open_importance(given.importance, folder).items()
    }
    found: dict[Architecture, Proposed] = {}
    for kind in given.kinds:
        counts = (
            _by_gates(given, space, costs, folder, services)
            if kind == "gates"
            else proposal(kind, costs, matter)
        )
        if counts is not None:
            architecture = space.architecture(counts)
            found.setdefault(architecture, Proposed(kind, architecture, costs.excess(counts)))
    return Proposals(tuple(found.values()))


def _by_gates(
    given: ProposalsInput, space: TeacherSpace, costs: Costs, folder: StageFolder, services: Services
) -> Mapping[str, int]:
    """What gates leave that are driven to zero; after a kill they go on from their last epoch."""
    import torch

    from pipeline.methods.subgraph.selection import select

    torch.manual_seed(given.seed)
    dataset = open_data(given.data, folder)
    settings = DistillationSettings(augment=given.settings.augment)
    targets = soft_targets(given.teacher, folder, dataset, settings)
    assert targets is not None
    checkpoint = folder / "checkpoint.pt"
    diverged = VerificationError(
        "the selection of a subgraph diverged",
        fix="lower subgraph.selection.learning_rate, or leave gates out of subgraph.proposals",
    )
    with divergence_is(diverged), services.reporter.task("selecting a subgraph by gates", "steps") as advance:
        found = select(
            open_network(given.teacher, given.data.input_shape, folder),
            given.data.input_shape,
            space.config.structures,
            teacher=targets,
            dataset=dataset,
            settings=given.settings,
            costs=costs,
            seed=given.seed,
            checkpoint=checkpoint,
            on_step=advance,
            tell=services.reporter.note,
        )
    if found.snapped:
        services.reporter.note(
            f"             cut though the gates were not zero: {count_of(found.snapped, 'part')}, to reach a "
            "width that was measured, or for want of steps (subgraph.selection.epochs)"
        )
    return found.counts


def costs_of(space: TeacherSpace, predictors: LatencyPredictors, price: Price) -> Costs:
    """By the targets' tables; budgets that are only preferences count where there are no others.

    Preferences refuse nothing: where not even the smallest subgraph keeps them, they are loosened for it.

    Args:
        space: of the subgraphs.
        predictors: of their latencies.
        price: what a part costs: ``latency`` over the limits, in sum; ``macs``, ``parameters``; ``uniform``.
    """
    limits = {
        name: limit / predictors.factors.get(name, 1.0)
        for name, limit in predictors.limits_ns.items()
        if name not in predictors.soft or len(predictors.soft) == len(predictors.limits_ns)
    }
    models = predictors.latency_models

    def shares(architecture: Architecture) -> Mapping[str, float]:
        estimates = predictors.estimates(architecture)
        return {name: estimates[name].high_ns / limit for name, limit in limits.items()}

    def latency(block: Block) -> float:
        # What cannot run somewhere costs the whole budget there.
        return sum(min(models[name].block_cost_ns(block) / limit, 1.0) for name, limit in limits.items())

    prices = {
        "latency": latency,
        "macs": lambda block: float(space.cost(block).macs),
        "parameters": lambda block: float(space.cost(block).parameters),
        "uniform": None,
    }
    costs = Costs(space, shares, prices[price])
    if predictors.soft >= limits.keys():
        smallest = costs.excess(least_counts(space))
        limits = {name: limit * max(1.0, smallest) for name, limit in limits.items()}
        costs = Costs(space, shares, prices[price])
    return costs
