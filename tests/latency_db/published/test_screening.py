from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency_db.published import screening
from latency_db.published.screening import Cells, Screening


def networks(latency_ms: np.ndarray, choices: np.ndarray, device: str = "phone") -> Cells:
    names = [f"architecture {row}" for row in range(len(latency_ms))]
    return Cells(device, range(len(names)), names, np.asarray(latency_ms) * 1e6, choices=choices)


def blocks(*latency_ms: float, names: Sequence[str] | None = None, device: str = "phone") -> Cells:
    rows = range(len(latency_ms))
    return Cells(device, rows, names or [f"block {row}" for row in rows], np.array(latency_ms) * 1e6)


def screened(*batches: Cells) -> Screening:
    found = Screening()
    for cells in batches:
        found.see(cells)
    for cells in batches:
        found.count_failed(cells)
    return found


def codes(cells: Cells) -> list[str]:
    return [finding.code for finding in screened(cells).findings()]


def part(cells: Cells, first: int, last: int) -> Cells:
    chosen = None if cells.choices is None else cells.choices[first:last]
    rows, names = cells.rows[first:last], cells.workloads[first:last]
    return Cells(cells.device, rows, names, cells.latency_ns[first:last], choices=chosen)


@pytest.fixture
def space() -> tuple[np.ndarray, np.ndarray]:
    """Choices of 600 networks, and the sums of the times of what they choose."""
    generator = np.random.default_rng(0)
    choices = generator.integers(0, 4, (600, 6))
    times = generator.uniform(1, 4, (6, 4))
    return choices, times[np.arange(6), choices].sum(1)


def test_a_table_of_measured_networks_has_no_findings(space: tuple[np.ndarray, np.ndarray]) -> None:
    choices, sums = space
    noisy = sums * np.random.default_rng(1).lognormal(0, 0.03, len(sums))
    assert codes(networks(noisy, choices)) == []


def test_exact_sums_are_found_to_be_additive(space: tuple[np.ndarray, np.ndarray]) -> None:
    choices, sums = space
    assert codes(networks(sums, choices)) == ["additive"]
    assert "R²" in screened(networks(sums, choices)).findings()[0].detail


def test_whole_milliseconds_are_found_with_their_share_of_the_median(
    space: tuple[np.ndarray, np.ndarray],
) -> None:
    choices, sums = space
    (finding,) = screened(networks(np.round(sums), choices)).findings()
    assert (finding.code, finding.count) == ("whole-milliseconds", 600)
    assert "% of the median" in finding.detail


def test_failed_runs_among_networks_are_flagged(space: tuple[np.ndarray, np.ndarray]) -> None:
    choices, sums = space
    latency = sums * np.random.default_rng(1).lognormal(0, 0.03, len(sums))
    latency[[3, 5]] = 0.01
    cells = networks(latency, choices)
    found = screened(cells)
    assert [(f.code, f.count) for f in found.findings()] == [("failed-run", 2)]
    assert found.seeks_failed_runs
    assert [row for row, flag in enumerate(found.flags(cells)) if flag == "failed-run"] == [3, 5]


def test_small_blocks_are_not_taken_for_failed_runs() -> None:
    cells = blocks(*np.geomspace(0.001, 100, 60))
    assert codes(cells) == []
    assert not screened(cells).seeks_failed_runs


@pytest.mark.parametrize("impossible", [0.0, -1.0, math.inf, -math.inf])
def test_values_that_no_run_can_have_are_flagged(impossible: float) -> None:
    cells = blocks(1.5, impossible, 2.5)
    found = screened(cells)
    assert [(f.code, f.count, f.cells) for f in found.findings()] == [("impossible", 1, 3)]
    assert found.flags(cells) == ["", "impossible", ""]


def test_missing_values_are_flagged_as_missing() -> None:
    cells = blocks(1.5, math.nan)
    found = screened(cells)
    assert [(f.code, f.count) for f in found.findings()] == [("missing", 1)]
    assert found.flags(cells) == ["", "missing"]


def test_repeated_blocks_are_found_with_their_contradictions() -> None:
    cells = blocks(1, 1, 2, math.nan, math.nan, names="aaabb", device="d")
    (missing, finding) = screened(cells, blocks(3, names="a", device="e")).findings()
    assert (missing.code, missing.count) == ("missing", 2)
    assert (finding.device, finding.code, finding.count) == ("d", "duplicate", 3)
    assert "2 with another latency" in finding.detail


def test_devices_are_screened_apart() -> None:
    good = blocks(*(1.5 + row for row in range(30)), device="good")
    rounded = blocks(*(1.0 + row for row in range(30)), device="rounded")
    assert [(f.device, f.code) for f in screened(good, rounded).findings()] == [
        ("rounded", "whole-milliseconds")
    ]


@settings(max_examples=40, deadline=None)
@given(
    latency_ms=st.lists(st.sampled_from([math.nan, -1.0, 0.0, 0.1, 1.0, 2.5, 3.0, math.inf]), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    networks_=st.booleans(),
)
def test_findings_and_flags_do_not_depend_on_how_a_table_is_cut_into_batches(
    latency_ms: list[float], cuts: list[int], networks_: bool
) -> None:
    values = np.array(latency_ms, dtype=float)
    names = [str(row % 7) for row in range(len(values))]
    choices = np.arange(2 * len(values)).reshape(-1, 2) % 3
    whole = networks(values, choices) if networks_ else blocks(*values, names=names)
    edges = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
    parts = [part(whole, *edge) for edge in pairwise(edges)]
    at_once, in_parts = screened(whole), screened(*parts)
    assert in_parts.findings() == (at_once.findings() if parts else [])
    assert [flag for cells in parts for flag in in_parts.flags(cells)] == at_once.flags(whole)


def test_choices_that_hardly_repeat_take_no_memory_for_a_fit_that_is_not_made() -> None:
    choices = np.random.default_rng(0).permutation(10_000).reshape(1000, 10)
    found = screened(networks(np.linspace(1.5, 3.5, 1000), choices))
    tracemalloc.start()
    assert found.findings() == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_what_is_kept_of_a_long_table_is_bounded_and_spread_over_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(screening, "_KEPT", 64)
    monkeypatch.setattr(screening, "_KEPT_NAMES", 150)
    found = Screening()
    for start in range(0, 10_000, 100):
        found.see(blocks(*((n + 1) / 1e6 for n in range(start, start + 100)), device="d"))
    assert found.cells == 10_000
    device = found._devices["d"]
    kept = device.values.kept
    assert 32 <= len(kept) <= 64
    assert np.ptp(np.diff(kept)) < 1e-6
    assert found.median_ns() == pytest.approx(5000, rel=0.05)
    assert len(device.names) == 150
    (finding,) = found.findings()
    assert (finding.code, finding.count) == ("duplicate", 50)
