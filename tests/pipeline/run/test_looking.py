"""What a run asks before anything is trained or measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from devices.measurement import Interval
from pipeline.errors import WorkFolderError
from pipeline.progress import SilentReporter
from pipeline.recipe.loading import parse_recipe
from pipeline.run import foresee, run, search
from pipeline.stages.searching.evaluation import TrainedSupernet
from pipeline.stages.searching.search import search_candidates
from pipeline.stages.searching.supernet import train_supernet
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder
from tests.pipeline.run.conftest import Lathe
from tests.pipeline.run.made_up_stages import stored
from tests.pipeline.run.test_run_again import DOCUMENT, TARGET

RATED = DOCUMENT | {"search": {"ratings": ["one-shot"]}}


def interrupt(given: Any, folder: StageFolder, services: Any) -> Any:
    raise KeyboardInterrupt


def supernet(given: Any, folder: StageFolder, services: Any) -> TrainedSupernet:
    return TrainedSupernet(stored(folder, "weights", given), (2.0, 1.0))


@pytest.fixture(name="interrupted")
def _interrupted(lathe: Lathe) -> Iterator[Lathe]:
    """A work folder in which everything before the search is done, and the search is begun."""
    made_up, trained = search_candidates.function, train_supernet.function
    object.__setattr__(train_supernet, "function", supernet)
    object.__setattr__(search_candidates, "function", interrupt)
    with pytest.raises(KeyboardInterrupt):
        lathe.run(RATED)
    object.__setattr__(search_candidates, "function", made_up)
    yield lathe
    object.__setattr__(train_supernet, "function", trained)


@pytest.mark.parametrize("ask", [foresee, run, search])
@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 1}, "seed: 1, was 0"),
        ({"target": [{"name": TARGET, "budget_ms": 2000}]}, "target.0.budget_ms: 2000.0, was 1000.0"),
        ({"search": RATED["search"] | {"supernet": {"epochs": 2}}}, "search.supernet.epochs: 2, was 24"),
        ({"search": RATED["search"] | {"train_limit": 9}}, "search.train_limit: 9, was null"),
    ],
    ids=["teacher", "feasibility", "supernet", "evaluation"],
)
def test_a_change_that_would_drop_a_search_is_refused_before_anything_is_done(
    interrupted: Lathe, ask: Callable[..., Any], change: dict[str, Any], difference: str
) -> None:
    work = interrupted.folder / "work"
    before = {path.name for path in (work / "stages").iterdir() if not path.name.startswith("data-")}
    recipe = parse_recipe(RATED | change, interrupted.folder)
    with pytest.raises(WorkFolderError, match="the search of made-up was interrupted") as caught:
        ask(recipe, "", WorkFolder(work), str(interrupted.folder / "l.db"), SilentReporter())
    assert caught.value.why == difference
    assert {path.name for path in (work / "stages").iterdir() if not path.name.startswith("data-")} == before
    anew = WorkFolder(work, anew=True)
    assert run(recipe, "", anew, str(interrupted.folder / "l.db"), SilentReporter()).bundle


def test_a_change_that_does_not_concern_the_search_is_not_refused(interrupted: Lathe) -> None:
    assert "search" in interrupted.again(RATED | {"distil": {"epochs": 3}})


def test_more_evaluations_are_not_refused_though_what_is_known_is_looked_up_anew(interrupted: Lathe) -> None:
    ran = interrupted.again(RATED | {"search": RATED["search"] | {"evaluations": 25}})
    assert {"known", "search"} <= ran
    assert not {"teacher", "table", "supernet"} & ran


@pytest.mark.parametrize("comes_out", ["alike", "otherwise"])
@pytest.mark.parametrize(
    "change",
    [{"search": RATED["search"] | {"minutes": 5}}, {"distil": {"epochs": 3}}],
    ids=["how long", "what follows"],
)
def test_who_lost_a_table_may_change_what_decides_nothing_of_the_search(
    interrupted: Lathe, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], comes_out: str
) -> None:
    (table,) = (interrupted.folder / "work" / "stages").glob("table-*")
    (table / "result.json").unlink()
    if comes_out == "otherwise":
        monkeypatch.setattr(
            "tests.pipeline.run.made_up_stages.interval", lambda *values: Interval(2e6, 2e6, 2e6, 0.95)
        )
    assert {"table", "search"} <= interrupted.again(RATED | change)


def test_who_lost_a_table_may_not_change_what_decides_the_search(interrupted: Lathe) -> None:
    (table,) = (interrupted.folder / "work" / "stages").glob("table-*")
    (table / "result.json").unlink()
    longer_and_other = RATED["search"] | {"minutes": 5, "train_limit": 9}
    with pytest.raises(WorkFolderError, match="the search of made-up was interrupted") as caught:
        interrupted.run(RATED | {"search": longer_and_other})
    assert caught.value.why == "search.train_limit: 9, was null"
    assert not (table / "result.json").exists()
