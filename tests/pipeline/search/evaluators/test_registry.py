"""Evaluators are found by name; the example of the documentation is one."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.data.base import Dataset
from pipeline.distill.settings import DistillationSettings
from pipeline.errors import RecipeError
from pipeline.search.evaluators import registry
from pipeline.search.evaluators.registry import (
    SHORT_TRAINING,
    EvaluationTask,
    evaluator_version,
    find_evaluator,
)
from pipeline.search.evaluators.short_training import DistillationEvaluator
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.search.loop import search
from pipeline.spaces.cost import block_cost
from tests.pipeline.search.search_models import small_space
from tests.pipeline.search.test_loop import evolution
from tests.places import ROOT

PAGE = (ROOT / "docs" / "extending" / "evaluators.md").read_text("utf-8")


def task(dataset: Dataset) -> EvaluationTask:
    def no_teacher() -> None:
        raise AssertionError("nobody asked for the teacher")

    return EvaluationTask(
        small_space(),
        dataset,
        DistillationSettings(epochs=1),
        0,
        no_teacher,  # type: ignore[arg-type]
        lambda: None,
        SupernetSettings(),
        dict,
    )


@pytest.fixture(name="installed")
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example as a distribution, with an evaluator that is none and one that cannot be loaded."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "my_evaluators.py").write_text(code + "\nNOTHING = 7\n")
    (points,) = re.findall(r"^(grad-norm = .*)$", PAGE, flags=re.MULTILINE)
    points = points.replace('"', "")
    about = tmp_path / "my_evaluators-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-evaluators\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(
        f"[lathe.evaluators]\n{points}\nnothing = my_evaluators:NOTHING\nabsent = my_evaluators:ABSENT\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    registry._added.cache_clear()
    yield
    registry._added.cache_clear()
    sys.modules.pop("my_evaluators", None)


def test_lathes_own_evaluator_trains_shortly(dataset: Dataset) -> None:
    kind = find_evaluator(SHORT_TRAINING)
    assert kind.score == "accuracy"
    assert isinstance(kind.make(task(dataset)), DistillationEvaluator)
    assert evaluator_version(SHORT_TRAINING) == ""


@pytest.mark.usefixtures("installed")
def test_example_of_the_documentation_evaluates_a_search(dataset: Dataset, tmp_path: Path) -> None:
    kind = find_evaluator("grad-norm")
    assert kind.score == "number"
    assert evaluator_version("grad-norm") == "my-evaluators 1.2"
    evaluator = kind.make(task(dataset))
    found = search(evolution(), evaluator, 4, tmp_path / "journal.jsonl")
    scores = {each.architecture: each.score for each in found}
    assert None not in scores.values()
    assert scores == {architecture: evaluator.evaluate(architecture) for architecture in scores}
    space = small_space()
    small, large = (space.extreme(lambda each: block_cost(each).macs, largest=each) for each in (False, True))
    assert evaluator.evaluate(small).value < evaluator.evaluate(large).value


def test_evaluator_that_nobody_brings_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="no evaluator 'nonesuch'") as caught:
        find_evaluator("nonesuch")
    assert SHORT_TRAINING in caught.value.why


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "why"), [("nothing", "it is a int"), ("absent", "AttributeError")])
def test_evaluator_that_cannot_be_used_names_its_distribution(name: str, why: str) -> None:
    with pytest.raises(RecipeError, match="my-evaluators") as caught:
        find_evaluator(name)
    assert why in caught.value.why
