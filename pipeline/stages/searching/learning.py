"""Networks that are measured whole while a search goes on, from which the latency models learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from devices.measurement import MeasuringProtocol
from latency_db.tables import is_settled
from pipeline.search.journal import Candidate
from pipeline.spaces.base import Architecture
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.latency.targets import BoundTarget
from pipeline.stages.services import Services
from pipeline.tables.building.networks import MeasuredNetwork, SeenNetwork, measure_networks
from pipeline.work.disk import write_atomically
from pipeline.work.stage import StageFolder

_MEASURED_AT_A_TIME = 3
"""Best evaluated candidates that are measured whole when the models are to learn."""

_NETWORKS = TypeAdapter(tuple[MeasuredNetwork, ...])


@dataclass(frozen=True)
class MeasuredOn:
    """Where and how whole networks are measured, and what exports them (by target)."""

    targets: tuple[BoundTarget, ...]
    protocol: MeasuringProtocol
    exporters: Mapping[str, Any]


class Learning:
    """Measures networks whole while a search goes on, and fits the models again on them.

    What the models learned from lies in ``folder``, so that a search that was killed sees the same again.
    """

    def __init__(
        self, services: Services, where: MeasuredOn, predictors: LatencyPredictors, folder: StageFolder
    ) -> None:
        self._bench, self._folder = services.bench(where.protocol), folder
        self._space = predictors.plan.open(folder)
        self._targets = [each.target for each in where.targets]
        self.predictors = predictors
        self.measured: dict[tuple[str, Architecture], MeasuredNetwork] = {}
        self.disturbed: set[tuple[str, Architecture]] = set()

    def measure(self, architectures: Sequence[Architecture]) -> list[MeasuredNetwork]:
        """Measurements of these on all targets, disturbed ones too, beside what is predicted now.

        What something disturbed is noted in ``disturbed``: it has not failed while its interval allows it.
        """
        found = []
        predicted = {each: self.predictors.estimates(each) for each in architectures}
        wanted = dict.fromkeys(self._targets, architectures)
        outcomes_on = measure_networks(self._bench, self._space, wanted)
        for target, outcomes in outcomes_on.items():
            for architecture, outcome in zip(architectures, outcomes, strict=True):
                if outcome is None or not is_settled(outcome):
                    self.disturbed.add((str(target), architecture))
                if outcome and (seen := SeenNetwork.of(architecture, target, outcome)):
                    found.append(MeasuredNetwork.beside(seen, predicted[architecture][str(target)]))
        self._remember(found)
        return found

    def learn(self, candidates: Sequence[Candidate]) -> None:
        """Measure the best candidates that were not measured yet, and fit the models again."""
        path = self._folder / f"learned-{len(candidates)}.json"
        if path.exists():
            networks = _NETWORKS.validate_json(path.read_bytes())
            self._remember(networks)
        else:
            known = {architecture for _, architecture in self.measured}
            # Scores compare within a fidelity.
            closest = max((c.fidelity for c in candidates if c.score is not None), default=1.0)
            scores = {
                c.architecture: c.score.value
                for c in candidates
                if c.score is not None and c.fidelity == closest
            }
            best = sorted(scores.keys() - known, key=lambda each: (-scores[each], each.identity))
            networks = tuple(self.measure(best[:_MEASURED_AT_A_TIME]))
            write_atomically(path, _NETWORKS.dump_json(networks))
        self.predictors = self.predictors.learned(networks)

    def _remember(self, networks: Sequence[MeasuredNetwork]) -> None:
        for network in networks:
            self.measured.setdefault((network.target, network.architecture), network)
