"""A predictor that chooses how dearly to evaluate, and the process that joins the fidelities."""

import itertools

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor

from pipeline.search.base import FidelityStrategy, Score, SearchExhausted, TrustingStrategy
from pipeline.search.loop import search
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.search.strategies.fidelities import FidelityPredictor
from pipeline.search.strategies.fidelity_kernels import OFFSET, Noise, Offsets, Related, related
from pipeline.search.strategies.gaussian_process import (
    GaussianProcess,
    Link,
    Shape,
    better_shape,
    initial_shape,
    normal_scores,
)
from pipeline.search.strategies.predictor import PredictorStrategy
from tests.contracts.strategy import StrategyContract, score_of
from tests.pipeline.search.strategies.test_predictor import best_of, codes
from tests.pipeline.search.strategies.test_strategies import budgeted, value

SHARE = 0.1


def cheaply(architecture) -> float:
    """What a short training says: it likes wide networks too much, and errs for each a little."""
    wide = sum(choice for name, choice in architecture.choices if name.endswith("width"))
    return 0.5 * value(architecture) + 0.1 * wide + int(architecture.identity[:4], 16) / 65536


def told(strategy, cost, cheap=cheaply, dear=value):
    """What is asked for so much cost, with the fidelities."""
    asked, spent = [], 0.0
    while spent < cost - 1e-9:
        architecture = strategy.ask()
        fidelity = strategy.fidelity(architecture)
        strategy.tell(architecture, Score((dear if fidelity == 1 else cheap)(architecture)))
        asked.append((architecture, fidelity))
        spent += fidelity
    return asked


def chooser(constraints, seed, fidelities=(SHARE, 1.0), **settings):
    return FidelityPredictor(constraints, seed, fidelities=fidelities, **{"initial": 5} | settings)


