from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.distill.losses.settings import FeatureAggregationSettings, LabelsSettings, SoftTargetsSettings
from pipeline.errors import RecipeError
from pipeline.recipe.loading import Recipe, load_recipe, parse_recipe


def _recipe(loss: list[dict[str, Any]], table: str = "distil") -> Recipe:
    document: dict[str, Any] = {
        "name": "demo",
        "data": {"kind": "digits"},
        "teacher": [{"kind": "train"}],
        "target": [{"name": "host/litert:fp32@1", "budget": "0.6x"}],
    }
    settings = {"loss": loss}
    document |= {"distil": settings} if table == "distil" else {"search": {"training": settings}}
    return parse_recipe(document, Path())


def test_a_recipe_names_its_losses_for_the_search_and_for_the_full_training() -> None:
    loss = [{"kind": "labels", "weight": 0.5}, {"kind": "soft_targets", "temperature": 2}]
    expected = (LabelsSettings(weight=0.5), SoftTargetsSettings(temperature=2))
    assert _recipe(loss).distil.loss == expected
    assert _recipe(loss, "search").search.training.loss == expected


def test_a_tenth_of_labels_and_nine_of_soft_targets_are_the_default() -> None:
    recipe, _ = load_recipe("quickstart")
    kinds = [(each.kind, each.weight) for each in recipe.distil.loss]
    assert kinds == [("labels", 0.1), ("soft_targets", 0.9)]


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ([{"kind": "labels", "temperature": 2}], "'distil.loss.0.temperature' is not a key"),
        ([{"kind": "soft_target"}], "'soft_target'"),
        ([{"weight": 1}], "distil.loss.0.kind is missing"),
        ([], "distil.loss"),
        ([{"kind": "labels"}, {"kind": "soft_targets", "temperature": 0}], "distil.loss.1.temperature"),
        ([{"kind": "labels", "weight": -1}], "distil.loss.0.weight"),
        ([{"kind": "fitnet", "student_layers": ["a"]}], "as many names each"),
    ],
)
def test_a_wrong_loss_is_named_by_its_place(loss: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _recipe(loss)
    assert said in caught.value.why


def test_a_mixture_is_searched_for_the_final_training_alone() -> None:
    loss = [{"kind": "labels"}, {"kind": "feature_aggregation", "search": {"epochs": 7}}]
    training = _recipe(loss).distil
    assert [each.search.epochs for each in training.searched] == [7]
    found = training.with_mixtures([((0.25, 0.75), (1.0,))])
    assert not found.searched
    assert found.loss == (
        LabelsSettings(),
        FeatureAggregationSettings(mixture="fixed", shares=((0.25, 0.75), (1.0,))),
    )
    with pytest.raises(RecipeError) as caught:
        _recipe(loss, "search")
    assert "is for the final training" in caught.value.why


def test_losses_are_read_without_torch() -> None:
    program = "import sys, pipeline.distill.losses.settings; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
