"""What a policy is rewarded with: the score alone, or MnasNet's product of score and latency."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pipeline.search.base import LatencyModel, Score
from pipeline.spaces.base import Architecture

EXPONENT = -0.07


class Reward(Protocol):
    """A number that a policy learns to make large."""

    def __call__(self, architecture: Architecture, score: Score) -> float:
        """The reward of an evaluated architecture."""
        ...


def hard_reward(architecture: Architecture, score: Score) -> float:
    """The score: enough where budgets are kept by construction."""
    return score.value


@dataclass(frozen=True)
class SoftReward:
    """``score * product over targets of (latency / target) ** exponent`` (MnasNet, 1807.11626, equation 2).

    At the target it is the score. With several targets each has its factor. An architecture that cannot run
    on a target has the reward 0.

    Attributes:
        models: latency model per target.
        targets_ns: the latency wanted on each.
        exponent: 0 or below; -0.07 takes 4.7 % off for twice the latency.

    Raises:
        ValueError: no target, one without a model, a latency that is not finite and above zero, or an
            exponent that is not finite or is above zero.
    """

    models: Mapping[str, LatencyModel]
    targets_ns: Mapping[str, float]
    exponent: float = EXPONENT

    def __post_init__(self) -> None:
        if not self.targets_ns:
            raise ValueError("a soft reward needs a latency wanted on at least one target")
        for target, latency in self.targets_ns.items():
            if target not in self.models:
                raise ValueError(f"the latency wanted on {target} has no latency model")
            if not 0 < latency < math.inf:
                raise ValueError(
                    f"the latency of {latency} ns wanted on {target} is not finite and above zero"
                )
        if not -math.inf < self.exponent <= 0:
            raise ValueError(f"the exponent {self.exponent} is not finite, or rewards what is slow")

    def __call__(self, architecture: Architecture, score: Score) -> float:
        """The reward of an evaluated architecture, by the values of its latency estimates.

        Raises:
            EstimateError: a block was never measured.
        """
        latencies = {
            target: self.models[target].estimate([architecture])[0].value_ns for target in self.targets_ns
        }
        if math.inf in latencies.values():
            return 0.0
        ratios = (latency / self.targets_ns[target] for target, latency in latencies.items())
        return score.value * math.prod(math.pow(ratio, self.exponent) for ratio in ratios)
