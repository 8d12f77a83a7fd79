"""Counts, lists and causes as messages have them."""

from __future__ import annotations

import errno
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.words import cause_of, count_of, listed


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "candidate", "0 candidates"),
        (1, "candidate", "1 candidate"),
        (2, "whole network", "2 whole networks"),
        (1, "whole network", "1 whole network"),
        (3, "launch", "3 launches"),
        (2, "more copy", "2 more copies"),
        (12_345, "image", "12,345 images"),
    ],
)
def test_counts_have_the_right_number(count: int, noun: str, text: str) -> None:
    assert count_of(count, noun) == text


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([], ""),
        ([".onnx"], ".onnx"),
        (["a", "b"], "a or b"),
        ([".parquet", ".csv", ".json"], ".parquet, .csv or .json"),
    ],
)
def test_lists_have_one_word_before_the_last(parts: list[str], text: str) -> None:
    assert listed(parts, "or") == text


def test_an_error_of_the_system_is_told_without_its_number() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Path("/nowhere/at/all").read_text()
    assert cause_of(caught.value) == "No such file or directory: /nowhere/at/all"
    assert cause_of(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"


@pytest.mark.parametrize(
    ("text", "words"),
    [("[data]\n[data]\n", "[data]"), ("[a.b]\n[a.b]\n", "[a.b]"), ("[a]\nb = 1\n[a.b]\n", "")],
)
def test_a_fault_of_toml_names_tables_as_toml_does(text: str, words: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    assert words in cause_of(caught.value)
    assert "('" not in cause_of(caught.value)


@given(st.text())
def test_other_causes_are_told_as_they_are(text: str) -> None:
    if "(" not in text:
        assert cause_of(ValueError(text)) == text
