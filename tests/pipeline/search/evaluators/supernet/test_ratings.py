"""Ratings by shared weights: what they say where the answer is known, resuming, and what cannot be rated."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset
from pipeline.data.tensors import to_tensor
from pipeline.distill.divergence import TrainingDiverged
from pipeline.distill.settings import DistillationSettings
from pipeline.errors import TeacherError
from pipeline.search.base import Evaluator
from pipeline.search.evaluators.aligned import IMAGE, Stage, TeacherMaps, stages_of
from pipeline.search.evaluators.registry import EvaluationTask, find_evaluator
from pipeline.search.evaluators.supernet import blockwise
from pipeline.search.evaluators.supernet.blockwise import BlockwiseEvaluator, Stages, train_blockwise
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.search.evaluators.supernet.weights import SharedWeights
from pipeline.spaces.base import Architecture
from tests.contracts.evaluator import EvaluatorContract
from tests.pipeline.search.search_models import small_space

SETTINGS = SupernetSettings(epochs=2, batch_size=16, score_images=32)
NAMES = ("blockwise", "one-shot")


class Teacher(nn.Module):
    """Maps of 8x8, 4x4 and 2x2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(4, 6, 2, stride=2), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(6, 6, 2, stride=2), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.third(self.second(self.first(images))).mean((2, 3)))
        return logits


def teacher() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Teacher().eval().requires_grad_(False)


def task(
    dataset: Dataset, tensors: Mapping[str, Tensor] | None = None, settings: SupernetSettings = SETTINGS
) -> EvaluationTask:
    return EvaluationTask(
        small_space(),
        dataset,
        DistillationSettings(epochs=1),
        0,
        teacher,
        lambda: None,
        settings,
        lambda: tensors or {},
    )


def trained(name: str, dataset: Dataset, checkpoint: Path) -> tuple[Mapping[str, Tensor], list[float]]:
    train = find_evaluator(name).train
    assert train is not None
    return train(task(dataset), checkpoint, lambda done, total: None)


@pytest.mark.parametrize("name", NAMES)
class TestSupernets(EvaluatorContract):
    @pytest.fixture
    def architectures(self) -> Sequence[Architecture]:
        return [small_space().sample(random.Random(seed)) for seed in range(6)]

    @pytest.fixture
    def one(self, name: str, dataset: Dataset, tmp_path: Path) -> Evaluator:
        tensors, _ = trained(name, dataset, tmp_path / "checkpoint.pt")
        return find_evaluator(name).make(task(dataset, tensors))

    @pytest.fixture
    def other(self, name: str, dataset: Dataset, tmp_path: Path) -> Evaluator:
        tensors, _ = trained(name, dataset, tmp_path / "other.pt")
        return find_evaluator(name).make(task(dataset, tensors))

    def test_a_training_that_was_killed_ends_like_one_that_was_not(
        self, name: str, dataset: Dataset, tmp_path: Path
    ) -> None:
        whole, losses = trained(name, dataset, tmp_path / "whole.pt")

        def die(done: int, total: int) -> None:
            raise KeyboardInterrupt

        train = find_evaluator(name).train
        assert train is not None
        with pytest.raises(KeyboardInterrupt):
            train(task(dataset), tmp_path / "killed.pt", die)
        resumed, its_losses = trained(name, dataset, tmp_path / "killed.pt")
        assert its_losses == losses
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[each], resumed[each]) for each in whole)
        # A finished one is not trained again.
        assert trained(name, dataset, tmp_path / "whole.pt")[1] == losses

    def test_a_loss_that_is_no_number_ends_the_training(
        self, name: str, dataset: Dataset, tmp_path: Path
    ) -> None:
        wild = SETTINGS.model_copy(update={"learning_rate": 1e30})
        train = find_evaluator(name).train
        assert train is not None
        with pytest.raises(TrainingDiverged, match="epoch"):
            train(task(dataset, settings=wild), tmp_path / "checkpoint.pt", lambda done, total: None)


class Block:
    """One of a row, as far as stages are concerned."""

    def __init__(self, *input_shape: int) -> None:
        self.input_shape = input_shape


