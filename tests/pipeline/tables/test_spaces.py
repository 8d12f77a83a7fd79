from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RecipeError
from pipeline.spaces.add_on.config import AddOnSpaceConfig
from pipeline.spaces.add_on.space import AddOnSpace
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.spaces import find_space

RECIPE = """
name = "mine"
method = "{}"
[data]
kind = "digits"
[[teacher]]
kind = "train"
[[target]]
name = "host/onnxruntime:fp32@1"
budget_ms = 1000
"""


def recipe(folder: Path, method: str) -> str:
    path = folder / "mine.toml"
    path.write_text(RECIPE.format(method))
    return str(path)


@pytest.mark.parametrize("method", ["search", "akd"])
def test_the_space_of_a_recipe_is_the_one_that_its_run_searches(tmp_path: Path, method: str) -> None:
    assert find_space(recipe(tmp_path, method), "1x8x8", 10) == MobileSpace.from_config(None, (1, 8, 8), 10)


def test_the_space_of_an_oracle_recipe_is_that_of_the_additions(tmp_path: Path) -> None:
    expected = AddOnSpace(AddOnSpaceConfig.for_input((1, 8, 8)), (1, 8, 8), 10)
    assert find_space(recipe(tmp_path, "oracle"), "1x8x8", 10) == expected


@pytest.mark.parametrize("method", ["subgraph", "dna"])
def test_a_space_that_is_made_from_the_teacher_is_refused(tmp_path: Path, method: str) -> None:
    name = recipe(tmp_path, method)
    with pytest.raises(RecipeError, match="cannot be made from the recipe alone") as caught:
        find_space(name, "1x8x8", 10)
    assert f'its method is "{method}"' in caught.value.why
    assert f"lathe run {name}" in caught.value.fix


@pytest.mark.parametrize("name", ["nowhere.toml", "x" * 300, "a\0b"])
def test_what_is_no_file_is_no_space(name: str) -> None:
    with pytest.raises(RecipeError, match="there is no space"):
        find_space(name, "1x8x8", 10)
