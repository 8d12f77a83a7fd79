"""The page on accuracy shows the results that are kept, and those agree with themselves."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from latency_db.models.accuracy import accuracy_of
from tests.places import ROOT

pytest.importorskip("matplotlib", reason="the figures need matplotlib, of the extra dev")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy_page", ROOT / "tools" / "accuracy_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


page = _load()
KEPT = page.read(page.KEPT)


@pytest.fixture
def document() -> dict[str, Any]:
    """A result of three networks, one of them outside its interval."""
    measured, predicted = [1e6 / 3, 2e6, 4e6], [0.33e6, 2.1e6, 4.01e6]
    intervals = [(value * 0.97, value * 1.03) for value in predicted]
    figures = accuracy_of(measured, predicted, intervals, 0.9).to_json()
    return {
        "input": "32x32",
        "target": "host/litert:fp32@1",
        "blocks": 5,
        "failed_blocks": 1,
        "fitted_networks": 6,
        "build_s": 12.34567891,
        "verified_after_s": 1300,
        "upper_factor_against_each_other": 1.02,
        "model": figures,
        "as_measured": figures,
        "ceiling": {**accuracy_of(measured, measured).to_json(), "spearman": None},
        "baselines": {"plain sum": accuracy_of(measured, [3.0 * each for each in measured]).to_json()},
        "invalid": 0,
        "infeasible": 0,
        "architectures_per_s": 15_500_000,
        "networks": [
            {
                "architecture": f"stage1(width={number})",
                "predicted_ns": value,
                "low_ns": low,
                "high_ns": high,
                "measured_ns": truth,
                "repeated_ns": truth,
                "slowdown": 1.0,
                "repeated_slowdown": 1.0,
            }
            for number, (value, (low, high), truth) in enumerate(
                zip(predicted, intervals, measured, strict=True)
            )
        ],
    }


def test_results_are_read_one_by_one_and_together(document: dict[str, Any], tmp_path: Path) -> None:
    larger = {**document, "input": "128x128"}
    (tmp_path / "one.json").write_text(json.dumps(larger))
    (tmp_path / "together.json").write_text(json.dumps({"own_device": [document]}))
    assert [result.input for result in page.read(tmp_path)] == ["32x32", "128x128"]


def test_kept_results_have_whole_nanoseconds_and_stay_as_they_are(
    document: dict[str, Any], tmp_path: Path
) -> None:
    page.keep([page.Result(document)], tmp_path)
    (kept,) = page.read(tmp_path)
    assert [network["measured_ns"] for network in kept.document["networks"]] == [333333, 2000000, 4000000]
    assert kept.document["build_s"] == 12.3457
    assert kept.document.keys() == document.keys()
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    page.keep([kept], tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", '{"input": "32x32"}'])
def test_a_file_that_is_no_result_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text(text)
    with pytest.raises(SystemExit, match=r"half\.json is no result"):
        page.read(tmp_path)


def test_a_figure_is_drawn_for_a_result(document: dict[str, Any], tmp_path: Path) -> None:
    page.draw(page.Result(document), tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name == "accuracy-host-litert-fp32-1-32x32.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_tables_say_what_is_undefined_missing_or_cannot_run(document: dict[str, Any]) -> None:
    text = page.tables([page.Result(document)])
    assert "| 32x32 | `host/litert:fp32@1` | as measured | 67 % | 100 % |" in text
    assert "| 0.00 % (undefined) |" in text
    assert "5 (1 more cannot run)" in text
    assert "200.00 % (1.0000) |  |" in text, "there is no line through MACs"


def test_only_the_part_between_the_marks_is_made_anew(document: dict[str, Any]) -> None:
    text = page.with_tables("before\n<!-- figures -->\nold\n<!-- end -->\nafter\n", [page.Result(document)])
    assert text.startswith("before\n<!-- figures -->\n\n| input |")
    assert text.endswith("\n<!-- end -->\nafter\n")
    assert "old" not in text
    with pytest.raises(SystemExit, match="lacks the lines"):
        page.with_tables("no marks", [])


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    assert page.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert page.wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_the_page_shows_what_is_kept() -> None:
    text = page.PAGE.read_text("utf-8")
    assert KEPT
    assert page.with_tables(text, KEPT) == text, "run .venv/bin/python tools/accuracy_page.py"
    for result in KEPT:
        assert (page.DOCS / "figures" / f"accuracy-{result.name}.png").is_file()


@pytest.mark.parametrize("paced", [True, False])
@pytest.mark.parametrize("result", KEPT, ids=lambda result: result.name)
def test_kept_figures_follow_from_the_kept_networks(result: Any, paced: bool) -> None:
    model = result.document["model" if paced else "as_measured"]
    low, high, predicted = map(result.column, ("low", "high", "predicted"))
    intervals = list(zip(low, high, strict=True))
    found = accuracy_of(result.measured(paced=paced), predicted, intervals, model["coverage"])
    assert found.to_json() == pytest.approx(model, rel=2e-4)
