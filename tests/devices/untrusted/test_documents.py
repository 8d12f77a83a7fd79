from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.untrusted import json_from, toml_from


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2_000 + "]" * 2_000,
        "[" * 1_000_000,
        '{"a":' * 500 + "1" + "}" * 500,
        "[" * 101 + "]" * 101,
        "9" * 5_000,
        "",
        "{",
        "\0",
    ],
)
def test_json_that_is_deep_or_no_json_is_a_value_error(text: str) -> None:
    for content in (text, text.encode()):
        with pytest.raises(ValueError):
            json_from(content)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 2_000 + "]" * 2_000,
        "x = " + "[" * 150 + "]" * 150,
        "x = " + "{a = " * 2_000 + "1" + "}" * 2_000,
        "x = " + "9" * 5_000,
        ".".join("a" * 100_000) + " = 1",
        "[" + ".".join("a" * 400) + "]",
        "# a comment\n" * 100_000,
        "x = ",
        "\0",
    ],
)
def test_toml_that_is_long_or_deep_or_no_toml_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        toml_from(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x, max_size=3)))
def test_json_of_any_value_is_read_as_it_was_written(value: object) -> None:
    assert json_from(json.dumps(value)) == value


def test_json_may_be_wide_and_a_hundred_deep() -> None:
    assert len(json_from("[" + ",".join(["[]"] * 1_000) + "]")) == 1_000
    json_from("[" * 100 + "]" * 100)
