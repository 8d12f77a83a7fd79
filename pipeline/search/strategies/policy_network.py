"""A recurrent policy over a space's decisions: one token for each, after all tokens before it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.spaces.base import Architecture, Condition, SearchSpace

_INITIAL = 0.1


class Tokens:
    """Architectures as tokens, the places of their choices, and which of the decisions are made.

    Attributes:
        sizes: number of choices of each decision.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._some = space.sample(random.Random(0))
        decisions = space.decisions
        self.sizes = [len(decision.choices) for decision in decisions]
        self._names = [decision.name for decision in decisions]
        self._choices = [decision.choices for decision in decisions]
        self._places = [{choice: i for i, choice in enumerate(choices)} for choices in self._choices]
        # Per decision: the earlier decision that it depends on, and whether each of its choices allows it.
        self._above: list[tuple[int, Tensor] | None] = []
        for decision in decisions:
            condition: Condition | None = getattr(decision, "condition", None)
            if condition is None:
                self._above.append(None)
                continue
            above = self._names.index(condition.decision)
            allowed = [choice in condition.choices for choice in self._choices[above]]
            self._above.append((above, torch.tensor(allowed)))

    def of(self, architectures: Sequence[Architecture]) -> Tensor:
        """Places of the choices, int64, shape (n_architectures, n_decisions)."""
        return torch.tensor(
            [
                [
                    places[choice]
                    for places, (_, choice) in zip(self._places, architecture.choices, strict=True)
                ]
                for architecture in architectures
            ]
        )

    def architecture(self, tokens: Sequence[int]) -> Architecture:
        """The architecture of one row of tokens, of the class that the space itself uses."""
        architecture = self._some
        for (name, choice), choices, token in zip(self._some.choices, self._choices, tokens, strict=True):
            if choices[token] != choice:
                architecture = architecture.with_choice(name, choices[token])
        return architecture

    def is_made(self, decision: int, tokens: Tensor, made: Sequence[Tensor]) -> Tensor:
        """Whether a decision is to be made, bool, shape (n,), by the tokens and the masks of earlier ones."""
        above = self._above[decision]
        if above is None:
            return torch.ones(len(tokens), dtype=torch.bool)
        index, allowed = above
        return made[index] & allowed[tokens[:, index]]

    def made(self, tokens: Tensor) -> Tensor:
        """Which decisions are made, bool, shape (n, n_decisions)."""
        columns: list[Tensor] = []
        for decision in range(len(self.sizes)):
            columns.append(self.is_made(decision, tokens, columns))
        return torch.stack(columns, dim=1)


class PolicyNetwork(nn.Module):
    """An LSTM that reads the token before and gives each decision's logits ``squash * tanh(...)``.

    A decision that is not to be made has its first token, probability 1 and no entropy.

    Args:
        tokens: of the space.
        hidden: units of the LSTM, and size of the tokens' embeddings.
        squash: logits stay between minus and plus this (ENAS, 1802.03268, and Bello et al., 1611.09940).
        seed: of the weights.
    """

    def __init__(self, tokens: Tokens, hidden: int, squash: float, seed: int) -> None:
        super().__init__()
        self._tokens, self._squash = tokens, squash
        sizes = torch.tensor(tokens.sizes)
        # Tokens of all decisions have embeddings of their own; the first embedding begins a sequence.
        self._offsets = 1 + torch.cumsum(sizes, 0) - sizes
        self._missing = torch.arange(int(sizes.max())) >= sizes[:, None]
        self.embeddings = nn.Parameter(torch.empty(1 + int(sizes.sum()), hidden))
        with torch.random.fork_rng(devices=[]):  # its own weights are drawn from torch's generator
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.heads = nn.Parameter(torch.empty(len(sizes), int(sizes.max()), hidden))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-_INITIAL, _INITIAL, generator=generator)

    @torch.no_grad()
    def sample(self, count: int, generator: random.Random) -> Tensor:
        """Tokens of ``count`` architectures, int64, shape (count, n_decisions)."""
        tokens = torch.zeros(count, len(self._offsets), dtype=torch.int64)
        read = torch.zeros(count, dtype=torch.int64)
        made: list[Tensor] = []
        state = None
        for decision in range(len(self._offsets)):
            output, state = self.lstm(self.embeddings[read][:, None], state)
            logits = self._logits(output[:, 0] @ self.heads[decision].T, self._missing[decision])
            made.append(self._tokens.is_made(decision, tokens, made))
            numbers = torch.tensor([generator.random() for _ in range(count)])
            drawn = (numbers[:, None] > logits.softmax(-1).cumsum(-1)).sum(-1)
            # Rounding may leave the last sum a little below 1.
            tokens[:, decision] = drawn.clamp(max=self._tokens.sizes[decision] - 1) * made[-1]
            read = tokens[:, decision] + self._offsets[decision]
        return tokens

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each row, and mean entropy of its made decisions.

        Args:
            tokens: int64, shape (n, n_decisions).

        Returns:
            Two tensors, float32, shape (n,).
        """
        begin = torch.zeros(len(tokens), 1, dtype=torch.int64)
        read = torch.cat([begin, (tokens + self._offsets)[:, :-1]], dim=1)
        output, _ = self.lstm(self.embeddings[read])
        logits = self._logits(torch.einsum("nlh,lch->nlc", output, self.heads), self._missing)
        log_probabilities = logits.log_softmax(-1)
        made = self._tokens.made(tokens)
        chosen = log_probabilities.gather(-1, tokens[..., None])[..., 0]
        entropies = -(log_probabilities.exp() * log_probabilities.masked_fill(self._missing, 0.0)).sum(-1)
        return (chosen * made).sum(-1), (entropies * made).sum(-1) / made.sum(-1)

    def _logits(self, raw: Tensor, missing: Tensor) -> Tensor:
        return (self._squash * torch.tanh(raw)).masked_fill(missing, -torch.inf)
