"""What recipes for other tasks than one class for each image may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RecipeError
from pipeline.recipe.loading import Recipe, parse_recipe

OWN = {"kind": "factory", "factory": "a:b", "weights": "w.pt"}


def recipe(task: str = "multi-label", **changed: Any) -> Recipe:
    document = {
        "name": "other",
        "data": {"kind": "npz", "path": "data.npz", "task": task},
        "teacher": [OWN],
        "target": [{"name": "host/onnxruntime:fp32@1", "budget_ms": 1}],
    }
    return parse_recipe(document | changed, Path())


def test_labels_of_several_numbers_come_from_arrays() -> None:
    with pytest.raises(RecipeError, match="not valid") as caught:
        recipe(data={"kind": "digits", "task": "regression"})
    assert "a class for each image" in caught.value.why


@pytest.mark.parametrize("method", ["dna", "oracle"])
def test_methods_made_for_classes_are_refused(method: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(method=method)
    assert "use 'search', 'akd', 'subgraph'" in caught.value.why


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"distil": {"loss": [{"kind": "decoupled_kd"}]}}, "the loss 'decoupled_kd'"),
        ({"search": {"training": {"loss": [{"kind": "oracle"}]}}}, "the loss 'oracle'"),
        ({"teacher": [OWN, OWN]}, "needs one teacher"),
        ({"teacher": [{"kind": "train", "members": 2}]}, "needs one teacher"),
        ({"teacher": [OWN | {"classes": {"a": [0, 1], "b": 2}}]}, "one output stands for each label"),
    ],
)
def test_what_needs_classes_is_refused_with_the_key(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe(**changed)
    assert words in caught.value.why


def test_embeddings_imitate_the_teacher_alone_unless_the_recipe_says_more() -> None:
    found = recipe("embedding")
    for losses in (found.distil.loss, found.search.training.loss):
        assert [loss.kind for loss in losses] == ["soft_targets"]
    own = recipe("embedding", distil={"loss": [{"kind": "soft_targets"}, {"kind": "fitnet"}]})
    assert [loss.kind for loss in own.distil.loss] == ["soft_targets", "fitnet"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"teacher": [{"kind": "train"}]}, "trained already"),
        ({"teacher": [OWN | {"training": {"epochs": 1}}]}, "trained already"),
        ({"distil": {"loss": [{"kind": "labels"}]}}, "nothing to learn from labels"),
        ({"search": {"reward": "labels"}}, "nothing to learn from labels"),
        (
            {"method": "subgraph", "subgraph": {"selection": {"data_term": "labels"}}},
            "nothing to learn from labels",
        ),
        ({"teacher": [OWN | {"classes": {"a": 1}}]}, "no classes"),
    ],
)
def test_labels_teach_no_embedding(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe("embedding", **changed)
    assert words in caught.value.why
