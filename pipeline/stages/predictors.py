"""What is known of latencies: a predictor and a limit per target, which learn from what is measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from latency_db.estimate import Estimate
from latency_db.models import NetworkModel
from latency_db.tables import LatencyTable
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.latency import TableLatencyModel
from pipeline.search.rewards import SoftReward
from pipeline.spaces.base import Architecture, Space
from pipeline.stages.networks import MeasuredNetwork, SeenNetwork
from pipeline.stages.space import SpacePlan

_NO_LIMIT_NS = 1e18
"""A limit that no network reaches; thirty years."""


@dataclass(frozen=True)
class LatencyPredictors:
    """Models and limits, with the measured networks behind them.

    Attributes:
        plan: of the space whose networks are predicted.
        models: network model per target.
        limits_ns: of the budgets, per target.
        soft: targets whose limit is a wish only.
        networks: what the models were fitted on.
        factors: per target, by how much candidates are asked to stay below the limit; 1 if not named.
    """

    plan: SpacePlan
    models: Mapping[str, NetworkModel]
    limits_ns: Mapping[str, float]
    soft: frozenset[str]
    networks: tuple[SeenNetwork, ...]
    factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def space(self) -> Space:
        """Whose networks are predicted."""
        return self.plan.space

    @cached_property
    def latency_models(self) -> dict[str, TableLatencyModel]:
        """The models, of architectures."""
        return {name: TableLatencyModel(self.space, model) for name, model in self.models.items()}

    @cached_property
    def constraints(self) -> Constraints:
        """What keeps candidates within the limits that are not soft; estimates are of all targets."""
        limits = {
            name: _NO_LIMIT_NS if name in self.soft else limit / self.factors.get(name, 1.0)
            for name, limit in self.limits_ns.items()
        }
        return Constraints(self.space, self.latency_models, limits)

    def estimates(self, architecture: Architecture) -> dict[str, Estimate]:
        """The architecture's latency per target."""
        return self.constraints.estimates(architecture)

    def reward(self, exponent: float, *, everywhere: bool) -> SoftReward | None:
        """Of score and latency on the soft targets, or on all; ``None`` if there are none."""
        wanted = {n: limit for n, limit in self.limits_ns.items() if everywhere or n in self.soft}
        return SoftReward(self.latency_models, wanted, exponent) if wanted else None

    def learned(self, networks: Sequence[SeenNetwork]) -> LatencyPredictors:
        """Models that are fitted on these networks as well; their errors make the intervals, too."""
        known = {(each.target, each.architecture) for each in self.networks}
        new = [each for each in networks if (each.target, each.architecture) not in known]
        together = (*self.networks, *new)
        models = {
            name: fit_model(self.space, model.table, [each for each in together if each.target == name])
            for name, model in self.models.items()
        }
        return replace(self, models=models, networks=together)

    def kept_by(self, networks: Sequence[MeasuredNetwork], disturbed: Collection[str] = ()) -> bool:
        """Whether measurements of one architecture are within the limit of every target that is not soft.

        On targets where measuring was ``disturbed``, nothing speaks against it.
        """
        within = {each.target for each in networks if each.measured.high_ns <= self.limits_ns[each.target]}
        return (self.limits_ns.keys() - self.soft) - within <= set(disturbed)


def fit_model(space: Space, table: LatencyTable, networks: Sequence[SeenNetwork]) -> NetworkModel:
    """The model of one target, fitted on networks that were measured there.

    Raises:
        EstimateError: too few networks, or one with a block that was not measured or cannot run.
    """
    scored = [index for index, network in enumerate(networks) if network.scored]
    return NetworkModel.fit(
        table,
        [block_identities(space, each.architecture) for each in networks],
        [each.measured.value_ns for each in networks],
        scored=scored or None,
        canaries_ns=[each.canary_ns for each in networks],
        batches=[each.batch for each in networks],
    )


def block_identities(space: Space, architecture: Architecture) -> list[str]:
    """The rows of a table that a network is made of."""
    return [block.identity for block in space.blocks(architecture)]
