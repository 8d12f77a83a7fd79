"""The page of the study of subgraphs, from a summary whose figures are made up."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.places import ROOT
from tools.studies.subgraph_page import text, write_page


def arm(*accuracies: float, less: dict[str, float | None] | None, of: list[float | None]) -> dict[str, Any]:
    return {
        "accuracy": sum(accuracies) / len(accuracies),
        "accuracies": list(accuracies),
        "less_than_found": less,
        "of_the_teacher": {"board": of},
    }


def summary() -> dict[str, Any]:
    found = arm(0.8, 0.82, less=None, of=[0.49, 0.5])
    narrower = arm(0.7, 0.73, less={"mean": 0.095, "low": 0.032, "high": 0.158}, of=[0.48, 0.48])
    drawn = arm(0.75, less={"mean": 0.05, "low": None, "high": None}, of=[None])
    arms = {"found": found, "narrower": narrower, "random-0": drawn, "random-1": drawn}
    common = {
        "teacher_accuracy": 0.85,
        "teacher_ms": {"board": 2.0},
        "train_images": 7200,
        "image_size": 32,
    }
    return {"0.5": {**common, "arms": arms}, "0.3": {**common, "arms": {"found": found}}}


def test_rows_have_means_differences_and_measured_latencies() -> None:
    page = text(summary())
    assert "| found by the gates | 81.00% | 80.0, 82.0 |  | 0.490 to 0.500 |" in page
    assert "| by hand: channels | 71.50% | 70.0, 73.0 | 9.50 [3.20, 15.80] | 0.480 |" in page
    assert "fine-tuned on 7 200 images of CIFAR-10 (JPEG of quality 75) at\n32x32 pixels; 85.00% of" in page
    assert "| 2 at random, one seed | 75.00% (75.00% to 75.00%) | | | not measured |" in page
    assert "| 0.3x | found by the gates | 81.00% | 0.490 to 0.500 |" in page


def test_page_and_plot_are_written(tmp_path: Path) -> None:
    page = tmp_path / "results" / "subgraph.md"
    page.parent.mkdir()
    write_page(summary(), page)
    assert page.read_text().startswith("# What a searched subgraph is worth")
    assert (tmp_path / "figures" / "subgraph.png").stat().st_size > 1000


def test_interval_over_seeds_is_students(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools" / "studies")
    interval = importlib.import_module("tools.studies.subgraph").interval
    # Two values d apart: the mean, and 12.7062 standard errors of d / 2.
    expected = {"mean": 1.5, "low": 1.5 - 6.3531, "high": 1.5 + 6.3531}
    assert interval([1.0, 2.0]) == pytest.approx(expected, abs=1e-4)
    assert interval([1.0]) == {"mean": 1.0, "low": None, "high": None}
