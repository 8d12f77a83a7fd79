"""The study of what a search is worth: its recipes are valid, and its page follows from results."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.recipe.loading import load_recipe
from pipeline.spaces.mobile.space import MobileSpace
from tests.places import ROOT


@pytest.fixture(name="studies")
def _studies(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Modules of the folder by name."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "tools" / "studies")
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in ("worth", "worth_page", "units"):
            del sys.modules[name]


def test_every_arm_is_a_recipe_and_the_mobile_network_the_only_member_of_its_space(studies: Any) -> None:
    worth = studies("worth")
    tuned = {56: Path("a.safetensors"), 44: Path("b.safetensors")}
    arms = worth.arms(tuned)
    common = [worth.teachers({56: tuned[56]}), "data.path=data.npz", "target.*.budget=0.25x teacher"]
    for name, attempts in arms.items():
        for settings in attempts:
            recipe, _ = load_recipe(str(ROOT / "tools" / "studies" / "worth.toml"), [*common, *settings])
            assert len(recipe.teacher) == (2 if name == "oracle" else 1)
            assert ("int8" in name) == all(":int8" in each.name for each in recipe.target)
            assert recipe.distil.epochs == 4
            if name == "mobilenetv2":
                space = MobileSpace.from_config(recipe.space, (3, 32, 32), 10)
                assert space.count() == 1
    assert {"search", "akd", "dna", "oracle", "subgraph", "subgraph-int8"} <= arms.keys()


def test_budgets_beside_an_ensemble_are_of_the_one_teacher(
    studies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worth = studies("worth")
    monkeypatch.setattr(worth, "cpu_name", lambda: "this one")
    assert worth.budgets("search", "0.5", {}) == ["target.*.budget=0.5x teacher"]
    elsewhere = {"processor": "another", "teacher_ms": {"a": {"value": 9.0}, "b": {"value": 9.0}}}
    with pytest.raises(SystemExit, match="run another arm"):
        worth.budgets("oracle", "0.5", {"search 0.5 0": elsewhere, "akd 0.5 0": None})
    here = {"processor": "this one", "teacher_ms": {"a": {"value": 2.0}, "b": {"value": 3.0}}}
    found = worth.budgets("oracle", "0.5", {"search 0.5 0": here, "akd 0.5 0": elsewhere})
    assert found == ["target.0.budget=1.0000ms", "target.1.budget=1.5000ms"]


def test_the_page_compares_the_best_method_with_the_best_student_made_by_hand(
    studies: Any, tmp_path: Path
) -> None:
    page = studies("worth_page")

    def result(accuracy: float) -> dict[str, Any]:
        stages = [{"name": "search", "seconds": 120.0}, {"name": "distil", "seconds": 600.0}]
        targets = {"a": {"budget_used": 0.9}, "b": {"budget_used": 0.95}}
        return {
            "processor": "a processor",
            "accuracy": accuracy,
            "teacher_accuracy": 0.9,
            "parameters": 1000,
            "macs": 2e6,
            "targets": targets,
            "stages": stages,
        }

    done = {
        "shallower 0.5 0": result(0.80),
        "subgraph 0.5 0": result(0.82),
        "subgraph 0.5 1": result(0.83),
        "narrower 0.5 0": None,
        "mixed-inherited-int8 0.5 0": result(0.84),
        "subgraph-int8 0.5 0": result(0.841),
    }
    (tmp_path / "results").mkdir()
    page.write_page(done, tmp_path / "results" / "worth.md", "two cores")
    text = (tmp_path / "results" / "worth.md").read_text()
    assert "90.00% of the test images" in text.replace("\n", " ")
    assert "| shallower | 80.00% | 0.95 | 1,000 | 2.0 M | 2 |" in text
    assert "| subgraph | 82.50% \u00b1 0.71% |" in text
    assert "| narrower | none keeps the budgets |" in text
    compared = text.replace("\n", " ")
    assert "In float the best method is subgraph, the best student made by hand shallower: +2.50" in compared
    assert "+2.50 points (target: at least 1.0; reached" in compared
    assert "made by hand mixed-inherited-int8: +0.10 points (target: at least 1.0; missed" in compared
    assert "In int8 beside float the best method is subgraph-int8" in compared
    assert "made by hand shallower: +4.10 points (target: at least 1.0; reached" in compared
    assert "all stages but the final training and its checks, on two cores;" in text.replace("\n", " ")
    assert "Not run yet: mobilenetv2, narrower-inherited," in compared
    assert (tmp_path / "figures" / "worth.png").stat().st_size > 0


def test_the_page_of_arms_of_which_none_keeps_the_budgets_says_so(studies: Any, tmp_path: Path) -> None:
    page = studies("worth_page")
    (tmp_path / "results").mkdir()
    page.write_page(
        {"shallower 0.5 0": None, "subgraph 0.5 0": None}, tmp_path / "results" / "w.md", "a core"
    )
    text = (tmp_path / "results" / "w.md").read_text()
    assert text.count("none keeps the budgets") == 2
    assert "fine-tuned on the same images." in text
    assert "Methods and students made by hand are not yet both here." in text
