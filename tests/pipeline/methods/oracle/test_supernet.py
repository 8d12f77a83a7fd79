from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.distill.losses.settings import LabelsSettings, OracleSettings
from pipeline.distill.settings import DistillationSettings, EpochRecord
from pipeline.distill.targets import targets_for
from pipeline.distill.training import fit
from pipeline.methods.oracle.supernet import SharedWeights
from pipeline.search.evaluators.shared_weights import SharedWeightsEvaluator
from pipeline.spaces.add_on.config import AddOnSpaceConfig
from pipeline.spaces.add_on.space import AddOnChoice, AddOnSpace
from pipeline.teachers.teacher import Member, Teacher
from tests.killed_process import die, run_until_killed

SPACE = AddOnSpace(AddOnSpaceConfig(width=4, stages=2, depth=1), (1, 6, 6), 2)
LOSS = (LabelsSettings(weight=0.1), OracleSettings(weight=0.9))
SETTINGS = DistillationSettings(epochs=3, batch_size=16, learning_rate=0.05, patience=99, loss=LOSS)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """What is trained in another process is compared to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _dataset(validation: int = 33) -> Dataset:
    """Dark and bright noise."""
    generator = np.random.default_rng(0)
    labels = np.arange(64, dtype=np.int64) % 2
    images = (generator.integers(0, 120, (64, 6, 6, 1)) + 110 * labels[:, None, None, None]).astype(np.uint8)
    split = Split(images, labels)
    held = split.take(np.arange(validation))
    return Dataset("noise", split, held, held, ("dark", "bright"), Preprocessing((0.5,), (0.3,)), "d")


class _Brightness(nn.Module):
    """Right where the mean is on the label's side of a threshold of its own."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images.mean((1, 2, 3)) - self.threshold
        return torch.stack([-bright, bright], 1) * 4


def _teacher() -> Teacher:
    return Teacher([Member(str(t), _Brightness(t), str(t)) for t in (-0.6, -0.1, 0.3)])


def _network(seed: int = 0) -> SharedWeights:
    torch.manual_seed(seed)
    return SharedWeights(SPACE, seed)


def _trained(checkpoint: Path, epochs: int = 3, die: Callable[[], None] | None = None) -> SharedWeights:
    def stop(done: int, total: int, record: EpochRecord) -> None:
        if die is not None:
            die()

    network, dataset = _network(), _dataset()
    settings = SETTINGS.model_copy(update={"epochs": epochs})
    targets = targets_for(_teacher(), dataset, settings)
    fit(network, dataset, settings, seed=0, targets=targets, checkpoint=checkpoint, on_epoch=stop)
    return network


@pytest.mark.parametrize("seed", range(6))
def test_a_path_is_the_network_that_the_space_builds(seed: int) -> None:
    member = SPACE.sample(random.Random(seed))
    shared, built = _network().eval(), SPACE.build(member).train()
    shared.architecture = member
    paths = iter([shared.stem, *_modules_of(shared, member), shared.classifier])
    for module in built:
        module.load_state_dict(next(paths).state_dict(), strict=False)
    images = torch.rand(5, 1, 6, 6)
    assert torch.allclose(shared(images), built(images), atol=1e-6)


def _modules_of(shared: SharedWeights, member: object) -> list[nn.Module]:
    """Modules with the names that the built layers give to their parts."""
    found: list[nn.Module] = []
    for layer, choice in zip(shared.layers, SPACE.choices(member), strict=True):  # type: ignore[arg-type]
        if choice.operation == "identity":
            found.append(layer.block)
        else:
            parts = {"block": layer.block, "add_on": layer.add_ons[f"{choice.operation}-{choice.source}"]}
            found.append(nn.ModuleDict(parts))
    return found


def test_joins_of_one_operation_share_its_weights() -> None:
    shared = _network()
    assert list(shared.layers[0].add_ons) == [
        f"{operation}-{source}" for source in ("output", "input") for operation in SPACE.config.operations
    ]


def test_every_batch_of_training_goes_through_a_path_of_its_own() -> None:
    shared = _network().train()
    images = torch.rand(4, 1, 6, 6)
    outputs = [shared(images) for _ in range(4)]
    assert len({float(each.detach().sum()) for each in outputs}) > 1
    shared.eval()
    assert torch.equal(shared(images), shared(images))


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_one_goes_through(training: bool) -> None:
    space = AddOnSpace(SPACE.config.model_copy(update={"stages": 4}), (1, 6, 6), 2)
    network = SharedWeights(space, 0).train(training)
    assert network(torch.rand(1, 1, 6, 6)).shape == (1, 2)


def test_training_teaches_paths_that_it_was_not_told_of(tmp_path: Path) -> None:
    network = _trained(tmp_path / "c", epochs=12)
    evaluator = SharedWeightsEvaluator(network, _dataset())
    scores = [evaluator.evaluate(SPACE.sample(random.Random(seed))) for seed in range(8)]
    assert np.mean([score.value for score in scores]) > 0.8
    for score in scores:
        assert score.spread == pytest.approx(np.sqrt(score.value * (1 - score.value) / 33))


def test_a_training_killed_and_resumed_equals_one_that_was_not(tmp_path: Path) -> None:
    whole = _trained(tmp_path / "whole")
    run_until_killed(partial(_trained, tmp_path / "resumed", die=die))
    assert (tmp_path / "resumed").exists()
    resumed = _trained(tmp_path / "resumed")
    states = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)


def test_a_score_depends_on_the_architecture_alone_also_in_another_process() -> None:
    evaluator = SharedWeightsEvaluator(_network(), _dataset())
    one = SPACE.architecture([AddOnChoice("conv3"), AddOnChoice("max_pool", "input")])
    first = evaluator.evaluate(one)
    evaluator.evaluate(SPACE.reference())
    assert evaluator.evaluate(one) == first
    assert pickle.loads(pickle.dumps(evaluator)).evaluate(one) == first
