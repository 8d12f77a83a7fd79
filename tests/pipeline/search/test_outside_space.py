"""A space as someone else would write it: it imports nothing of ours, and all of ours takes it."""

import hashlib
import itertools
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.loop import search
from pipeline.search.strategies.evolution import EvolutionStrategy
from tests.contracts.space import SpaceContract
from tests.contracts.strategy import StrategyContract
from tests.pipeline.search.search_models import latency_model


def digest(value) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


@dataclass(frozen=True)
class ToyDecision:
    name: str
    choices: tuple


@dataclass(frozen=True)
class ToyArchitecture:
    choices: tuple

    def __getitem__(self, name):
        return dict(self.choices)[name]

    def with_choice(self, name, choice):
        return ToyArchitecture(tuple((n, choice if n == name else old) for n, old in self.choices))

    @property
    def identity(self):
        return digest(self.choices)


@dataclass(frozen=True)
class ToyBlock:
    kind: str
    input_shape: tuple
    arguments: tuple

    @property
    def identity(self):
        return digest((self.kind, self.input_shape, self.arguments))


class ToySpace:
    """Four convolutions, each of which has a kernel and may be dilated; channels stay the same."""

    decisions = tuple(
        ToyDecision(f"layer{number}.{name}", choices)
        for number in range(4)
        for name, choices in (("kernel", (1, 3, 5)), ("dilated", (False, True)))
    )
    input_shape = (2, 6, 6)
    description = {"space": "toy"}  # noqa: RUF012

    def count(self):
        return 6**4

    def reference(self):
        return ToyArchitecture(tuple((d.name, d.choices[-1]) for d in self.decisions))

    def sample(self, generator):
        return ToyArchitecture(tuple((d.name, generator.choice(d.choices)) for d in self.decisions))

    def mutate(self, architecture, generator):
        decision = generator.choice(self.decisions)
        others = [choice for choice in decision.choices if choice != architecture[decision.name]]
        return architecture.with_choice(decision.name, generator.choice(others))

    def crossover(self, architecture, other, generator):
        parents = (architecture, other)
        return ToyArchitecture(tuple((d.name, generator.choice(parents)[d.name]) for d in self.decisions))

    def neighbours(self, architecture):
        for decision in self.decisions:
            for choice in decision.choices:
                if choice != architecture[decision.name]:
                    yield architecture.with_choice(decision.name, choice)

    def members(self):
        names = [decision.name for decision in self.decisions]
        for choices in itertools.product(*(decision.choices for decision in self.decisions)):
            yield ToyArchitecture(tuple(zip(names, choices, strict=True)))

    def encode(self, architecture):
        return np.array([float(choice) for _, choice in architecture.choices], np.float32)

    def blocks(self, architecture):
        layers = [
            self.layer(architecture[f"layer{n}.kernel"], architecture[f"layer{n}.dilated"]) for n in range(4)
        ]
        return (*layers, ToyBlock("classifier", self.input_shape, ()))

    def layer(self, kernel, dilated):
        return ToyBlock("layer", self.input_shape, (("dilated", dilated), ("kernel", kernel)))

    def distinct_blocks(self):
        layers = itertools.product((1, 3, 5), (False, True))
        return (*itertools.starmap(self.layer, layers), ToyBlock("classifier", self.input_shape, ()))

    def extreme(self, cost, *, largest=False):
        pick = max if largest else min
        kernel, dilated = pick(
            itertools.product((1, 3, 5), (False, True)), key=lambda choice: cost(self.layer(*choice))
        )
        return ToyArchitecture(
            tuple((d.name, kernel if d.name.endswith("kernel") else dilated) for d in self.decisions)
        )

    def build(self, architecture):
        return torch.nn.Sequential(*map(self.build_block, self.blocks(architecture)))

    def build_block(self, block):
        if block.kind == "classifier":
            return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(72, 3))
        arguments = dict(block.arguments)
        dilation = 2 if arguments["dilated"] else 1
        return torch.nn.Conv2d(2, 2, arguments["kernel"], padding="same", dilation=dilation)


def constraints():
    space = ToySpace()
    model = latency_model(space, lambda block: 100.0 + 10 * dict(block.arguments).get("kernel", 0))
    # Kernels may sum to 6 of at most 20: 16 * (1 + 4) architectures.
    return Constraints(space, {"t": model}, {"t": 1.1 * (500 + 5 * 100 + 10 * 6) + 1})


class TestToySpace(SpaceContract):
    @pytest.fixture
    def space(self):
        return ToySpace()


class TestEvolutionOnToySpace(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return constraints()

    def make(self, constraints, seed):
        return EvolutionStrategy(constraints, seed, population_size=6, sample_size=2)


def test_search_over_an_outside_space_continues_from_its_journal(tmp_path):
    class KernelEvaluator:
        def evaluate(self, architecture):
            return Score(float(sum(architecture[f"layer{n}.kernel"] for n in range(4))))

    def run(evaluations):
        strategy = EvolutionStrategy(constraints(), 1, population_size=4, sample_size=2)
        return search(strategy, KernelEvaluator(), evaluations, tmp_path / "journal.jsonl")

    assert run(20)[:10] == run(10)
    assert all(isinstance(candidate.architecture, ToyArchitecture) for candidate in run(20))


def test_draw_gives_the_outside_space_its_own_architectures():
    assert isinstance(constraints().draw(random.Random(0)), ToyArchitecture)
