import math
import random

import numpy as np
import pytest
from scipy.stats import rankdata

from pipeline.search.base import RankingStrategy, Score, TrustingStrategy
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.search.strategies.gaussian_process import (
    GaussianProcess,
    Shape,
    better_shape,
    initial_shape,
    normal_scores,
)
from pipeline.search.strategies.predictor import PredictorStrategy, quantiles
from pipeline.search.strategies.random_search import RandomStrategy
from pipeline.spaces.base import architecture_of
from tests.contracts.strategy import StrategyContract
from tests.pipeline.search.strategies.test_strategies import budgeted, value


class TestPredictorStrategy(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return PredictorStrategy(constraints, seed, initial=5)


def rated(architecture):
    """A rating that tells much, one that is always the same, and one that fails now and then."""
    own = value(architecture)
    return own + int(architecture.identity[:2], 16) / 256, 1.0, math.nan if own % 3 == 0 else -own


class TestPredictorWithRatings(TestPredictorStrategy):
    def make(self, constraints, seed):
        return PredictorStrategy(constraints, seed, initial=5, ratings=rated)


def test_ratings_that_tell_something_find_better_networks_with_few_scores():
    constraints = budgeted(stages=4, share=0.3)
    plain = [best_of(PredictorStrategy(constraints, seed), 30) for seed in range(5)]
    told_more = [best_of(PredictorStrategy(constraints, seed, ratings=rated), 30) for seed in range(5)]
    assert sum(told_more) > sum(plain)


class TestPredictorWithFewRatings(TestPredictorStrategy):
    def make(self, constraints, seed):
        return PredictorStrategy(constraints, seed, initial=5, ratings=rated, rated=2)


def test_no_more_than_what_can_be_afforded_is_rated_and_that_is_what_promises_most():
    def ratings_of(rated):
        asked = []
        strategy = PredictorStrategy(
            budgeted(stages=4, share=0.3),
            0,
            initial=5,
            ratings=lambda each: asked.append(each) or (1.0,),
            rated=rated,
        )
        told(strategy, 25)
        return asked

    few, every = ratings_of(2), ratings_of(None)
    assert len(few) == len(set(few)) <= 25 + 2 * 20 < len(every)
    assert np.mean(list(map(value, few[5:]))) > np.mean(list(map(value, every[5:])))


def test_the_first_draws_are_those_rated_best_of_as_many_as_may_be_rated():
    looked_at = []
    strategy = PredictorStrategy(
        budgeted(stages=4, share=0.3),
        0,
        initial=12,
        ratings=lambda each: looked_at.append(each) or (value(each), math.nan),
        rated=4,
    )
    first = strategy.ask()
    assert 6 < len(looked_at) == len(set(looked_at)) <= 6 * 4
    asked = [first, *(strategy.ask() for _ in range(5))]
    assert len(looked_at) <= 6 * 4
    # What failed everywhere is in the middle, and so is at most the worst of the upper half.
    upper = sorted(map(value, looked_at), reverse=True)[: len(looked_at) // 2]
    assert set(map(value, asked)) <= set(upper)


def test_the_first_draw_is_the_one_that_no_rating_thinks_badly_of():
    ratings = {}

    def rated(each):
        ratings[each] = (value(each), -float(int(each.identity[:4], 16)))
        return ratings[each]

    strategy = PredictorStrategy(budgeted(stages=4, share=0.3), 0, initial=20, ratings=rated)
    first = strategy.ask()
    ranks = np.stack([rankdata(column) for column in zip(*ratings.values(), strict=True)])
    assert ranks[:, list(ratings).index(first)].min() == ranks.min(axis=0).max()


def test_a_rating_that_misleads_is_not_followed_once_scores_speak_against_it():
    looked_at = []
    strategy = PredictorStrategy(
        budgeted(stages=4, share=0.3),
        0,
        initial=40,
        ratings=lambda each: looked_at.append(each) or (-value(each),),
        rated=10,
    )
    asked = evaluated_by(told(strategy, 20))
    assert value(asked[0]) == min(map(value, looked_at))
    # Ten scores outweigh what it counts at first, and draws go on as they came.
    assert strategy.trust() == [0.0]
    assert np.mean(list(map(value, asked[10:]))) > np.mean(list(map(value, asked[:5])))


def test_without_ratings_the_first_draws_are_those_of_random_search():
    predictor = PredictorStrategy(budgeted(stages=4, share=0.3), 0, initial=6)
    random_search = RandomStrategy(budgeted(stages=4, share=0.3), 0)
    assert [predictor.ask() for _ in range(6)] == [random_search.ask() for _ in range(6)]


def test_a_rating_counts_by_its_quantile_and_one_that_failed_is_in_the_middle():
    seen = np.array([[1.0], [2.0], [math.nan], [400.0]])
    low, middle, high, failed = quantiles(seen, np.array([[1.0], [2.0], [1e9], [-math.inf]]))[:, 0]
    assert low == pytest.approx(-high)
    assert middle == failed == pytest.approx(0.0)
    assert not quantiles(np.array([[math.nan]]), seen).any()


def best_of(strategy, rounds=60):
    best = -math.inf
    for _ in range(rounds):
        architecture = strategy.ask()
        best = max(best, value(architecture))
        strategy.tell(architecture, Score(value(architecture)))
    return best


def test_predictor_finds_better_networks_with_few_scores_than_evolution_does():
    constraints = budgeted(stages=4, share=0.3)
    found = [best_of(PredictorStrategy(constraints, seed)) for seed in range(5)]
    evolved = [best_of(EvolutionStrategy(constraints, seed)) for seed in range(5)]
    assert sum(found) > sum(evolved)


def evaluated_by(strategy):
    space = strategy.constraints.space
    return [architecture_of(space, pairs) for pairs, _ in strategy.learned()["evaluated"]]


def told(strategy, rounds, noise=0.0):
    generator = random.Random(7)
    for _ in range(rounds):
        architecture = strategy.ask()
        strategy.tell(architecture, Score(value(architecture) + generator.gauss(0.0, noise)))
    return strategy


def test_ranking_has_every_evaluated_architecture_once_and_changes_nothing():
    strategy = PredictorStrategy(budgeted(), 0, initial=5)
    assert isinstance(strategy, RankingStrategy)
    assert not isinstance(EvolutionStrategy(budgeted(), 0), RankingStrategy)
    assert strategy.ranking([]) == []
    told(strategy, 13)
    unanswered = strategy.ask()
    before = strategy.state()
    ranking = strategy.ranking(evaluated_by(strategy))
    assert strategy.state() == before
    assert unanswered not in ranking
    assert len(ranking) == len(set(ranking)) == 13


def test_the_posterior_is_in_the_unit_of_scores_and_in_the_order_of_the_ranking():
    strategy = PredictorStrategy(budgeted(stages=3, share=0.5), 0, initial=5, ratings=rated)
    assert isinstance(strategy, TrustingStrategy)
    assert strategy.posterior([strategy.constraints.certificate.anchor]) == strategy.held_out() == []
    told(strategy, 4)
    assert strategy.posterior(evaluated_by(strategy))
    assert strategy.held_out() == []
    told(strategy, 26, noise=2.0)
    before, ranking = strategy.state(), strategy.ranking(evaluated_by(strategy))
    posterior = strategy.posterior(ranking)
    means = [each.mean for each in posterior]
    scores = [score for _, score in strategy.learned()["evaluated"]]
    assert means == sorted(means, reverse=True)
    assert min(scores) <= means[-1] < means[0] <= max(scores)
    assert all(0 < (each.deviation or 1e-9) < max(scores) - min(scores) for each in posterior)
    # The best score was luck in part, and is not expected to come again.
    assert means[0] < max(scores)
    assert strategy.state() == before


def test_the_posterior_under_a_reward_of_latency_is_still_a_score():
    def halved_if_wide(architecture, score):
        return score.value * (0.5 if architecture["stage1.width"] == widest else 1.0)

    constraints = budgeted(stages=3, share=0.5)
    widest = max(next(each.choices for each in constraints.space.decisions if each.name == "stage1.width"))
    strategy = PredictorStrategy(constraints, 0, initial=5, reward=halved_if_wide)
    for _ in range(20):
        strategy.tell(strategy.ask(), Score(0.8))
    asked = evaluated_by(strategy)
    assert len({each["stage1.width"] for each in asked}) > 1
    assert [each.mean for each in strategy.posterior(asked)] == pytest.approx([0.8] * 20, abs=0.1)


def test_scores_and_ratings_that_are_all_the_same_promise_that_score():
    strategy = PredictorStrategy(budgeted(), 0, initial=5, ratings=lambda _: (7.0,))
    for _ in range(12):
        strategy.tell(strategy.ask(), Score(0.25))
    asked = evaluated_by(strategy)
    assert [each.mean for each in strategy.posterior(asked)] == [0.25] * 12
    assert strategy.held_out() == [0.0, 0.0]
    assert len(set(strategy.ranking(asked))) == 12


def test_what_a_rating_was_worth_is_what_is_lost_without_it():
    def ratings(architecture):
        return value(architecture), float(int(architecture.identity[:6], 16))

    strategy = told(PredictorStrategy(budgeted(stages=4), 0, initial=30, ratings=ratings), 30, noise=2.0)
    every, without_the_good, without_the_random = strategy.held_out()
    assert without_the_good < every
    assert abs(without_the_random - every) < every - without_the_good


def test_a_score_held_out_is_predicted_as_by_a_process_that_never_knew_it():
    features, scores = [codes(15), codes(15, 2)[:, :3]], normal_scores(range(15))
    shape = Shape((0.5, 3.0), 0.2)
    process = GaussianProcess(features, scores, shape)
    # Scales of features are those of all.
    alone = [features[0] / process._scales[0], features[1] / process._scales[1]]
    others = np.arange(15) != 4
    kernel = np.exp(
        -sum(
            ((group[:, None] - group[None]) ** 2).sum(axis=-1) / length
            for group, length in zip(alone, shape.lengths, strict=True)
        )
    )
    known = kernel[others][:, others] + shape.noise * np.eye(14)
    assert process.held_out()[4] == pytest.approx(kernel[4, others] @ np.linalg.solve(known, scores[others]))


def test_budgets_that_become_narrower_are_kept():
    strategy = told(PredictorStrategy(budgeted(stages=3, share=0.6), 0), 20)
    strategy.constraints = budgeted(stages=3, share=0.2)
    for _ in range(15):
        architecture = strategy.ask()
        assert strategy.constraints.feasible(architecture)
        strategy.tell(architecture, Score(value(architecture)))


def test_reward_is_learned_in_place_of_the_score():
    strategy = PredictorStrategy(budgeted(), 0, initial=5, reward=lambda _, score: -score.value)
    told(strategy, 15)
    ranking = strategy.ranking(evaluated_by(strategy))
    assert value(ranking[-1]) > value(ranking[0])


def test_reward_that_is_not_finite_is_refused():
    strategy = PredictorStrategy(budgeted(), 0, reward=lambda *_: math.nan)
    with pytest.raises(ValueError, match="nan"):
        strategy.tell(strategy.ask(), Score(0.5))


def test_one_score_is_a_ranking():
    strategy = told(PredictorStrategy(budgeted(), 0), 1)
    assert len(strategy.ranking(evaluated_by(strategy))) == 1


def test_ranking_is_closer_to_the_truth_than_noisy_scores():
    ranked, evaluated = [], []
    for seed in range(8):
        strategy = told(PredictorStrategy(budgeted(stages=3, share=0.4), seed), 40, noise=3.0)
        scores = strategy.learned()["evaluated"]
        best = max(range(len(scores)), key=lambda number: scores[number][1])
        evaluated.append(
            sum(choice for name, choice in scores[best][0] if name.endswith(("kernel", "depth")))
        )
        ranked.append(value(strategy.ranking(evaluated_by(strategy))[0]))
    assert sum(ranked) > sum(evaluated)


def test_latency_tells_the_predictor_what_the_choices_do_not():
    """Of two groups of features one is noise; the length of the kernel over it becomes longer."""
    generator = np.random.default_rng(3)
    latencies = generator.uniform(size=(60, 1))
    scores = normal_scores(np.sin(4 * latencies[:, 0]).tolist())
    shape = better_shape([codes(60), latencies], scores, initial_shape(2))
    assert shape.lengths[0] > shape.lengths[1]


def test_proposals_depend_on_the_order_of_the_scores_alone():
    def asked(scale):
        strategy = PredictorStrategy(budgeted(), 0, initial=5)
        for _ in range(20):
            architecture = strategy.ask()
            strategy.tell(architecture, Score(scale(value(architecture))))
        return strategy.state()["asked"]

    assert asked(lambda x: x) == asked(lambda x: math.exp(x) - 7)


@pytest.mark.parametrize(
    "arguments", [{"initial": 1}, {"rated": 0}, {"boldness": -0.1}, {"boldness": math.inf}]
)
def test_settings_without_meaning_are_refused(arguments):
    with pytest.raises(ValueError):
        PredictorStrategy(budgeted(), 0, **arguments)


def codes(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (count, 12)).astype(np.float64)


def test_process_passes_through_what_it_knows_where_there_is_no_noise():
    features = np.unique(codes(30), axis=0)
    scores = features[:, 0] - features[:, 3] * features[:, 5]
    process = GaussianProcess([features], scores, Shape((1.0,), 1e-9))
    means, deviations = process.predict([features])
    assert means == pytest.approx(scores, abs=1e-5)
    assert deviations == pytest.approx(0.0, abs=1e-3)


def test_process_knows_nothing_far_away():
    process = GaussianProcess([codes(20)], np.ones(20), Shape((1.0,), 0.1))
    means, deviations = process.predict([codes(20) + 100.0])
    assert means == pytest.approx(0.0, abs=1e-9)
    assert deviations == pytest.approx(1.0)


def test_process_agrees_with_the_textbook_formula():
    features, scores, new = [codes(15), codes(15, 2)[:, :3]], np.linspace(-1, 1, 15), codes(4, seed=1)
    elsewhere = [new, new[:, :3]]
    process = GaussianProcess(features, scores, Shape((0.5, 3.0), 0.2))

    def kernel(one, other):
        exponent = np.zeros((len(one[0]), len(other[0])))
        for group, a, b, length in zip(features, one, other, (0.5, 3.0), strict=True):
            scale = length * ((group[:, None] - group[None]) ** 2).sum(axis=-1).mean()
            exponent += ((a[:, None] - b[None]) ** 2).sum(axis=-1) / scale
        return np.exp(-exponent)

    inverse = np.linalg.inv(kernel(features, features) + 0.2 * np.eye(15))
    means, deviations = process.predict(elsewhere)
    assert means == pytest.approx(kernel(elsewhere, features) @ inverse @ scores)
    variances = 1 - np.diag(kernel(elsewhere, features) @ inverse @ kernel(features, elsewhere))
    assert deviations**2 == pytest.approx(variances)


def test_noise_that_is_there_is_found():
    features = [codes(120), codes(120, seed=5)]
    signal = features[0][:, :4].sum(axis=1)
    noise = np.random.default_rng(1).standard_normal(120)
    clean, noisy = (normal_scores(values.tolist()) for values in (signal, signal + 2 * noise))
    start = initial_shape(2)
    assert better_shape(features, clean, start).noise < better_shape(features, noisy, start).noise


def test_normal_scores_keep_order_and_ties_and_are_symmetric():
    values = [3.0, -1.0, 3.0, 8.0, -1.0, 5.0]
    scores = normal_scores(values)
    assert scores[0] == scores[2]
    assert scores[1] == scores[4]
    assert sorted(range(6), key=scores.__getitem__) == sorted(range(6), key=values.__getitem__)
    shuffled = random.Random(0).sample(range(11), 11)
    assert sorted(normal_scores(shuffled)) == pytest.approx(sorted(-normal_scores(shuffled)))
