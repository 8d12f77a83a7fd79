import math

import pytest
import torch

from pipeline.distill.settings import DistillationSettings
from pipeline.search.evaluators.short_training import DistillationEvaluator
from pipeline.search.loop import search
from pipeline.spaces.cost import block_cost
from tests.pipeline.search.search_models import small_space


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SMALL = small_space().extreme(lambda block: block_cost(block).macs)


class TrueTargets:
    """A teacher that knows."""

    def __init__(self, dataset):
        self._logits = 8.0 * torch.nn.functional.one_hot(torch.from_numpy(dataset.train.labels)).float()

    def __call__(self, images, index):
        return self._logits[None, index]


def evaluator(dataset, targets=None, seed=0, **changes):
    settings = DistillationSettings(**{"epochs": 2, "batch_size": 32, **changes})
    return DistillationEvaluator(small_space(), dataset, targets or TrueTargets(dataset), settings, seed)


def test_score_learns_an_easy_task_and_gives_the_binomial_standard_error(dataset):
    score = evaluator(dataset, epochs=10).evaluate(SMALL)
    assert score.value > 0.6
    assert score.spread == pytest.approx(math.sqrt(score.value * (1 - score.value) / 64))


def test_score_repeats_whatever_was_evaluated_before(dataset):
    other = SMALL.with_choice("stage1.kernel", 5)
    alone = evaluator(dataset).evaluate(SMALL)
    both = evaluator(dataset)
    both.evaluate(other)
    torch.manual_seed(123)
    assert both.evaluate(SMALL) == alone


def test_score_leaves_the_global_generator_as_it_was(dataset):
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    evaluator(dataset, epochs=1).evaluate(SMALL)
    assert torch.equal(torch.rand(3), expected)


def test_diverged_training_is_a_failed_candidate(dataset, tmp_path):
    class NotANumber:
        def __call__(self, images, index):
            return torch.full((1, len(index), 3), math.nan)

    class OneProposal:
        def ask(self):
            return SMALL

        def tell(self, architecture, score):
            assert score is None

    found = search(OneProposal(), evaluator(dataset, NotANumber()), 1, tmp_path / "journal.jsonl")
    assert found[0].score is None
    assert "TrainingDiverged" in found[0].failure


def test_score_without_soft_targets_learns_from_labels(dataset):
    settings = DistillationSettings(epochs=10, batch_size=32)
    assert DistillationEvaluator(small_space(), dataset, None, settings, 0).evaluate(SMALL).value > 0.6
