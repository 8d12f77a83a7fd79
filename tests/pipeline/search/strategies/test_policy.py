import itertools
import math
import random
from dataclasses import replace

import pytest
import torch

from latency_db.estimate import Estimate
from pipeline.errors import WorkFolderError
from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.rewards import SoftReward
from pipeline.search.strategies.policy import PolicySettings, PolicyStrategy
from pipeline.search.strategies.policy_network import PolicyNetwork, Tokens
from pipeline.search.strategies.random_search import RandomStrategy
from pipeline.spaces.base import Architecture, Condition, Decision
from pipeline.spaces.decisions import DecisionSpace
from pipeline.spaces.factorised import CostTable, FactorisedSpace
from tests.contracts.strategy import StrategyContract
from tests.pipeline.search.strategies.test_strategies import budgeted

PPO = PolicySettings(initial=4, batch_size=6, hidden=16)
REINFORCE = PolicySettings(initial=4, batch_size=6, hidden=16, clip=None)


class TestPpo(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return PolicyStrategy(constraints, seed, settings=PPO)


class TestReinforce(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return PolicyStrategy(constraints, seed, settings=REINFORCE)


class Optional(DecisionSpace):
    """Up to three layers; each but the first only if there is one before it. 4 * (1 + 4 * (1 + 4)) = 84."""

    decisions = (
        Decision("kernel1", (3, 5, 7, 9)),
        Decision("second", (False, True)),
        Decision("kernel2", (3, 5, 7, 9), Condition("second", (True,))),
        Decision("third", (False, True), Condition("second", (True,))),
        Decision("kernel3", (3, 5, 7, 9), Condition("third", (True,))),
    )


class Free:
    """Every network takes a nanosecond."""

    def estimate(self, architectures):
        return [Estimate(1.0, 1.0, 1.0, 0.9) for _ in architectures]


class TestPolicyWhereDecisionsDependOnOthers(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return Constraints(Optional(), {"t": Free()}, {"t": 2.0})

    def make(self, constraints, seed):
        return PolicyStrategy(constraints, seed, settings=PPO)


def network(space, seed=0):
    tokens = Tokens(space)
    return tokens, PolicyNetwork(tokens, 16, 2.5, seed)


def test_probabilities_of_all_architectures_sum_to_one():
    for space in (Optional(), FactorisedSpace({"a": (1, 2, 3), "b": ("x",), "c": (False, True)})):
        tokens, policy = network(space)
        members = list(space.members())
        rows = tokens.of(members)
        with torch.no_grad():
            log_probabilities, entropies = policy(rows)
        assert float(log_probabilities.exp().sum()) == pytest.approx(1.0, abs=1e-5)
        assert (entropies >= -1e-6).all()
        assert [tokens.architecture(row) for row in rows.tolist()] == members


def test_draws_have_the_probabilities_that_the_policy_states():
    space = Optional()
    tokens, policy = network(space, seed=3)
    with torch.no_grad():
        policy.heads.mul_(20)
    drawn = policy.sample(20_000, random.Random(0))
    members = list(space.members())
    stated = policy(tokens.of(members))[0].exp().tolist()
    rows = [tuple(row) for row in drawn.tolist()]
    for member, probability in zip(tokens.of(members).tolist(), stated, strict=True):
        assert rows.count(tuple(member)) / len(rows) == pytest.approx(probability, abs=0.012)


def test_what_is_not_decided_has_no_gradient():
    _, policy = network(Optional())
    policy(torch.tensor([[1, 0, 0, 0, 0]]))[0].sum().backward()
    assert policy.heads.grad[:2].abs().sum() > 0
    assert policy.heads.grad[2:].abs().sum() == 0


LAYERS = FactorisedSpace({f"layer{number}": tuple(range(4)) for number in range(10)})


def layers_within(limit_ns=1e9):
    """A million architectures; a layer takes as many nanoseconds as its choice says, and one more."""
    costs = CostTable({option: 1.0 + option.choice for option in LAYERS.distinct_blocks()})
    return Constraints(LAYERS, {"board": costs}, {"board": limit_ns})


BEST = tuple(number % 4 for number in range(10))


def toy(architecture) -> float:
    """How many layers are as they should be."""
    return float(sum(choice == best for (_, choice), best in zip(architecture.choices, BEST, strict=True)))


def run(strategy, rounds, score=toy):
    values = []
    for _ in range(rounds):
        architecture = strategy.ask()
        values.append(score(architecture))
        strategy.tell(architecture, Score(values[-1]))
    return values


def log_probability(strategy, architecture):
    """Of drawing an architecture, before it is repaired."""
    with torch.no_grad():
        return float(strategy._network(strategy._tokens.of([architecture]))[0])


@pytest.mark.parametrize("clip", [0.2, None], ids=["ppo", "reinforce"])
def test_policy_converges_on_a_toy_reward(clip):
    strategy = PolicyStrategy(layers_within(), 0, settings=PolicySettings(clip=clip))
    best = Architecture(tuple(zip(LAYERS.layers, BEST, strict=True)))
    before = log_probability(strategy, best)
    assert before == pytest.approx(10 * math.log(1 / 4), abs=0.5)
    values = run(strategy, 400)
    # Random draws have 2.5, and there are only 436 networks with 8 or more, of which none is asked twice.
    assert sum(values[-100:]) / 100 > 6.5
    assert log_probability(strategy, best) > before + 4


@pytest.mark.parametrize("clip", [0.2, None], ids=["ppo", "reinforce"])
def test_policy_beats_random_on_a_small_factorised_space_with_a_budget(clip):
    # Layers as they should be would take 10 + 13 ns: the policy has to do without some of them.
    found, drawn = [], []
    for seed in range(3):
        settings = PolicySettings(clip=clip)
        found += run(PolicyStrategy(layers_within(22.5), seed, settings=settings), 200)[-50:]
        drawn += run(RandomStrategy(layers_within(22.5), seed), 200)[-50:]
    assert sum(found) / len(found) > sum(drawn) / len(drawn) + 1.0


def test_unit_of_the_rewards_does_not_matter():
    def asked(factor, offset):
        strategy = PolicyStrategy(layers_within(), 5, settings=PPO)
        for _ in range(30):
            architecture = strategy.ask()
            strategy.tell(architecture, Score(offset + factor * toy(architecture)))
        return list(strategy.state()["asked"])

    assert asked(1.0, 0.0) == asked(0.25, 8.0)


def test_equal_rewards_teach_only_entropy():
    strategy = PolicyStrategy(layers_within(), 1, settings=PolicySettings(entropy_weight=0.0))
    before = {name: value.clone() for name, value in strategy._network.state_dict().items()}
    run(strategy, 20, score=lambda _: 0.5)
    after = strategy._network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_soft_reward_draws_the_policy_to_what_is_fast():
    constraints = layers_within()
    reward = SoftReward(constraints.models, {"board": 20.0}, exponent=-1.0)
    strategy = PolicyStrategy(constraints, 0, reward=reward)
    latencies = []
    for _ in range(300):
        architecture = strategy.ask()
        latencies.append(constraints.estimates(architecture)["board"].value_ns)
        strategy.tell(architecture, Score(0.9))
    assert sum(latencies[-50:]) / 50 < sum(latencies[:50]) / 50 - 4


def test_repaired_architecture_is_credited():
    settings = PolicySettings(initial=0, batch_size=4, entropy_weight=0)
    strategy = PolicyStrategy(layers_within(12.5), 0, settings=settings)
    architecture = strategy.ask()
    assert strategy.constraints.feasible(architecture)
    before = log_probability(strategy, architecture)
    strategy.tell(architecture, Score(1.0))
    for other in [strategy.ask() for _ in range(3)]:
        strategy.tell(other, Score(0.0))
    assert log_probability(strategy, architecture) > before


def test_seed_decides_everything_whatever_the_threads():
    def asked(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            torch.manual_seed(threads)
            strategy = PolicyStrategy(layers_within(), 7, settings=PPO)
            run(strategy, 30)
            assert torch.get_num_threads() == threads
            return strategy.state()["asked"]
        finally:
            torch.set_num_threads(before)

    assert asked(1) == asked(2)


def test_torchs_own_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    run(PolicyStrategy(layers_within(), 7, settings=PPO), 12)
    assert torch.equal(torch.rand(3), expected)


def test_restore_refuses_the_state_of_another_space():
    strategy = PolicyStrategy(layers_within(), 0, settings=PPO)
    with pytest.raises(WorkFolderError, match="another search"):
        PolicyStrategy(budgeted(), 0, settings=PPO).restore(strategy.state())


@pytest.mark.parametrize("settings", [{"hidden": 8}, {"batch_size": 7}, {"clip": None}])
def test_restore_refuses_the_state_of_a_policy_with_other_settings(settings):
    strategy = PolicyStrategy(layers_within(), 0, settings=PPO)
    run(strategy, 8)
    with pytest.raises(WorkFolderError, match="another search"):
        PolicyStrategy(layers_within(), 0, settings=replace(PPO, **settings)).restore(strategy.state())


def test_first_proposals_are_those_of_random_search_with_the_same_seed():
    policy, drawn = PolicyStrategy(layers_within(22.5), 3), RandomStrategy(layers_within(22.5), 3)
    for _ in range(PolicySettings().initial):
        architecture = policy.ask()
        assert architecture == drawn.ask()
        policy.tell(architecture, Score(toy(architecture)))
    assert policy.ask() != drawn.ask()


def test_policy_learns_from_its_first_draws():
    strategy = PolicyStrategy(layers_within(), 0)
    run(strategy, PolicySettings().initial)
    assert strategy.learned()["baseline"][-1] == PolicySettings().initial // PolicySettings().batch_size


def test_reward_that_is_not_finite_is_refused():
    strategy = PolicyStrategy(layers_within(), 0, reward=lambda *_: math.nan)
    with pytest.raises(ValueError, match="nan"):
        strategy.tell(strategy.ask(), Score(0.5))


@pytest.mark.parametrize(
    "settings",
    [
        {"initial": -1},
        {"batch_size": 0},
        {"hidden": 0},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"squash": math.inf},
        {"entropy_weight": -1.0},
        {"baseline_decay": 1.0},
        {"clip": 0.0},
        {"clip": 1.0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(ValueError):
        PolicySettings(**settings)


def test_policy_goes_through_a_space_of_one_architecture():
    space = FactorisedSpace({"only": ("one",), "other": (3,)})
    strategy = PolicyStrategy(Constraints(space, {"t": Free()}, {"t": 2.0}), 0)
    assert list(itertools.islice(strategy.proposals(), 200)) == list(space.members()) * 200
