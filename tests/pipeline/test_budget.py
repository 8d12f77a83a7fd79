"""A budget is one positive number with its unit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.budget import Budget, RelativeTo, allowing
from pipeline.errors import RecipeError

positive = st.floats(min_value=0, max_value=1e9, exclude_min=True)


@given(positive, st.sampled_from(["reference", "teacher", None]), st.booleans())
def test_parse_reads_back_what_str_writes(number: float, to: RelativeTo | None, soft: bool) -> None:
    budget = Budget(relative=number, soft=soft, relative_to=to) if to else Budget(limit_ms=number, soft=soft)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.6x", "0.6x of the reference network"),
        ("0.6x soft", "0.6x of the reference network, soft"),
        ("0.25x teacher", "0.25x of the teacher"),
        ("0.25x teacher soft", "0.25x of the teacher, soft"),
        ("1.5ms", "1.5 ms"),
        ("2ms soft", "2 ms, soft"),
    ],
)
def test_words_say_of_what_a_budget_is_and_whether_it_is_soft(text: str, words: str) -> None:
    assert Budget.parse(text).words == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.6x", "0.6x of the reference network: 0.0006 ms"),
        ("0.001ms", "0.001 ms"),
        ("2ms soft", "2 ms, soft"),
    ],
)
def test_an_absolute_limit_is_said_once(text: str, words: str) -> None:
    assert Budget.parse(text).words_with(600.0) == words


@pytest.mark.parametrize(
    ("text", "relative", "limit_ns"),
    [("0.6x", 0.6, None), ("1.5ms", None, 1_500_000.0), (" 2 ms ", None, 2e6), ("1e-3x", 0.001, None)],
)
def test_parse_tells_relative_from_absolute(
    text: str, relative: float | None, limit_ns: float | None
) -> None:
    budget = Budget.parse(text)
    assert (budget.relative, budget.limit_ns) == (relative, limit_ns)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "ms",
        "0.6",
        "0.6y",
        "nanx",
        "infms",
        "0x",
        "-1ms",
        "-0.0x",
        "1e999ms",
        "1_0x",
        "0x10x",
        "1 x x",
        "soft",
        "1xsoft",
        "1x hard",
        "1ms teacher",
        "1x student",
    ],
)
def test_parse_refuses_what_is_no_budget(text: str) -> None:
    with pytest.raises(RecipeError):
        Budget.parse(text)


@pytest.mark.parametrize("number", [0.0, -1.0, math.nan, math.inf])
def test_budget_refuses_numbers_that_cannot_be_kept(number: float) -> None:
    with pytest.raises(RecipeError, match="cannot be kept"):
        Budget(relative=number)
    with pytest.raises(RecipeError, match="cannot be kept"):
        Budget(limit_ms=number)


def test_budget_refuses_both_and_neither() -> None:
    for arguments in ({}, {"relative": 0.6, "limit_ms": 1.0}):
        with pytest.raises(RecipeError, match="exactly one"):
            Budget(**arguments)


def test_limit_given_scales_the_reference_only_for_a_relative_budget() -> None:
    assert Budget.parse("0.5x").limit_given(2_000.0) == 1_000.0
    assert Budget.parse("1.5ms").limit_given(2_000.0) == 1_500_000.0
    assert Budget.parse("0.25x teacher").limit_given(2_000.0) == 500.0


def test_allowing_says_what_to_write_and_leaves_soft_budgets_out() -> None:
    budgets = {name: Budget.parse(text) for name, text in BUDGETS.items()}
    needed = {"a": 1.2e6, "b": 1.5e6, "c": 1.1e6, "d": 5e6}
    limits = dict.fromkeys(budgets, 1e6)
    assert allowing(budgets, needed, limits) == (
        'budget_ms = 1.2000 on a, budget = "0.90x" on b and budget = "0.28x teacher" on c'
    )


BUDGETS = {"a": "1ms", "b": "0.6x", "c": "0.25x teacher", "d": "1ms soft"}
