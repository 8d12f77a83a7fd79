"""A recurrent policy that learns by REINFORCE or PPO, as the agent of MnasNet and AKD does (1911.09074).

docs/methods/policy.md has the choices, the hyper-parameters and their sources.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from devices.digests import value_digest
from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.rewards import Reward, hard_reward
from pipeline.search.strategies.base import ConstrainedStrategy, to_pairs
from pipeline.search.strategies.policy_network import PolicyNetwork, Tokens
from pipeline.search.strategies.tensors import packed, unpacked
from pipeline.spaces.base import Architecture, architecture_of

_DRAWS = 4
_SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class PolicySettings:
    """How a policy learns.

    Attributes:
        initial: scores of uniform draws, from which it learns before it draws itself.
        batch_size: rewards per update.
        hidden: units of the LSTM.
        learning_rate: of Adam.
        entropy_weight: bonus for undecided policies, in nats per decision and standard deviations of rewards.
        baseline_decay: how much of the moving mean and variance of the rewards an update keeps.
        squash: logits stay between minus and plus this.
        clip: how far PPO lets a probability change in an update; None is REINFORCE, with a step per update.
        epochs: steps of PPO per update.

    Raises:
        ValueError: a number without meaning.
    """

    initial: int = 20
    batch_size: int = 10
    hidden: int = 64
    learning_rate: float = 3.5e-3
    entropy_weight: float = 1e-2
    baseline_decay: float = 0.8
    squash: float = 2.5
    clip: float | None = 0.2
    epochs: int = 4

    def __post_init__(self) -> None:
        if self.initial < 0:
            raise ValueError("the number of initial draws must not be negative")
        if min(self.batch_size, self.hidden, self.epochs) < 1:
            raise ValueError("a policy needs at least one reward per update, one unit and one epoch")
        if not (0 < self.learning_rate < math.inf and 0 < self.squash < math.inf):
            raise ValueError("the learning rate and the bound of the logits must be finite and above zero")
        if not (0 <= self.entropy_weight < math.inf and 0 <= self.baseline_decay < 1):
            raise ValueError("the entropy's weight must not be negative, and the decay be in 0..1, below 1")
        if self.clip is not None and not 0 < self.clip < 1:
            raise ValueError(f"a clip of {self.clip} is not between 0 and 1")


class PolicyStrategy(ConstrainedStrategy):
    """Draws from a recurrent policy, within the budgets if it can, and learns from what was evaluated.

    At first it draws as random search does, and the policy learns from these scores as well. Where it draws
    too few within the budgets, others are repaired; the choices of the repaired architecture are credited
    with the reward, since these were evaluated. Where it proposes only what was asked before, its proposals
    are mutated.

    Args:
        constraints: space and budgets.
        seed: of the weights and all draws.
        reward: from an architecture and its score; the score by default.
        settings: PPO by default.

    Raises:
        BudgetError: no member of the space is known to keep the budgets.
    """

    def __init__(
        self,
        constraints: Constraints,
        seed: int,
        *,
        reward: Reward = hard_reward,
        settings: PolicySettings | None = None,
    ) -> None:
        super().__init__(constraints, seed)
        self._reward = reward
        self.settings = settings or PolicySettings()
        self._tokens = Tokens(constraints.space)
        self._network = PolicyNetwork(self._tokens, self.settings.hidden, self.settings.squash, seed)
        self._optimiser = torch.optim.Adam(
            self._network.parameters(), lr=self.settings.learning_rate, foreach=False
        )
        self._drawn: list[Architecture] = []
        self._batch: list[tuple[Architecture, float]] = []
        self._mean, self._variance, self._updates = 0.0, 0.0, 0

    def proposals(self) -> Iterator[Architecture]:
        """Uniform draws, then those of the policy; then mutants of the last one, further and further away."""
        while self._updates * self.settings.batch_size + len(self._batch) < self.settings.initial:
            yield self.constraints.draw(self.generator)
        child = None
        for _ in range(2 * self.settings.batch_size):
            if not self._drawn:
                self._drawn = self._draw()
            child = self.constraints.repair(self._drawn.pop(), self.generator)
            yield child
        assert child is not None
        while True:
            mutant = self.constraints.space.mutate(child, self.generator)
            child = self.constraints.repair(mutant, self.generator)
            yield child

    def learn(self, architecture: Architecture, score: Score) -> None:
        """Update the policy when a batch of rewards is complete.

        Raises:
            ValueError: the reward is not finite.
        """
        reward = self._reward(architecture, score)
        if not math.isfinite(reward):
            raise ValueError(f"the reward of {architecture} is {reward}")
        self._batch.append((architecture, reward))
        if len(self._batch) == self.settings.batch_size:
            with _single_thread():
                self._update()
            self._batch, self._drawn = [], []

    def learned(self) -> dict[str, Any]:
        """Weights, optimiser, baseline, what was drawn and not yet asked, rewards of the batch."""
        tensors = {f"network.{name}": value for name, value in self._network.state_dict().items()}
        for index, values in self._optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
        return {
            "tensors": packed(tensors),
            "baseline": [self._mean, self._variance, self._updates],
            "drawn": [to_pairs(architecture) for architecture in self._drawn],
            "batch": [[to_pairs(architecture), reward] for architecture, reward in self._batch],
        }

    def relearn(self, learned: dict[str, Any]) -> None:
        """Take all of it back."""
        space = self.constraints.space
        network: dict[str, torch.Tensor] = {}
        optimiser: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in unpacked(learned["tensors"]).items():
            kind, _, rest = name.partition(".")
            if kind == "network":
                network[rest] = value
            else:
                index, _, key = rest.partition(".")
                optimiser.setdefault(int(index), {})[key] = value
        self._network.load_state_dict(network)
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": optimiser, "param_groups": groups})
        self._mean, self._variance, self._updates = learned["baseline"]
        self._drawn = [architecture_of(space, pairs) for pairs in learned["drawn"]]
        self._batch = [(architecture_of(space, pairs), reward) for pairs, reward in learned["batch"]]

    def _identity(self) -> list[str]:
        return [*super()._identity(), value_digest(asdict(self.settings))]

    def _draw(self) -> list[Architecture]:
        """More than an update needs; those within the budgets last, so that they are taken first."""
        with _single_thread():
            rows = self._network.sample(_DRAWS * self.settings.batch_size, self.generator).tolist()
        return sorted(map(self._tokens.architecture, rows), key=self.constraints.feasible)

    def _update(self) -> None:
        tokens = self._tokens.of([architecture for architecture, _ in self._batch])
        advantages = self._advantages(
            torch.tensor([reward for _, reward in self._batch], dtype=torch.float64)
        )
        clip = self.settings.clip
        with torch.no_grad():
            before, _ = self._network(tokens)
        for _ in range(1 if clip is None else self.settings.epochs):
            log_probabilities, entropies = self._network(tokens)
            if clip is None:
                gains = advantages * log_probabilities
            else:
                ratios = (log_probabilities - before).exp()
                gains = torch.minimum(ratios * advantages, ratios.clamp(1 - clip, 1 + clip) * advantages)
            loss = -(gains + self.settings.entropy_weight * entropies).mean()
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()

    def _advantages(self, rewards: torch.Tensor) -> torch.Tensor:
        """Rewards over the moving mean in moving standard deviations: their unit does not matter."""
        # The first batch is its own baseline; weights of the past then grow to the decay.
        self._updates += 1
        keep = min(self.settings.baseline_decay, 1 - 1 / self._updates)
        self._mean = keep * self._mean + (1 - keep) * float(rewards.mean())
        away = rewards - self._mean
        self._variance = keep * self._variance + (1 - keep) * float((away**2).mean())
        scale = math.sqrt(self._variance)
        return (away / scale if scale > _SMALLEST_SCALE else torch.zeros_like(away)).float()


@contextmanager
def _single_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine; the matrices are too small for more threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
