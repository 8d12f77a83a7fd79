"""The part of tools/studies/oracle.py that searches: which losses find what, and what it is worth.

For each seed, operations are added to a backbone with weights that all candidates share (KDAS, 1911.13019):
these weights are trained by each of three losses, and what a policy finds with each is trained by each of the
three. Beside them stand additions drawn at random and a wider backbone, as large as what the oracle loss
found, and trained by it. One limit holds for all: parameters.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from devices.words import count_of
from latency_db.estimate import Estimate
from pipeline.data.base import Dataset
from pipeline.distill.losses.settings import LossSettings
from pipeline.distill.settings import DistillationSettings
from pipeline.distill.targets import targets_for
from pipeline.distill.training import fit
from pipeline.methods.oracle.supernet import SharedWeights
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.evaluators.shared_weights import SharedWeightsEvaluator
from pipeline.search.loop import search
from pipeline.search.strategies.policy import PolicySettings, PolicyStrategy
from pipeline.spaces.add_on.config import AddOnSpaceConfig
from pipeline.spaces.add_on.space import AddOnChoice, AddOnSpace
from pipeline.spaces.base import Architecture, Block
from pipeline.spaces.cost import block_cost, network_cost
from pipeline.teachers.teacher import Teacher

LARGEST = 1.5
"""Limit on parameters, in backbones."""

_WIDTH = 16
_DRAWS = 2000
_NEAR = 0.05


@dataclass(frozen=True)
class SearchScale:
    """How much is searched."""

    epochs: int
    evaluations: int
    randoms: int
    seeds: int


class Around(Protocol):
    """What the study around has."""

    dataset: Dataset
    teacher: Teacher

    def unit(self, unit: str, compute: Callable[[], Any]) -> Any:
        """A piece of work, done once."""
        ...

    def known(self, unit: str) -> Any:
        """The value of a piece of work, if it is done."""
        ...

    def tested(self, network: torch.nn.Module) -> float:
        """Test accuracy in %."""
        ...


@dataclass(frozen=True)
class Parameters:
    """Parameters in place of nanoseconds: the same limit for all, whatever the machine."""

    space: AddOnSpace
    upper_factor: float = 1.0

    def block_cost_ns(self, block: Block) -> float:
        """Parameters of a block."""
        return float(block_cost(block).parameters)

    def estimate(self, architectures: Sequence[Architecture]) -> Sequence[Estimate]:
        """Parameters of networks, known exactly."""
        sizes = [float(size_of(self.space, each)) for each in architectures]
        return [Estimate(size, size, size, 0.95) for size in sizes]


def size_of(space: AddOnSpace, architecture: Architecture) -> int:
    """Parameters of a network."""
    return network_cost(space.blocks(architecture)).parameters


@dataclass(frozen=True)
class Searches:
    """Searches of a study, and the networks that are trained after them.

    Args:
        study: has data, ensemble and results.
        scale: how much is done.
        arms: losses by name.
        training: settings of the final training by a loss.
        folder: of journals and checkpoints.
    """

    study: Around
    scale: SearchScale
    arms: dict[str, tuple[LossSettings, ...]]
    training: Callable[[tuple[LossSettings, ...]], DistillationSettings]
    folder: Path

    def run(self) -> None:
        """What is not done yet: everything of a seed before the next seed."""
        for seed in range(self.scale.seeds):
            for name, compute in self._units(seed):
                self.study.unit(name, compute)

    def mean_of_randoms(self, seed: int) -> float | None:
        """Of the additions drawn at random for a seed, if all are done."""
        values = [self.study.known(f"random {number} {seed}") for number in range(self.scale.randoms)]
        return None if None in values else statistics.mean(values)

    def _units(self, seed: int) -> Iterator[tuple[str, Callable[[], Any]]]:
        for loss in self.arms:
            yield f"search {loss} {seed}", lambda loss=loss: self._found(loss, seed)  # type: ignore[misc]
            for final in self.arms:
                yield (
                    f"searched {loss} {final} {seed}",
                    lambda loss=loss, final=final: self._trained(  # type: ignore[misc]
                        self._space(), self._searched(loss, seed), final, seed
                    ),
                )
        for number in range(self.scale.randoms):
            yield (
                f"random {number} {seed}",
                lambda number=number: self._trained(  # type: ignore[misc]
                    self._space(), self._random(number, seed), "oracle", seed
                ),
            )
        yield f"widened {seed}", lambda: self._widened(seed)

    def _space(self, width: int = _WIDTH) -> AddOnSpace:
        """A backbone like the network of the rest of the study: three stages of one block."""
        config = AddOnSpaceConfig(width=width, stages=3, depth=1)
        return AddOnSpace(config, self.study.dataset.input_shape, len(self.study.dataset.classes))

    def _found(self, loss: str, seed: int) -> list[list[str]]:
        """What is added to each layer by the best candidate of a search."""
        space, dataset = self._space(), self.study.dataset
        folder = self.folder / f"search-{loss}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        epochs = self.scale.epochs
        settings = self.training(self.arms[loss]).model_copy(update={"epochs": epochs, "patience": epochs})
        torch.manual_seed(seed)
        network = SharedWeights(space, seed)
        targets = targets_for(self.study.teacher, dataset, settings)
        fit(network, dataset, settings, seed=seed, targets=targets, checkpoint=folder / "checkpoint.pt")
        limit = LARGEST * size_of(space, space.reference())
        constraints = Constraints(space, {"parameters": Parameters(space)}, {"parameters": limit})
        found = search(
            PolicyStrategy(constraints, seed, settings=PolicySettings(clip=None)),
            SharedWeightsEvaluator(network, dataset),
            self.scale.evaluations,
            folder / "journal.jsonl",
        )
        scored = [(each.score.value, each.architecture) for each in found if each.score is not None]
        best = max(scored, key=lambda pair: pair[0])[1]
        return [list(choice) for choice in space.choices(best)]

    def _searched(self, loss: str, seed: int) -> Architecture:
        choices = self.study.known(f"search {loss} {seed}")
        return self._space().architecture([AddOnChoice(*choice) for choice in choices])

    def _random(self, number: int, seed: int) -> Architecture:
        """Additions that are as many parameters as those that the oracle loss found."""
        space, generator = self._space(), random.Random(f"{seed} {number}")
        wanted = size_of(space, self._searched("oracle", seed))
        nearest = space.sample(generator)
        for _ in range(_DRAWS):
            if abs(size_of(space, nearest) / wanted - 1) <= _NEAR:
                break
            drawn = space.sample(generator)
            nearest = min(nearest, drawn, key=lambda each: abs(size_of(space, each) - wanted))
        return nearest

    def _widened(self, seed: int) -> float:
        """The bare backbone with as many parameters."""
        wanted = size_of(self._space(), self._searched("oracle", seed))
        wider = [self._space(width) for width in range(_WIDTH, 2 * _WIDTH)]
        space = min(wider, key=lambda each: abs(size_of(each, each.reference()) - wanted))
        return self._trained(space, space.reference(), "oracle", seed)

    def _trained(self, space: AddOnSpace, architecture: Architecture, final: str, seed: int) -> float:
        settings = self.training(self.arms[final])
        torch.manual_seed(seed)
        student = space.build(architecture)
        targets = targets_for(self.study.teacher, self.study.dataset, settings)
        fit(student, self.study.dataset, settings, seed=seed, targets=targets)
        return self.study.tested(student)


def section(searches: Searches, words: dict[str, str], interval: Callable[[list[float]], str]) -> str:
    """What there is, for the study's page."""
    scale, known = searches.scale, searches.study.known
    seeds = range(scale.seeds)

    def done(name: str) -> dict[int, float]:
        values = {seed: known(f"{name} {seed}") for seed in seeds}
        return {seed: value for seed, value in values.items() if value is not None}

    grid = {(one, other): done(f"searched {one} {other}") for one in words for other in words}
    if not any(grid.values()):
        return (
            "Not run at this scale yet: the loss of the search against that of the final training, and\n"
            "searched additions against random ones and a wider backbone.\n"
        )
    rows = "\n".join(
        f"| {words[one]} | " + " | ".join(interval(list(grid[one, other].values())) for other in words) + " |"
        for one in words
    )
    averages = {seed: value for seed in seeds if (value := searches.mean_of_randoms(seed)) is not None}
    best = grid["oracle", "oracle"]
    effects = "\n".join(
        f"| searched additions, not {name} | {interval([best[seed] - others[seed] for seed in both])} "
        f"| {len(both)} |"
        for name, others in (("random ones", averages), ("a wider backbone", done("widened")))
        for both in [sorted(best.keys() & others.keys())]
    )
    how = f"{count_of(scale.epochs, 'epoch')} of shared weights, {count_of(scale.evaluations, 'candidate')}"
    count, drawn = count_of(len(best), "seed"), count_of(scale.randoms, "network")
    return f"""A policy of REINFORCE adds operations to the backbone, up to {LARGEST} times its parameters:
{how}. Test accuracy in %, means over {count}. Rows: the loss of the shared weights;
columns: the loss of the final training.

| searched by | {" | ".join(words.values())} |
| --- |{" --- |" * len(words)}
{rows}

Beside them {drawn} with additions drawn at random and a wider backbone, as large as what was
found with the oracle loss, and trained by it:

| effect | points | seeds |
| --- | --- | --- |
{effects}
"""
