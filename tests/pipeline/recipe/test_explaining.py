from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RecipeError
from pipeline.recipe.loading import Recipe, parse_recipe


def _why(changed: dict[str, Any]) -> str:
    document: dict[str, Any] = {
        "name": "demo",
        "data": {"kind": "digits"},
        "teacher": [{"kind": "train"}],
        "target": [{"name": "host/litert:fp32@1", "budget": "0.6x"}],
    }
    with pytest.raises(RecipeError) as caught:
        parse_recipe(document | changed, Path())
    return caught.value.why


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"seed": "seven"}, "seed is 'seven'; it must be a whole number from 0 to 2147483647"),
        ({"seed": 10**30}, f"seed is {10**30}; it must be a whole number from 0 to 2147483647"),
        ({"distil": {"epochs": 0}}, "distil.epochs is 0; it must be a whole number from 1 to 100000"),
        (
            {"distil": {"batch_size": 10**9}},
            "distil.batch_size is 1000000000; it must be a whole number from 2 to 65536",
        ),
        ({"distil": {"momentum": 1.5}}, "distil.momentum is 1.5; it must be a number from 0 and below 1"),
        (
            {"distil": {"learning_rate": 0}},
            "distil.learning_rate is 0; it must be a number above 0 and at most 100",
        ),
        ({"distil": {"patience": 0}}, "distil.patience is 0; it must be a whole number from 1 to 100000"),
        (
            {"distil": {"learning_rate": float("nan")}},
            "distil.learning_rate is nan; it must be a number above 0 and at most 100",
        ),
        (
            {"search": {"training": {"weight_decay": 5}}},
            "search.training.weight_decay is 5; it must be a number from 0 to 1",
        ),
        (
            {"dna": {"training": {"edge_learning_rate": 1e9}}},
            "dna.training.edge_learning_rate is 1000000000.0; it must be a number above 0 and at most 100",
        ),
        (
            {"search": {"train_limit": 10**12}},
            "search.train_limit is 1000000000000; it must be a whole number from 2 to 1000000000",
        ),
        (
            {"space": {"stem_width": 10**6}},
            "space.stem_width is 1000000; it must be a whole number from 1 to 65536",
        ),
        (
            {"space": {"stages": [{"widths": [8, 0]}]}},
            "space.stages.0.widths.1 is 0; it must be a whole number from 1 to 65536",
        ),
        (
            {"teacher": [{"kind": "train", "mean": [1e9], "std": [1.0]}]},
            "teacher.0.mean.0 is 1000000000.0; it must be a number from -1000 to 1000",
        ),
        (
            {"teacher": [{"kind": "train", "width": 10**6}]},
            "teacher.0.width is 1000000; it must be a whole number from 1 to 4096",
        ),
        (
            {"data": {"kind": "npz", "path": "x", "image_size": 10**6}},
            "data.image_size: write a side from 4 to 4096 pixels, or [height, width] (given: 1000000)",
        ),
        (
            {"method": "magic"},
            "method is 'magic'; it must be one of 'search', 'akd', 'dna', 'subgraph' or 'oracle'",
        ),
        ({"name": "../x"}, "name is '../x'; it must be a name of letters, digits, '_', '.' and '-'"),
        ({"name": 3}, "name is 3; it must be a name of letters, digits, '_', '.' and '-'"),
        ({"search": 3}, "search is 3; it must be a table"),
        ({"teacher": {}}, "teacher is a table; it must be a list of tables"),
        ({"target": []}, "target has 0 entries; it needs at least 1"),
        (
            {"distil": {"loss": [{"kind": "soft_targets", "temperature": "hot"}]}},
            "distil.loss.0.temperature is 'hot'; it must be a number above 0 and at most 1000",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_it_may_be(changed: dict[str, Any], line: str) -> None:
    assert _why(changed) == line


def test_a_list_with_a_wrong_entry_is_not_said_to_be_empty_as_well() -> None:
    why = _why({"teacher": [{"kind": "train", "width": 0}], "target": [{"name": "host/litert:fp32@1"}]})
    teacher, target = (line.strip() for line in why.splitlines())
    assert teacher == "teacher.0.width is 0; it must be a whole number from 1 to 4096"
    assert target.startswith("target.0: give exactly one of budget")


def test_a_kind_of_loss_that_does_not_exist_is_named_with_those_that_do() -> None:
    why = _why({"distil": {"loss": [{"kind": "soft_target"}]}})
    assert why.startswith("distil.loss.0.kind is 'soft_target'; it must be one of 'labels', 'soft_targets'")


def _unlimited(schema: Any, where: str) -> list[str]:
    """Numbers of a schema without a lower or an upper end."""
    if isinstance(schema, list):
        return [found for each in schema for found in _unlimited(each, where)]
    if not isinstance(schema, dict):
        return []
    if schema.get("type") in ("integer", "number") and not {"enum", "const"} & schema.keys():
        ends = (
            {"minimum", "exclusiveMinimum"} & schema.keys(),
            {"maximum", "exclusiveMaximum"} & schema.keys(),
        )
        return [] if all(ends) else [where]
    return [found for name, each in schema.items() for found in _unlimited(each, f"{where}.{name}")]


def test_every_number_of_a_recipe_has_a_range() -> None:
    # A budget says itself what it takes: however generous one is, it can be kept.
    assert {where.rpartition(".properties.")[2] for where in _unlimited(Recipe.model_json_schema(), "")} == {
        "budget_ms.anyOf"
    }
