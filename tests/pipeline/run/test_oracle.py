from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import BudgetError
from pipeline.recipe.loading import parse_recipe
from pipeline.run import run
from pipeline.work.folder import WorkFolder
from tests.pipeline.run.conftest import Lathe
from tests.pipeline.run.made_up_run import Quiet
from tests.pipeline.run.test_run_again import DOCUMENT


def _notes(lathe: Lathe, document: dict[str, Any]) -> list[str]:
    reporter = Quiet()
    recipe, work = parse_recipe(document, lathe.folder), WorkFolder(lathe.folder / "work")
    run(recipe, "text", work, str(lathe.folder / "l.db"), reporter)
    return reporter.notes


def test_an_oracle_loss_with_one_teacher_is_told_to_have_no_ensemble(lathe: Lathe) -> None:
    oracle = DOCUMENT | {"distil": {"loss": [{"kind": "oracle"}]}}
    assert sum("the teacher is one network" in note for note in _notes(lathe, oracle)) == 1
    assert not any("the teacher is one network" in note for note in _notes(lathe, DOCUMENT))


def test_a_limit_below_the_backbone_names_what_it_has(lathe: Lathe) -> None:
    with pytest.raises(
        BudgetError, match="backbone alone has more parameters than max_parameters = 10"
    ) as caught:
        _notes(lathe, DOCUMENT | {"method": "oracle", "oracle": {"max_parameters": 10}})
    assert caught.value.fix.startswith("allow ")
