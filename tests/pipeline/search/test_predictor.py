import math
import random

import numpy as np
import pytest
from contracts.explorer import ExplorerContract
from test_explorers import budgeted, value

from pipeline.search.base import Rating
from pipeline.search.explorers.evolution import EvolutionExplorer
from pipeline.search.explorers.gaussian_process import GaussianProcess, Shape, best_shape, normal_scores
from pipeline.search.explorers.predictor import PredictorExplorer


class TestPredictorExplorer(ExplorerContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return PredictorExplorer(constraints, seed, initial=5)


def best_of(explorer, rounds=60):
    best = -math.inf
    for _ in range(rounds):
        architecture = explorer.ask()
        best = max(best, value(architecture))
        explorer.tell(architecture, Rating(value(architecture)))
    return best


def test_predictor_finds_better_networks_with_few_ratings_than_evolution_does():
    constraints = budgeted(stages=4, share=0.3)
    found = [best_of(PredictorExplorer(constraints, seed)) for seed in range(5)]
    evolved = [best_of(EvolutionExplorer(constraints, seed)) for seed in range(5)]
    assert sum(found) > sum(evolved)


def test_proposals_depend_on_the_order_of_the_ratings_alone():
    def asked(scale):
        explorer = PredictorExplorer(budgeted(), 0, initial=5)
        for _ in range(20):
            architecture = explorer.ask()
            explorer.tell(architecture, Rating(scale(value(architecture))))
        return explorer.state()["asked"]

    assert asked(lambda x: x) == asked(lambda x: math.exp(x) - 7)


@pytest.mark.parametrize("arguments", [{"initial": 1}, {"boldness": -0.1}, {"boldness": math.inf}])
def test_settings_without_meaning_are_refused(arguments):
    with pytest.raises(ValueError):
        PredictorExplorer(budgeted(), 0, **arguments)


def codes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (count, 12)).astype(np.float64)


def test_process_passes_through_what_it_knows_where_there_is_no_noise():
    features = np.unique(codes(30), axis=0)
    scores = features[:, 0] - features[:, 3] * features[:, 5]
    process = GaussianProcess(features, scores, Shape(1.0, 1e-9))
    means, deviations = process.predict(features)
    assert means == pytest.approx(scores, abs=1e-5)
    assert deviations == pytest.approx(0.0, abs=1e-3)


def test_process_knows_nothing_far_away():
    process = GaussianProcess(codes(20), np.ones(20), Shape(1.0, 0.1))
    means, deviations = process.predict(codes(20) + 100.0)
    assert means == pytest.approx(0.0, abs=1e-9)
    assert deviations == pytest.approx(1.0)


def test_process_agrees_with_the_textbook_formula():
    features, scores, new = codes(15), np.linspace(-1, 1, 15), codes(4, seed=1)
    process = GaussianProcess(features, scores, Shape(0.5, 0.2))

    def kernel(one, other):
        distances = ((one[:, None] - other[None]) ** 2).sum(axis=-1)
        scale = 0.5 * ((features[:, None] - features[None]) ** 2).sum(axis=-1).mean()
        return np.exp(-distances / scale)

    inverse = np.linalg.inv(kernel(features, features) + 0.2 * np.eye(15))
    means, deviations = process.predict(new)
    assert means == pytest.approx(kernel(new, features) @ inverse @ scores)
    variances = 1 - np.diag(kernel(new, features) @ inverse @ kernel(features, new))
    assert deviations**2 == pytest.approx(variances)


def test_noise_that_is_there_is_found():
    features = codes(120)
    signal = features[:, :4].sum(axis=1)
    noise = np.random.default_rng(1).standard_normal(120)
    clean, noisy = (normal_scores(values) for values in (signal, signal + 2 * noise))
    assert best_shape(features, clean).noise < best_shape(features, noisy).noise


def test_normal_scores_keep_order_and_ties_and_are_symmetric():
    values = [3.0, -1.0, 3.0, 8.0, -1.0, 5.0]
    scores = normal_scores(values)
    assert scores[0] == scores[2]
    assert scores[1] == scores[4]
    assert sorted(range(6), key=scores.__getitem__) == sorted(range(6), key=values.__getitem__)
    shuffled = random.Random(0).sample(range(11), 11)
    assert sorted(normal_scores(shuffled)) == pytest.approx(sorted(-normal_scores(shuffled)))
