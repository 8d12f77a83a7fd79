from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.gate import Limits, parse_share, parse_size


@pytest.mark.parametrize(
    ("text", "share"), [("3%", 0.03), ("0.03", 0.03), (" 91.5 % ", 0.915), ("0", 0), ("100%", 1)]
)
def test_a_share_is_written_in_percent_or_as_a_number(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "3", "-1%", "nan", "inf", "3%%", "three"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no share"):
        parse_share(text)


@pytest.mark.parametrize(
    ("text", "size"), [("1500000", 1_500_000), ("300 kB", 300_000), ("1.5MiB", 1_572_864)]
)
def test_a_size_is_written_in_bytes_or_with_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "3 hours", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_limit_is_a_number_of_zero_or_more(value: float) -> None:
    with pytest.raises(UsageError, match="--max-latency-ms"):
        Limits(max_latency_ms=value)


def test_no_limit_is_told_from_a_limit_of_nothing() -> None:
    assert not Limits().any
    assert Limits(max_regression=0.0).any
