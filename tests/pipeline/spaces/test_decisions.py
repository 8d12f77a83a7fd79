import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.spaces.base import (
    Architecture,
    Condition,
    Decision,
    check_architecture,
    choice_text,
    read_choices,
)
from pipeline.spaces.decisions import DecisionSpace
from tests.contracts.search_space import SearchSpaceContract


@dataclass(frozen=True)
class Tree(DecisionSpace):
    given: tuple

    @property
    def decisions(self):
        return self.given


DEPTH = Decision("depth", (1, 2, 3))
SECOND = Decision("second", ("a", "b"), Condition("depth", (2, 3)))
THIRD = Decision("third", (3, 5, 7), Condition("depth", (3,)))
BELOW = Decision("below", (0, 1), Condition("second", ("b",)))
FREE = Decision("free", (False, True))
CONDITIONAL = Tree((DEPTH, SECOND, THIRD, BELOW, FREE))


@st.composite
def forests(draw):
    decisions = []
    for number in range(draw(st.integers(1, 6))):
        choices = tuple(range(draw(st.integers(1, 3))))
        condition = None
        if decisions and draw(st.booleans()):
            above = draw(st.sampled_from(decisions))
            condition = Condition(
                above.name, tuple(draw(st.sets(st.sampled_from(above.choices), min_size=1)))
            )
        decisions.append(Decision(f"d{number}", choices, condition))
    return Tree(tuple(decisions))


class TestPlainDecisions(SearchSpaceContract):
    @pytest.fixture
    def space(self):
        return Tree((DEPTH, FREE, Decision("alone", ("x",))))


class TestConditionalDecisions(SearchSpaceContract):
    @pytest.fixture
    def space(self):
        return CONDITIONAL


class TestSingleArchitecture(SearchSpaceContract):
    @pytest.fixture
    def space(self):
        return Tree((Decision("only", (1,)),))


def test_count_leaves_out_decisions_that_are_not_made():
    # depth 1: 1; depth 2: a, or b with 2; depth 3: the same times 3; all times 2 for free.
    assert CONDITIONAL.count() == 2 * (1 + 3 + 3 * 3)


@settings(max_examples=50, deadline=None)
@given(forests(), st.integers(0, 2**32))
def test_members_count_and_steps_agree_on_any_forest(space, seed):
    members = list(space.members())
    assert len(set(members)) == len(members) == space.count()
    generator = random.Random(seed)
    everyone = set(members)
    for _ in range(10):
        drawn, other = space.sample(generator), space.sample(generator)
        assert {
            drawn,
            space.mutate(drawn, generator),
            space.crossover(drawn, other, generator),
            *space.neighbours(drawn),
        } <= everyone
    assert len({space.encode(member).tobytes() for member in members}) == len(members)


def test_sample_draws_each_architecture_alike():
    generator = random.Random(0)
    drawn = Counter(CONDITIONAL.sample(generator) for _ in range(26_000))
    assert len(drawn) == 26
    assert 800 < min(drawn.values()) <= max(drawn.values()) < 1200


def test_mutate_reaches_every_choice_of_a_decision_that_it_brings_about():
    parent = Architecture((("depth", 1), ("second", "a"), ("third", 3), ("below", 0), ("free", False)))
    generator = random.Random(0)
    reached = {space["third"] for space in (CONDITIONAL.mutate(parent, generator) for _ in range(300))}
    assert reached == {3, 5, 7}


def test_check_architecture_refuses_a_choice_where_none_is_made():
    wrong = Architecture((("depth", 1), ("second", "b"), ("third", 3), ("below", 0), ("free", False)))
    with pytest.raises(ValueError, match="not to be made"):
        check_architecture(CONDITIONAL, wrong)


@pytest.mark.parametrize(
    "decisions",
    [
        (FREE, FREE),
        (Decision("none", ()),),
        (Decision("twice", (1, 1)),),
        (SECOND, DEPTH),
        (DEPTH, Decision("other", (1,), Condition("depth", (4,)))),
    ],
)
def test_decisions_that_make_no_forest_are_refused(decisions):
    with pytest.raises(ValueError):
        Tree(decisions).count()


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,5}(\.[a-z][a-z0-9_]{0,5}){0,2}", fullmatch=True)
CHOICES = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False), st.text('ab ()="\\', max_size=6)
)


@given(st.lists(st.tuples(NAMES, CHOICES), unique_by=lambda pair: pair[0], max_size=6))
def test_printed_architecture_is_read_back(choices):
    read = read_choices(str(Architecture(tuple(choices))))
    assert read == {name: choice_text(choice) for name, choice in choices}


def test_what_lies_in_something_that_is_gone_is_not_printed() -> None:
    gone = Architecture(
        (("a.b.kept", False), ("a.b.width", 8), ("a.b.c.kept", True), ("a.c.kept", True), ("a.c.width", 4))
    )
    assert str(gone) == "a.b(kept=False) a.c(kept=True width=4)"
    assert str(gone.with_choice("a.b.kept", True)).startswith("a.b(kept=True width=8) a.b.c(kept=True)")


def test_a_long_architecture_is_printed_in_brief_with_the_number_of_its_decisions() -> None:
    short = Architecture((("kernel", 3), ("width", 8)))
    assert short.brief == str(short)
    long = Architecture(tuple((f"stage{number}.width", number) for number in range(60)))
    assert len(long.brief) < 200
    assert long.brief.startswith("stage0(width=0) stage1(width=1)")
    assert long.brief.endswith("... (60 decisions)")
