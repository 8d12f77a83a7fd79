"""Evaluators of untrained networks: what they say of networks whose answer is known, and what all share."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset
from pipeline.distill.settings import DistillationSettings
from pipeline.errors import TeacherError
from pipeline.search.base import Evaluator
from pipeline.search.evaluators.registry import EvaluationTask, find_evaluator
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.search.evaluators.untrained.naswot import ActivationCodes
from pipeline.search.evaluators.untrained.networks import images_of
from pipeline.search.evaluators.untrained.readout import BlockwiseReadout, left_over
from pipeline.search.evaluators.untrained.relation import RelationSimilarity
from pipeline.search.evaluators.untrained.synflow import SynapticFlow
from pipeline.spaces.base import Architecture
from tests.contracts.evaluator import EvaluatorContract
from tests.pipeline.search.search_models import small_space

NAMES = ("naswot", "synflow", "relation", "readout")
ANY = Architecture((("which", 0),))


@dataclass(frozen=True)
class Given:
    """A space of one network, which is given."""

    network: nn.Module

    def build(self, architecture: Architecture) -> nn.Module:
        return copy.deepcopy(self.network)


@dataclass(frozen=True)
class GivenBlock:
    input_shape: tuple[int, int, int]
    module: nn.Module


@dataclass(frozen=True)
class GivenBlocks:
    """A space of one row of blocks."""

    row: Sequence[GivenBlock]

    def blocks(self, architecture: Architecture) -> Sequence[GivenBlock]:
        return self.row

    def build_block(self, block: GivenBlock) -> nn.Module:
        return copy.deepcopy(block.module)


def any_space(space: Any) -> Any:
    return space


class Teacher(nn.Module):
    """Maps of 8x8 and of 4x4 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 2, stride=2), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(images)).mean((2, 3)))
        return logits


def small_teacher(seed: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Teacher().eval()


def made(name: str, dataset: Dataset, teacher: Callable[[], nn.Module] = small_teacher) -> Evaluator:
    settings = DistillationSettings(epochs=1)
    task = EvaluationTask(
        small_space(), dataset, settings, 0, teacher, lambda: None, SupernetSettings(), dict
    )
    return find_evaluator(name).make(task)


@pytest.mark.parametrize("name", NAMES)
class TestUntrained(EvaluatorContract):
    @pytest.fixture
    def architectures(self) -> Sequence[Architecture]:
        return list(small_space().members())[:6]

    @pytest.fixture
    def one(self, name: str, dataset: Dataset) -> Evaluator:
        return made(name, dataset)

    @pytest.fixture
    def other(self, name: str, dataset: Dataset) -> Evaluator:
        return made(name, dataset)

    def test_scores_only_rank(self, name: str) -> None:
        assert find_evaluator(name).score == "number"


def test_codes_count_activations_that_are_alike(dataset: Dataset) -> None:
    images = images_of(dataset, 64).flatten(1)
    directions = torch.randn(images.shape[1], 400, generator=torch.Generator().manual_seed(0))
    levels = (images @ directions).median(0).values

    class Levels(nn.Module):
        """Units that are on above a level each, by a function; then units that are never on, by a module."""

        def __init__(self) -> None:
            super().__init__()
            self.last = nn.ReLU6()

        def forward(self, images: Tensor) -> Tensor:
            units = torch.relu(images.flatten(1) @ directions - levels)
            found: Tensor = self.last(units - 1e9)
            return found

    codes = (images @ directions > levels).double()
    codes = torch.cat([codes, torch.zeros_like(codes)], dim=1)
    expected = torch.linalg.slogdet(codes @ codes.T + (1 - codes) @ (1 - codes).T).logabsdet
    found = ActivationCodes(any_space(Given(Levels())), dataset, 0).evaluate(ANY).value
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_images_with_equal_codes_make_the_rating_fail(dataset: Dataset) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.ReLU())
    assert ActivationCodes(any_space(Given(network)), dataset, 0).evaluate(ANY).value == -math.inf


def test_flow_is_that_of_the_product_of_absolute_weights(dataset: Dataset) -> None:
    first, second = nn.Linear(64, 5, bias=False), nn.Linear(5, 3, bias=False)
    network = nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)
    paths = float((second.weight.abs() @ first.weight.abs()).detach().double().sum())
    # Each of the two layers carries all of the flow once.
    found = SynapticFlow(any_space(Given(network)), dataset, 0).evaluate(ANY).value
    assert found == pytest.approx(math.log(2 * paths), rel=1e-5)


def test_a_network_through_which_nothing_flows_has_failed(dataset: Dataset) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    assert SynapticFlow(any_space(Given(network)), dataset, 0).evaluate(ANY).value == -math.inf


def test_the_teacher_itself_finds_the_same_images_alike(dataset: Dataset) -> None:
    def rating(network: nn.Module) -> float:
        return RelationSimilarity(any_space(Given(network)), dataset, 0, small_teacher()).evaluate(ANY).value

    assert rating(small_teacher()) == pytest.approx(0.0, abs=1e-6)
    assert rating(small_teacher(seed=9)) < -1e-3


def test_a_linear_map_of_the_teachers_features_leaves_nothing_over_and_noise_everything() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.rand(16, 4, 16, 16, generator=generator)
    mixed = torch.einsum("oc,nchw->nohw", torch.randn(3, 4, generator=generator), ours)
    assert left_over(ours, mixed, 0) < 0.01
    noise = torch.randn(16, 3, 16, 16, generator=generator)
    assert left_over(ours, noise, 0) == pytest.approx(1.0, abs=0.05)


def test_a_stage_is_fed_the_teachers_map_of_the_size_before(dataset: Dataset) -> None:
    teacher = small_teacher()
    useless = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Tanh())
    of_both = (GivenBlock((1, 8, 8), useless), GivenBlock((4, 8, 8), teacher.second))

    def rating(*row: GivenBlock) -> float:
        return BlockwiseReadout(any_space(GivenBlocks(row)), dataset, 0, small_teacher()).evaluate(ANY).value

    of_first = rating(of_both[0], GivenBlock((4, 8, 8), nn.Flatten()))
    # The second stage is the teacher's own: whatever the first one gives, it leaves hardly anything over.
    assert of_first > 0.1
    assert rating(*of_both, GivenBlock((6, 4, 4), nn.Flatten())) == pytest.approx(of_first, abs=0.05)


def test_ratings_by_features_of_a_teacher_without_any_say_so(dataset: Dataset) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    architecture = next(iter(small_space().members()))
    for name in ("relation", "readout"):
        with pytest.raises(TeacherError, match="no feature maps of the same size"):
            made(name, dataset, lambda: flat).evaluate(architecture)