def test_stages_end_with_the_last_map_of_each_size_that_the_teacher_has() -> None:
    row = [
        Block(3, 32, 32),
        Block(8, 16, 16),
        Block(8, 16, 16),
        Block(8, 8, 8),
        Block(8, 4, 4),
        Block(8, 4, 4),
    ]
    found = stages_of(row, {(16, 16), (4, 4), (2, 2)})  # type: ignore[arg-type]
    # The blocks by way of 8x8, which the teacher lacks, belong to the stage that ends in 4x4.
    assert found == [Stage(IMAGE, (16, 16), slice(0, 2)), Stage((16, 16), (4, 4), slice(2, 5))]
    with pytest.raises(TeacherError, match="no feature maps of the same size"):
        stages_of(row, {(2, 2)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Part:
    """A block that is a module of the teacher."""

    kind: str
    input_shape: tuple[int, int, int]


class OwnParts:
    """A space whose only member is the teacher."""

    input_shape = (1, 8, 8)
    row = (
        Part("first", (1, 8, 8)),
        Part("second", (4, 8, 8)),
        Part("third", (6, 4, 4)),
        Part("head", (6, 2, 2)),
    )

    def blocks(self, architecture: Architecture) -> tuple[Part, ...]:
        return self.row

    def distinct_blocks(self) -> tuple[Part, ...]:
        return self.row

    def build_block(self, block: Part) -> nn.Module:
        return copy.deepcopy(teacher().get_submodule(block.kind))


def test_the_teachers_own_blocks_imitate_it_exactly(dataset: Dataset) -> None:
    """The identity of the method: the stages of the teacher, with its moments at their ends, are perfect."""
    its, space, only = teacher(), OwnParts(), Architecture((("which", 0),))
    weights = SharedWeights(space, 0)  # type: ignore[arg-type]
    rating = BlockwiseEvaluator(space, dataset, SETTINGS, its, weights)  # type: ignore[arg-type]
    images = to_tensor(dataset.validation.images[: SETTINGS.score_images], dataset.preprocessing)
    maps = Stages(space, its, dataset, weights).maps(images)  # type: ignore[arg-type]
    assert torch.allclose(its.second(maps[8, 8]), maps[4, 4])
    assert rating.evaluate(only).value < -0.1
    tensors = {}
    for block, place in weights.placed(only)[:3]:
        module = its.get_submodule(block.kind)
        tensors |= {f"{place}.{name}": values.detach() for name, values in module.named_parameters()}
    for size in maps.keys() - {IMAGE}:
        by_channel = maps[size].movedim(1, 0).flatten(1)
        tensors |= {f"scale-{size}": by_channel.std(1, correction=0), f"shift-{size}": by_channel.mean(1)}
    weights.load(tensors)
    exact = BlockwiseEvaluator(space, dataset, SETTINGS, its, weights).evaluate(only)  # type: ignore[arg-type]
    assert exact.value == pytest.approx(0.0, abs=1e-3)


def test_training_brings_the_stages_nearer_to_the_teacher(dataset: Dataset) -> None:
    space, its = small_space(), teacher()
    settings = SETTINGS.model_copy(update={"epochs": 12})
    weights, _ = train_blockwise(space, dataset, settings, seed=0, teacher=its)
    fresh = SharedWeights(space, 0)
    members = [space.sample(random.Random(seed)) for seed in range(4)]
    for each in members:
        before, after = (
            BlockwiseEvaluator(space, dataset, SETTINGS, its, which).evaluate(each).value
            for which in (fresh, weights)
        )
        assert after > before


def test_maps_that_are_kept_teach_what_those_of_each_batch_do(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses() -> list[float]:
        return train_blockwise(small_space(), dataset, SETTINGS, seed=0, teacher=teacher())[1]

    kept = losses()
    monkeypatch.setattr(blockwise, "_MOST_STORED", 0)
    # They are kept in half precision.
    assert losses() == pytest.approx(kept, rel=1e-2)


def test_a_teacher_without_maps_of_the_sizes_says_so(dataset: Dataset) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    with pytest.raises(TeacherError, match="no feature maps of the same size"):
        train_blockwise(small_space(), dataset, SETTINGS, seed=0, teacher=flat)
    maps = TeacherMaps(flat, torch.rand(2, 1, 8, 8))
    assert not maps.sizes
