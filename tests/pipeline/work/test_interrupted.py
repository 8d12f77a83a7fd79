from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import WorkFolderError
from pipeline.work import interrupted
from pipeline.work.interrupted import require_unchanged

RECIPE: dict[str, Any] = {"name": "mine", "seed": 0, "target": [{"budget": "0.6x"}]}


def begin(folder: Path, asked: dict[str, Any], *, anew: bool, beginnings: str | None = None) -> None:
    """As each stage does, by default with beginnings of its own."""
    interrupted.begin(folder, asked, beginnings or folder.name, anew=anew)


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


LONGER = RECIPE | {"minutes": 5}


@pytest.mark.parametrize("anew", [False, True])
def test_begin_takes_over_what_began_alike(tmp_path: Path, anew: bool) -> None:
    begin(tmp_path / "search-1", RECIPE, anew=False, beginnings="alike")
    (tmp_path / "search-1" / "journal.jsonl").write_text("evaluated")
    begin(tmp_path / "search-2", LONGER, anew=anew, beginnings="alike")
    assert not (tmp_path / "search-1").exists()
    assert (tmp_path / "search-2" / "journal.jsonl").read_text() == "evaluated"
    # From now on it is the changed recipe's.
    with pytest.raises(WorkFolderError) as caught:
        begin(tmp_path / "search-3", LONGER | {"seed": 1}, anew=False)
    assert caught.value.why == "seed: 1, was 0"


def test_begin_leaves_what_another_recipe_began_alike_or_what_is_finished(tmp_path: Path) -> None:
    begin(tmp_path / "search-1", RECIPE | {"name": "other"}, anew=False, beginnings="alike")
    begin(tmp_path / "search-2", RECIPE, anew=False, beginnings="alike")
    finish(tmp_path / "search-2")
    begin(tmp_path / "search-3", LONGER, anew=False, beginnings="alike")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search-1", "search-2", "search-3"]


def test_stages_that_a_change_would_drop_are_found_before_they_are_begun(tmp_path: Path) -> None:
    begin(tmp_path / "search-1", RECIPE, anew=False)
    require_unchanged(tmp_path, ("supernet",), RECIPE | {"seed": 1})
    require_unchanged(tmp_path, ("supernet", "search"), RECIPE)
    require_unchanged(tmp_path, ("supernet", "search"), RECIPE | {"name": "other", "seed": 1})
    with pytest.raises(WorkFolderError, match="the search of mine was interrupted") as caught:
        require_unchanged(tmp_path, ("supernet", "search"), RECIPE | {"seed": 1})
    assert caught.value.why == "seed: 1, was 0"
