import math

import numpy as np
import pytest
import torch
from search_models import small_space

from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.distill.settings import TrainingSettings
from pipeline.search.loop import search
from pipeline.search.rater import DistillationRater


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Three classes of 8x8 images that differ in where they are bright."""
    generator = np.random.default_rng(0)

    def split(size: int) -> Split:
        labels = generator.integers(0, 3, size)
        images = generator.integers(0, 80, (size, 8, 8, 1))
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 3] += 150
        return Split(images.astype(np.uint8), labels.astype(np.int64))

    return Dataset(
        "bars", split(192), split(64), split(1), ("a", "b", "c"), Preprocessing((0.5,), (0.25,)), "digest"
    )


class TrueTargets:
    """A teacher that knows."""

    def __init__(self, dataset):
        self._logits = 8.0 * torch.nn.functional.one_hot(torch.from_numpy(dataset.train.labels)).float()

    def __call__(self, images, index):
        return self._logits[index]


def rater(dataset, targets=None, seed=0, **changes):
    settings = TrainingSettings(**{"epochs": 2, "batch_size": 32, **changes})
    return DistillationRater(small_space(), dataset, targets or TrueTargets(dataset), settings, seed)


def test_rate_learns_an_easy_task_and_gives_the_binomial_standard_error(dataset):
    rating = rater(dataset, epochs=6).rate(small_space().reference())
    assert rating.value > 0.6
    assert rating.spread == pytest.approx(math.sqrt(rating.value * (1 - rating.value) / 64))


def test_rate_repeats_whatever_was_rated_before(dataset):
    space = small_space()
    first, second = space.reference(), space.extreme(lambda block: 1.0)
    alone = rater(dataset).rate(second)
    both = rater(dataset)
    both.rate(first)
    torch.manual_seed(123)
    assert both.rate(second) == alone


def test_rate_leaves_the_global_generator_as_it_was(dataset):
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    rater(dataset).rate(small_space().reference())
    assert torch.equal(torch.rand(3), expected)


def test_diverged_training_is_a_failed_candidate(dataset, tmp_path):
    class NotANumber:
        def __call__(self, images, index):
            return torch.full((len(index), 3), math.nan)

    class OneProposal:
        def ask(self):
            return small_space().reference()

        def tell(self, architecture, rating):
            assert rating is None

    found = search(OneProposal(), rater(dataset, NotANumber()), 1, tmp_path / "journal.jsonl")
    assert found[0].rating is None
    assert "TrainingDiverged" in found[0].failure
