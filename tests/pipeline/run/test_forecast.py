"""What is done is found as a run would find it; what is left is estimated, and called an estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
import torch
from torch import nn

import pipeline.stages
from devices.measurement import MeasuringProtocol
from latency_db.store import open_store
from pipeline.cli.run.text import forecast_text
from pipeline.errors import ExecutorError, RecipeError
from pipeline.export.base import Format
from pipeline.progress import SilentReporter
from pipeline.recipe.loading import parse_recipe
from pipeline.run import durations, foresee, run, search
from pipeline.run.context import Context
from pipeline.run.durations import Duration
from pipeline.run.forecast import Forecast, OpenStage
from pipeline.run.looking import PART_OF
from pipeline.run.preparation import prepare_task
from pipeline.stages.inputs.space import SpacePlan
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import Stage
from tests.pipeline.run.made_up_run import PLAN, SPACE, SPACE_PLAN, TARGET, keep_everything, network_ns

FOUND = Forecast(
    ("data", "teacher"),
    (OpenStage("table", "5 blocks", 90.0, "the protocol"), OpenStage("search", "unknown", None, "no cut")),
)
DOCUMENT: dict[str, Any] = {
    "name": "made-up",
    "data": {"kind": "digits", "train_limit": 200},
    "teacher": [{"kind": "train", "width": 4, "depth": 1, "training": {"epochs": 7}}],
    "space": PLAN,
    "target": [{"name": str(TARGET), "budget": "0.6x"}],
    "search": {"evaluations": 11, "training": {"epochs": 2}},
    "distil": {"epochs": 9},
}


def test_an_estimate_is_called_one_and_says_what_it_lacks() -> None:
    document = FOUND.to_json()
    assert document["estimated_seconds"] == 90.0
    assert document["complete"] is False
    assert document["left"][1] == {
        "stage": "search",
        "work": "unknown",
        "estimated_seconds": None,
        "basis": "no cut",
        "estimated_memory_bytes": None,
    }
    assert list(FOUND.lines()) == [
        "estimate     at least 1 min 30 s if nothing disturbs: table 1 min 30 s, search ?",
        "             done before: data, teacher",
    ]
    text = forecast_text("made-up", FOUND)
    assert text.startswith("made-up: estimated at least 1 min 30 s")
    assert "not estimated: unknown" in text


def test_a_finished_run_has_nothing_to_estimate() -> None:
    finished = Forecast(("data", "bundle"), ())
    assert list(finished.lines()) == []
    assert forecast_text("made-up", finished) == "made-up: everything is done; 'lathe run' answers at once\n"


def test_timing_training_steps_leaves_the_weights_alone() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    before = [weight.detach().clone() for weight in module.parameters()]
    assert durations.training_step(module, (1, 8, 8), 4).seconds > 0
    for weight, earlier in zip(module.parameters(), before, strict=True):
        torch.testing.assert_close(weight.detach(), earlier)


def test_measuring_takes_as_long_as_the_protocol_asks_or_as_it_took_before(tmp_path: Path) -> None:
    protocol = MeasuringProtocol(launches=4, warmup_ns=10**9, min_ns=2 * 10**9)
    with open_store(str(tmp_path / "latency.db")) as store:
        first = durations.measuring(store, str(TARGET), protocol)
        assert first.seconds == pytest.approx(4 * 3.05)
        assert "nothing was measured" in first.basis
        recipe = parse_recipe(DOCUMENT, Path())
        context = Context(recipe, "", WorkFolder(tmp_path / "work"), store, SilentReporter())
        keep_everything(context, SPACE, network_ns)
        later = durations.measuring(store, str(TARGET), protocol)
        assert later.seconds < first.seconds
        assert "earlier measurements" in later.basis


def test_more_exports_take_longer_and_none_take_nothing() -> None:
    few, many = (durations.exporting(Format.LITERT, count).seconds for count in (1, 100))
    assert durations.exporting(Format.LITERT, 0).seconds == 0 < few < many


def test_nothing_but_data_is_done_by_an_estimate(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path / "work")
    recipe = parse_recipe(DOCUMENT, Path())
    found = foresee(recipe, "", work, str(tmp_path / "latency.db"), SilentReporter())
    assert found.done == ("data",)
    left = {stage.name: stage for stage in found.left}
    assert list(left) == ["teacher", "table", "search", "distil", "verify"]
    assert "7 epochs of" in left["teacher"].work
    assert f"{len(SPACE.distinct_blocks())} blocks to measure" in left["table"].work
    assert "11 candidates, 2 epochs" in left["search"].work
    assert "up to 9 epochs" in left["distil"].work
    assert found.is_whole
    assert found.seconds > 0
    assert [path.name.partition("-")[0] for path in (tmp_path / "work" / "stages").iterdir()] == ["data"]


@pytest.mark.parametrize("ask", [foresee, run, search])
def test_a_cluster_that_does_not_answer_is_told_before_anything_is_trained(
    tmp_path: Path, ask: Callable[..., Any]
) -> None:
    pytest.importorskip("ray")
    far = {**DOCUMENT, "search": {"executor": "ray://127.0.0.1:9", "ahead": 2}}
    work = WorkFolder(tmp_path / "work")
    with pytest.raises(ExecutorError, match=r"Ray cannot be used at ray://127\.0\.0\.1:9"):
        ask(parse_recipe(far, Path()), "", work, str(tmp_path / "latency.db"), SilentReporter())
    assert [path.name.partition("-")[0] for path in (tmp_path / "work" / "stages").iterdir()] == ["data"]


def test_a_run_that_needs_much_memory_says_so_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.run.forecast.machine_bytes", lambda: 1_000_000_000)
    stage = OpenStage("distil", "9 epochs", 90.0, "steps", 600_000_000)
    said = "memory       estimated at least 0.6 GB for distil, of the 1.0 GB of this machine"
    assert list(Forecast((), (stage,)).lines())[-1] == said
    assert "9 epochs; at least 0.6 GB of memory" in forecast_text("made-up", Forecast((), (stage,)))
    assert said not in Forecast((), (replace(stage, memory_bytes=100_000_000),)).lines()


@pytest.mark.parametrize(
    ("teacher", "has_bytes", "what"),
    [
        ({"width": 4096}, 2_000_000_000, "training 'convnet-w4096-d1' in batches of 64"),
        ({"width": 1, "training": {"epochs": 1, "batch_size": 2}}, 20_000, "training the largest student"),
    ],
)
def test_a_run_that_cannot_fit_is_refused_before_anything_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: dict[str, Any], has_bytes: int, what: str
) -> None:
    monkeypatch.setattr("pipeline.memory.machine_bytes", lambda: has_bytes)
    timed = Duration(1.0, "a step")
    monkeypatch.setattr(durations, "training_step", lambda *given: timed if has_bytes == 20_000 else 1 / 0)
    document = {**DOCUMENT, "teacher": [{"kind": "train", "depth": 1, **teacher}]}
    work = WorkFolder(tmp_path / "work")
    with pytest.raises(RecipeError, match=f"{what}.* needs at least .* of memory"):
        foresee(parse_recipe(document, tmp_path), "", work, str(tmp_path / "latency.db"), SilentReporter())
    assert [path.name.partition("-")[0] for path in (tmp_path / "work" / "stages").iterdir()] == ["data"]


def test_a_search_for_mixtures_adds_to_the_estimate_of_the_training(tmp_path: Path) -> None:
    def distil(search: dict[str, int]) -> OpenStage:
        loss = [{"kind": "feature_aggregation", "search": search}]
        recipe = parse_recipe(DOCUMENT | {"distil": {"epochs": 9, "loss": loss}}, Path())
        work = WorkFolder(tmp_path / "work")
        found = foresee(recipe, "", work, str(tmp_path / "latency.db"), SilentReporter())
        return next(stage for stage in found.left if stage.name == "distil")

    short, long = distil({"epochs": 4}), distil({"epochs": 400})
    assert "after 4 epochs of search for each size of feature maps" in short.work
    assert short.seconds is not None
    assert long.seconds is not None
    # A hundred times as many epochs: no disturbance of the timed steps hides that.
    assert long.seconds > short.seconds


def test_ratings_add_at_most_a_quarter_to_the_estimate_of_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """170 images twice: 340 of training for each candidate, of which ratings may take 85."""
    monkeypatch.setattr(durations, "training_step", lambda *given: Duration(1.0, "a step"))

    def search_of(**search: Any) -> OpenStage:
        recipe = parse_recipe(DOCUMENT | {"search": {**DOCUMENT["search"], **search}}, Path())
        work = WorkFolder(tmp_path / "work")
        found = foresee(recipe, "", work, str(tmp_path / "latency.db"), SilentReporter())
        return next(stage for stage in found.left if stage.name == "search")

    plain = search_of(ratings=[])
    assert plain.seconds == 11 * 2 * 3
    rated = search_of(ratings=["synflow"])
    assert "; 2 rated before each, at most" in rated.work
    assert rated.seconds == pytest.approx(66 * (1 + 2 * 32 / 340))
    # One at least is rated, whatever it takes.
    assert search_of(ratings=["naswot", "synflow"]).seconds == pytest.approx(66 * (1 + 96 / 340))
    assert search_of(ratings=["synflow"], minutes=0.5).seconds == 30
    trained = search_of(ratings=["one-shot"], supernet={"epochs": 4, "batch_size": 170})
    assert trained.seconds == pytest.approx(66 * (1 + 128 / 340) + 4)


DNA = DOCUMENT | {
    "method": "dna",
    "teacher": [{"kind": "train", "width": 8, "depth": 1}],
    "dna": {"training": {"epochs": 5, "score_images": 20, "calibration_images": 20}},
}


def test_the_supernets_of_dna_are_estimated_from_steps_of_the_teacher_as_it_is(tmp_path: Path) -> None:
    work, db = WorkFolder(tmp_path / "work"), str(tmp_path / "latency.db")

    def search_of(document: dict[str, Any]) -> OpenStage:
        found = foresee(parse_recipe(document, Path()), "", work, db, SilentReporter())
        assert found.is_whole
        assert [path.name.partition("-")[0] for path in work.stages.iterdir()] == ["data"]
        return next(each for each in found.left if each.name == "search")

    few = search_of(DNA)
    assert "5 epochs of each of 3 blocks" in few.work
    assert "training steps of each block timed now" in few.basis
    assert few.seconds is not None
    assert few.seconds > 0


def test_supernets_of_a_teacher_that_cannot_be_cut_are_not_estimated(tmp_path: Path) -> None:
    document = DNA | {"dna": {"cuts": ["nowhere", "elsewhere"]}}
    db = str(tmp_path / "latency.db")
    found = foresee(parse_recipe(document, Path()), "", WorkFolder(tmp_path / "work"), db, SilentReporter())
    left = {each.name: each for each in found.left}
    assert left["search"].seconds is None
    assert "no module nowhere, elsewhere" in left["search"].basis


SUBGRAPH = DOCUMENT | {
    "method": "subgraph",
    "allow_chance": True,
    "teacher": [{"kind": "train", "width": 4, "depth": 1, "training": {"epochs": 1}}],
    "subgraph": {"most_blocks": 12, "selection": {"epochs": 3}},
}
SUBGRAPH.pop("space")


def test_the_selection_of_a_subgraph_is_estimated_from_steps_of_the_teacher(tmp_path: Path) -> None:
    work, db = WorkFolder(tmp_path / "work"), str(tmp_path / "latency.db")

    def left_of(**subgraph: Any) -> dict[str, OpenStage]:
        document = SUBGRAPH | {"subgraph": {"most_blocks": 12} | subgraph}
        found = foresee(parse_recipe(document, Path()), "", work, db, SilentReporter())
        assert found.is_whole
        return {each.name: each for each in found.left}

    left = left_of(selection={"epochs": 3})
    assert left["search"].work.startswith("3 epochs of 170 images with gates on the teacher; ")
    assert "training steps timed now, of the whole teacher" in left["search"].basis
    assert left["table"].work.startswith("at most 12 blocks of the teacher")
    longer = left_of(selection={"epochs": 300})["search"].seconds
    assert left["search"].seconds is not None
    assert longer is not None
    assert longer > left["search"].seconds > 0
    assert "gates" not in left_of(proposals=["importance"])["search"].work
    assert [path.name.partition("-")[0] for path in work.stages.iterdir()] == ["data"]


def test_the_blocks_of_a_teacher_are_counted_once_they_are_known(tmp_path: Path) -> None:
    recipe, work = parse_recipe(SUBGRAPH, Path()), WorkFolder(tmp_path / "work")
    with open_store(str(tmp_path / "latency.db")) as store:
        plan = prepare_task(Context(recipe, "", work, store, SilentReporter())).plan
    found = foresee(recipe, "", work, str(tmp_path / "latency.db"), SilentReporter())
    assert {"teacher", "structures", "importance", "space"} <= set(found.done)
    assert found.left[0].work.startswith(f"{len(plan.space.distinct_blocks())} blocks to measure")
    assert found.is_whole


def test_mixtures_for_a_subgraph_are_not_estimated_before_the_teacher_is_looked_at(tmp_path: Path) -> None:
    distil = {"epochs": 9, "loss": [{"kind": "feature_aggregation", "search": {"epochs": 4}}]}
    recipe, db = parse_recipe(SUBGRAPH | {"distil": distil}, Path()), str(tmp_path / "latency.db")
    found = foresee(recipe, "", WorkFolder(tmp_path / "work"), db, SilentReporter())
    left = {each.name: each for each in found.left}
    assert left["distil"].seconds is None
    assert left["distil"].basis == "the teacher is not looked at yet"
    assert left["search"].seconds is not None


def test_what_the_database_has_is_not_counted_as_left(tmp_path: Path) -> None:
    work, recipe = WorkFolder(tmp_path / "work"), parse_recipe(DOCUMENT, Path())
    space = SpacePlan(SPACE_PLAN.config, (1, 8, 8), 10).space
    with open_store(str(tmp_path / "latency.db")) as store:
        context = Context(recipe, "", work, store, SilentReporter())
        keep_everything(context, space, network_ns)
    found = foresee(recipe, "", work, str(tmp_path / "latency.db"), SilentReporter())
    table = next(stage for stage in found.left if stage.name == "table")
    assert table.work.startswith("0 blocks to measure, 0 of them to export")


def test_every_stage_but_the_first_is_part_of_an_estimate() -> None:
    modules = [
        import_module(found.name) for found in walk_packages(pipeline.stages.__path__, "pipeline.stages.")
    ]
    names = {each.name for module in modules for each in vars(module).values() if isinstance(each, Stage)}
    assert names - {"data"} == set(PART_OF)
