from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import WorkFolderError
from pipeline.work.interrupted import begin

RECIPE: dict[str, Any] = {"name": "mine", "seed": 0, "target": [{"budget": "0.6x"}]}


def finish(folder: Path) -> None:
    (folder / "result.json").write_text("{}")


def test_begin_may_be_repeated_for_the_same_stage(tmp_path: Path) -> None:
    for _ in range(2):
        begin(tmp_path / "search-1", RECIPE, anew=False)


def test_begin_refuses_another_recipe_beside_an_interrupted_stage_and_names_every_difference(
    tmp_path: Path,
) -> None:
    begin(tmp_path / "search-1", RECIPE, anew=False)
    changed = RECIPE | {"seed": 1, "target": [{"budget": "0.5x"}]}
    with pytest.raises(WorkFolderError) as caught:
        begin(tmp_path / "search-2", changed, anew=False)
    assert caught.value.why == 'seed: 1, was 0; target.0.budget: "0.5x", was "0.6x"'
    assert not (tmp_path / "search-2").exists()


@pytest.mark.parametrize(
    "harmless", ["finished", "other name", "other stage", "same recipe", "of an older version"]
)
def test_begin_minds_only_interrupted_stages_of_its_recipe(tmp_path: Path, harmless: str) -> None:
    earlier = tmp_path / ("teacher-1" if harmless == "other stage" else "search-1")
    begin(earlier, RECIPE | {"name": "other"} if harmless == "other name" else RECIPE, anew=False)
    if harmless == "finished":
        finish(earlier)
    if harmless == "of an older version":
        (earlier / "asked.json").unlink()
    begin(tmp_path / "search-2", RECIPE if harmless == "same recipe" else RECIPE | {"seed": 1}, anew=False)


def test_begin_anew_gives_up_what_was_interrupted_and_takes_it_up_when_it_is_asked_for(
    tmp_path: Path,
) -> None:
    changed = RECIPE | {"seed": 1}
    begin(tmp_path / "search-1", RECIPE, anew=False)
    (tmp_path / "search-1" / "journal.jsonl").write_text("evaluated")
    begin(tmp_path / "search-2", changed, anew=True)
    begin(tmp_path / "search-2", changed, anew=False)
    finish(tmp_path / "search-2")
    begin(tmp_path / "search-1", RECIPE, anew=False)
    assert (tmp_path / "search-1" / "journal.jsonl").read_text() == "evaluated"
    with pytest.raises(WorkFolderError):
        begin(tmp_path / "search-3", RECIPE | {"seed": 2}, anew=False)