class TestFidelityPredictor(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return chooser(constraints, seed)

    def test_ask_proposes_every_member_once_then_is_exhausted(self, constraints):
        """Once cheaply; what is not clearly worse then also dearly."""
        strategy, asked = self.make(constraints, 4), []
        with pytest.raises(SearchExhausted):
            while True:
                architecture = strategy.ask()
                asked.append((architecture, strategy.fidelity(architecture)))
                strategy.tell(architecture, score_of(architecture))
        assert len(asked) == len(set(asked))
        cheap = {each for each, fidelity in asked if fidelity < 1}
        assert cheap == set(constraints.members)
        dear = {each for each, fidelity in asked if fidelity == 1}
        assert 0 < len(dear) < len(cheap)
        assert all(score_of(each) is not None for each in dear), "what failed cheaply is left alone"


class TestThreeFidelities(TestFidelityPredictor):
    def make(self, constraints, seed):
        return chooser(constraints, seed, (0.1, 0.3, 1.0))


def test_a_cheap_biased_fidelity_finds_better_networks_for_the_same_cost_than_the_dear_one_alone():
    constraints = budgeted(stages=4, share=0.3)
    both, alone = [], []
    for seed in range(3):
        dear = [each for each, share in told(chooser(constraints, seed), 12) if share == 1]
        both.append(max(map(value, dear)))
        alone.append(best_of(PredictorStrategy(constraints, seed, initial=4), 12))
    assert sum(both) > sum(alone)


def test_the_same_seed_chooses_the_same_and_cheap_comes_before_dear():
    constraints = budgeted(stages=3, share=0.5)
    asked = told(chooser(constraints, 3, (0.1, 0.3, 1.0)), 6)
    assert asked == told(chooser(constraints, 3, (0.1, 0.3, 1.0)), 6)
    assert [fidelity for _, fidelity in asked[:5]] == [0.1] * 5
    for architecture in {each for each, _ in asked}:
        fidelities = [fidelity for each, fidelity in asked if each == architecture]
        assert fidelities == [0.1, 0.3, 1.0][: len(fidelities)]
    assert {fidelity for _, fidelity in asked} == {0.1, 0.3, 1.0}


def test_what_is_evaluated_dearly_is_better_than_most():
    constraints = budgeted(stages=4, share=0.3)
    asked = told(chooser(constraints, 0), 12)
    dear = [cheaply(each) for each, fidelity in asked if fidelity == 1]
    cheap = [cheaply(each) for each, fidelity in asked if fidelity < 1]
    assert len(cheap) > 2 * len(dear) > 0
    assert np.mean(dear) > np.median(cheap)


def test_the_ranking_has_what_was_evaluated_dearly_first_and_a_lucky_cheap_score_does_not_win():
    strategy = chooser(budgeted(stages=3, share=0.5), 0)
    assert isinstance(strategy, FidelityStrategy)
    assert isinstance(strategy, TrustingStrategy)
    assert not isinstance(PredictorStrategy(budgeted(), 0), FidelityStrategy)
    asked = told(strategy, 7)
    every = list(dict.fromkeys(each for each, _ in asked))
    dear = {each for each, fidelity in asked if fidelity == 1}
    before, ranking = strategy.state(), strategy.ranking(every)
    assert set(ranking[: len(dear)]) == dear
    assert set(ranking) == set(every)
    means = [each.mean for each in strategy.posterior(ranking)]
    first, rest = means[: len(dear)], means[len(dear) :]
    assert first == sorted(first, reverse=True)
    assert rest == sorted(rest, reverse=True)
    assert strategy.state() == before


def test_no_posterior_is_told_before_anything_was_evaluated_dearly():
    strategy = chooser(budgeted(), 0)
    asked = told(strategy, 0.4)
    assert {fidelity for _, fidelity in asked} == {SHARE}
    assert strategy.posterior([each for each, _ in asked]) == strategy.held_out() == []
    assert strategy.worth_of_fidelities() == [(SHARE, 0.5, None)]


def test_a_fidelity_that_tells_the_truth_was_worth_more_than_one_that_tells_nothing():
    def worth(cheap):
        strategy = chooser(budgeted(stages=4, share=0.3), 1)
        told(strategy, 14, cheap)
        ((share, trust, _),) = strategy.worth_of_fidelities()
        assert share == SHARE
        return trust

    assert worth(value) > worth(lambda each: float(int(each.identity[:6], 16)))


def test_what_was_never_asked_for_is_learned_as_dear():
    strategy = chooser(budgeted(), 0)
    known = EvolutionStrategy(budgeted(), 9, population_size=2).ask()
    strategy.know(known, Score(0.5))
    assert strategy.posterior([known])[0].mean == 0.5


def test_a_dear_score_that_is_known_from_elsewhere_counts_as_dear_after_a_cheap_one():
    strategy = chooser(budgeted(stages=3, share=0.5), 0)
    asked = [architecture for architecture, _ in told(strategy, 0.5)]
    strategy.know(asked[2], Score(0.1))
    assert strategy.ranking(asked)[0] == asked[2]
    assert strategy.posterior(asked[2:3])[0].mean == 0.1
    assert strategy.learned()["levels"] == [0] * 5 + [1]


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_space_with_fewer_members_than_first_draws_is_evaluated_dearly_all_the_same(tmp_path, ahead):
    constraints = budgeted(share=0.01)
    assert len(constraints.members) < 20
    strategy = chooser(constraints, 0, (0.25, 1.0), initial=40)

    class Goal:
        def evaluate(self, architecture):
            return Score(value(architecture) + int(architecture.identity[:4], 16) / 65536)

    found = search(strategy, Goal(), 24, tmp_path / "journal", cheaper={0.25: Goal()}, ahead=ahead)
    whole = [each.architecture for each in found if each.fidelity == 1]
    assert {each.architecture for each in found} == set(constraints.members)
    best = max(constraints.members, key=lambda each: Goal().evaluate(each).value)
    assert best in whole


@pytest.mark.parametrize("fidelities", [(), (0.5,), (1.0, 0.5), (0.0, 1.0), (0.5, 0.5, 1.0), (0.5, 1.5)])
def test_fidelities_that_do_not_ascend_to_one_are_refused(fidelities):
    with pytest.raises(ValueError, match="ascend"):
        chooser(budgeted(), 0, fidelities)


LEVELS = np.array([0] * 20 + [1] * 12 + [2] * 8)
SHAPE = Shape((1.0, 2.0), 0.1, (Link(0.8, 0.5, 0.05), Link(1.3, 0.4, 0.2)))


def test_fidelities_are_related_as_lines_through_the_next_cheaper_ones():
    owns, slopes = np.array([0.5, 0.4]), np.array([0.8, 1.3])
    one, two = 0.8**2 + 0.5**2, 0.8 * 1.3
    expected = [[1, 0.8, two], [0.8, one, 1.3 * one], [two, 1.3 * one, 1.3**2 * one + 0.4**2]]
    assert related(owns, slopes) == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    "kernel",
    [
        Related(np.array([0.5, 0.4]), np.array([0.8, 1.3])),
        Related(np.array([0.5, 0.4]), np.array([0.8, 1.3])) + Noise(np.array([0.1, 0.2, 0.3]), (0.01, 1)),
        Related(np.array([0.5, 0.4]), np.array([0.8, 1.3])) * Offsets() + Noise(np.full(3, 0.1), (0.01, 1)),
    ],
)
def test_gradients_of_kernels_are_those_of_small_steps(kernel):
    points = np.hstack([np.zeros((40, 1)), LEVELS[:, None]])
    process = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.1)
    process.fit(points, np.random.default_rng(0).normal(size=40))
    theta = process.kernel_.theta
    _, gradient = process.log_marginal_likelihood(theta, eval_gradient=True)
    steps = 1e-5 * np.eye(len(theta))
    ahead, behind = (
        np.array([process.log_marginal_likelihood(theta + sign * step) for step in steps]) for sign in (1, -1)
    )
    assert gradient == pytest.approx((ahead - behind) / 2e-5, rel=1e-4)
    assert kernel.diag(points) == pytest.approx(np.diag(kernel(points)))


