from __future__ import annotations

from typing import Any

import pytest

from devices.measurement.protocol import MeasuringProtocol


@pytest.mark.parametrize(
    "values",
    [
        {"launches": -1},
        {"launches": 10**9},
        {"headline_quantile": 5},
        {"headline_quantile": float("nan")},
        {"max_ns": 10**30},
        {"min_count": -1},
        {"drift": float("inf")},
        {"input_seed": -1},
        {"launches": "5"},
        {"launches": 2.5},
        {"max_launches": 15.0},
        {"warmup_ns": 1e7},
        {"version": True},
    ],
)
def test_a_number_out_of_its_range_is_refused_by_its_name(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        MeasuringProtocol(**values)
