"""What is known of latencies: a predictor and a limit per target, which learn from what is measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from devices.measurement import Interval
from latency_db.estimate import Estimate
from latency_db.models import NetworkModel
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.latency import TableLatencyModel
from pipeline.search.rewards import SoftReward
from pipeline.spaces.base import Architecture, Space
from pipeline.spaces.cost import network_cost
from pipeline.stages.inputs.space import SpacePlan
from pipeline.tables.building.networks import MeasuredNetwork, SeenNetwork, fit_seen

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
        max_parameters: of candidates, beside their latencies.
    """

    plan: SpacePlan
    models: Mapping[str, NetworkModel]
    limits_ns: Mapping[str, float]
    soft: frozenset[str]
    networks: tuple[SeenNetwork, ...]
    factors: Mapping[str, float] = field(default_factory=dict)
    max_parameters: int | None = None

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
        return Constraints(self.space, self.latency_models, limits, allows=self._small_enough)

    def _small_enough(self, architecture: Architecture) -> bool:
        if self.max_parameters is None:
            return True
        return network_cost(self.space.blocks(architecture)).parameters <= self.max_parameters

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
            name: fit_seen(
                self.space, model.table, [each for each in together if each.target == name]
            ).with_level(model.level)
            for name, model in self.models.items()
        }
        return replace(self, models=models, networks=together)

    def judged(self, network: SeenNetwork) -> Interval:
        """The measured latency as its budget judges it."""
        return network.judged(self.models[network.target])

    def kept_by(self, networks: Sequence[MeasuredNetwork], disturbed: Collection[str] = ()) -> bool:
        """Whether measurements of one architecture are within the limit of every target that is not soft.

        Where measuring was ``disturbed``, only an interval that is beyond the limit speaks against it.
        """
        limits_ns = self.limits_ns
        within = {each.target for each in networks if self.judged(each).high_ns <= limits_ns[each.target]}
        beyond = {each.target for each in networks if self.judged(each).low_ns > limits_ns[each.target]}
        return (limits_ns.keys() - self.soft) - within <= set(disturbed) - beyond
