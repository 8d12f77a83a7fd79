"""Stage ``search`` of method ``subgraph``: the parts of the teacher that are worth their latency."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.distill.settings import DistillationSettings
from pipeline.errors import VerificationError
from pipeline.methods.subgraph.costs import Costs, least_counts
from pipeline.methods.subgraph.settings import Price, SubgraphSettings
from pipeline.search.base import Score
from pipeline.search.journal import Candidate
from pipeline.spaces.base import Architecture, Block
from pipeline.spaces.teacher.space import TeacherSpace
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.structures import open_network
from pipeline.stages.inputs.teacher import TeacherSummary, soft_targets
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.searching.candidates import EvaluatedCandidate, Round, Searched, shortlist
from pipeline.stages.searching.learning import Learning, MeasuredOn
from pipeline.stages.services import Services
from pipeline.work.canonical import by_digest
from pipeline.work.stage import StageFolder, stage

_WEIGHTS = "subgraph.safetensors"


@dataclass(frozen=True)
class SubgraphInput:
    """One round of a selection from the teacher, and where its result is measured."""

    this: Round
    settings: SubgraphSettings
    seed: int
    where: MeasuredOn
    data: DataSummary = by_digest()
    teacher: TeacherSummary = by_digest()


def _told(given: SubgraphInput, value: Searched) -> Sequence[str]:
    found = value.candidates[0]
    return [
        f"search       a subgraph of {found.score or 0.0:.2%} on the validation slice before it is distilled"
    ]


@stage("search", packages=("torch", "torch-pruning"), resumes=True, tell=_told)
def select_subgraph(given: SubgraphInput, folder: StageFolder, services: Services) -> Searched:
    """Select a subgraph within the limits, and measure it; after a kill it goes on from its last epoch.

    Raises:
        BudgetError: the smallest subgraph is above a limit.
        VerificationError: the selection diverges.
    """
    import torch
    from safetensors.torch import save_file

    from pipeline.distill.training import TrainingDiverged, accuracy
    from pipeline.methods.subgraph.selection import select

    torch.manual_seed(given.seed)
    predictors, dataset = given.this.predictors, open_data(given.data, folder)
    space = predictors.space
    assert isinstance(space, TeacherSpace)
    targets = soft_targets(
        given.teacher, folder, dataset, DistillationSettings(augment=given.settings.augment)
    )
    assert targets is not None
    checkpoint = folder / "checkpoint.pt"
    try:
        with services.reporter.task("selecting a subgraph", "steps") as advance:
            found = select(
                open_network(given.teacher, given.data.input_shape, folder),
                given.data.input_shape,
                space.config.structures,
                teacher=targets,
                dataset=dataset,
                settings=given.settings,
                costs=costs_of(space, predictors, given.settings.cost),
                seed=given.seed,
                checkpoint=checkpoint,
                on_step=advance,
                tell=services.reporter.note,
            )
    except TrainingDiverged as error:
        raise VerificationError(
            "the selection of a subgraph diverged",
            why=str(error),
            fix="lower subgraph.selection.learning_rate",
        ) from error
    if found.snapped:
        services.reporter.note(
            f"             {found.snapped} parts were cut though their gates were not zero: to reach a width "
            "that was measured, or for want of steps (subgraph.selection.epochs)"
        )
    save_file(found.network.state_dict(), folder / _WEIGHTS)
    checkpoint.unlink(missing_ok=True)
    share = accuracy(found.network, dataset.validation, dataset.preprocessing)
    spread = math.sqrt(share * (1 - share) / len(dataset.validation))
    candidate = Candidate(space.architecture(found.counts), Score(share, spread))
    learning = Learning(services, given.where, predictors, folder)
    order = shortlist(learning, [candidate], given.this)
    return Searched(
        (EvaluatedCandidate.of(candidate, None, learning.predictors),),
        tuple(learning.measured.values()),
        tuple(order),
        weights={candidate.architecture.identity: folder.stored(_WEIGHTS)},
    )


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