def test_a_process_of_several_fidelities_agrees_with_the_textbook_formula():
    generator = np.random.default_rng(1)
    features, new = generator.normal(size=(40, 3)), generator.normal(size=(4, 3))
    scores, shape = generator.normal(size=40), SHAPE._replace(lengths=(1.5,))
    process = GaussianProcess([features], scores, shape, LEVELS)
    covariances = related(np.array([0.5, 0.4]), np.array([0.8, 1.3]))
    scale = 1.5 * 2 * features.var(axis=0).sum()

    def alike(one, other):
        return np.exp(-((one[:, None] - other[None]) ** 2).sum(axis=-1) / scale)

    same = (LEVELS[:, None] == LEVELS) & (LEVELS > 0)
    noise = np.diag(np.array([0.1, 0.05, 0.2])[LEVELS])
    known = alike(features, features) * covariances[LEVELS][:, LEVELS] + OFFSET * same + noise
    shared = alike(new, features) * covariances[2, LEVELS]
    offset = OFFSET * (LEVELS == 2)
    means, deviations = process.predict([new])
    assert means == pytest.approx((shared + offset) @ np.linalg.solve(known, scores))
    variances = covariances[2, 2] - np.diag(shared @ np.linalg.solve(known, shared.T))
    assert deviations**2 == pytest.approx(variances)
    # What a cheap score at these points would tell of the truth there.
    cheap = alike(new, features) * covariances[0, LEVELS]
    together = covariances[0, 2] - np.diag(cheap @ np.linalg.solve(known, shared.T))
    of_cheap = 1 - np.diag(cheap @ np.linalg.solve(known, cheap.T)) + 0.1
    assert process.tells([new], 0) == pytest.approx(together / np.sqrt(of_cheap * variances))


def test_cheap_scores_that_tell_nothing_take_no_more_than_half():
    asked = told(chooser(budgeted(stages=4), 0), 8, cheap=lambda each: float(int(each.identity[:6], 16)))
    dear = sum(fidelity == 1 for _, fidelity in asked)
    assert dear >= 3
    assert SHARE * (len(asked) - dear) <= dear + 1


def test_a_fidelity_that_tells_nothing_is_known_to():
    features = [codes(60)]
    truth = features[0][:, :4].sum(axis=1)
    noise = np.random.default_rng(2).normal(size=60)
    levels = np.repeat([0, 1], 60)

    def tells(cheap):
        scores = np.concatenate([normal_scores(cheap.tolist()), normal_scores(truth.tolist())])
        both = [np.concatenate([each, each]) for each in features]
        shape = better_shape(both, scores, initial_shape(1, 2), levels)
        return GaussianProcess(both, scores, shape, levels).tells([codes(60, 1)], 0).mean()

    assert tells(truth + 0.3 * noise) > tells(noise)


def test_scores_of_a_dearer_fidelity_may_begin_anywhere():
    """Only good networks were evaluated dearly: their scores are about 0 again, and they stay good."""
    features = [np.linspace(0, 1, 20)[:, None]]
    cheap, dear = normal_scores(range(20)), normal_scores(range(6))
    both = [np.concatenate([features[0], features[0][14:]])]
    levels = np.array([0] * 20 + [1] * 6)
    process = GaussianProcess(both, np.concatenate([cheap, dear]), initial_shape(1, 2), levels)
    means, _ = process.predict(features)
    assert min(means[14:]) > max(means[:10])
    assert all(one < other for one, other in itertools.pairwise(means[10:]))
