from __future__ import annotations

import math

import numpy as np
import pytest

from latency_db import screening
from latency_db.screening import Cell, Screening


def networks(latency_ms: np.ndarray, choices: np.ndarray) -> list[Cell]:
    return [
        Cell(row, "phone", f"architecture {row}", float(ms) * 1e6, choices=tuple(map(int, chosen)))
        for row, (ms, chosen) in enumerate(zip(latency_ms, choices, strict=True))
    ]


def blocks(*latency_ms: float) -> list[Cell]:
    return [Cell(row, "phone", f"block {row}", ms * 1e6) for row, ms in enumerate(latency_ms)]


def screened(cells: list[Cell]) -> Screening:
    found = Screening()
    found.see(cells)
    found.count_failed(cells)
    return found


def codes(cells: list[Cell]) -> list[str]:
    return [finding.code for finding in screened(cells).findings()]


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
    assert [cell.row for cell in cells if found.flag(cell) == "failed-run"] == [3, 5]


def test_small_blocks_are_not_taken_for_failed_runs() -> None:
    assert codes(blocks(*np.geomspace(0.001, 100, 60))) == []


@pytest.mark.parametrize("impossible", [0.0, -1.0, math.inf, -math.inf])
def test_values_that_no_run_can_have_are_flagged(impossible: float) -> None:
    cells = blocks(1.5, impossible, 2.5)
    found = screened(cells)
    assert [(f.code, f.count, f.cells) for f in found.findings()] == [("impossible", 1, 3)]
    assert [found.flag(cell) for cell in cells] == ["", "impossible", ""]


def test_missing_values_are_flagged_as_missing() -> None:
    cells = blocks(1.5, math.nan)
    found = screened(cells)
    assert [(f.code, f.count) for f in found.findings()] == [("missing", 1)]
    assert [found.flag(cell) for cell in cells] == ["", "missing"]


def test_repeated_blocks_are_found_with_their_contradictions() -> None:
    cells = [Cell(0, "d", "a", 1.0), Cell(1, "d", "a", 1.0), Cell(2, "d", "a", 2.0), Cell(3, "e", "a", 3.0)]
    (finding,) = screened(cells).findings()
    assert (finding.device, finding.code, finding.count) == ("d", "duplicate", 2)
    assert "1 with another latency" in finding.detail


def test_devices_are_screened_apart() -> None:
    good = [Cell(n, "good", str(n), 1.5e6 + n) for n in range(30)]
    rounded = [Cell(n, "rounded", str(n), (1 + n) * 1e6) for n in range(30)]
    assert [(f.device, f.code) for f in screened(good + rounded).findings()] == [
        ("rounded", "whole-milliseconds")
    ]


def test_what_is_kept_of_a_long_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "_KEPT", 64)
    found = Screening()
    for start in range(0, 10_000, 100):
        found.see([Cell(n, "d", str(n), float(n + 1), choices=(0,)) for n in range(start, start + 100)])
    assert found.cells == 10_000
    assert len(found._devices["d"].values.kept) <= 65
    assert found.median_ns() == pytest.approx(5000, rel=0.05)
