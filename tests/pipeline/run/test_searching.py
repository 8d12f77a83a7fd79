"""The searches of the methods, with real training on a few digits and latencies that are made up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from latency_db.store.store import open_store
from pipeline.cli.run.text import search_text
from pipeline.data.base import Preprocessing
from pipeline.distill.settings import DistillationSettings
from pipeline.errors import RecipeError, TeacherError
from pipeline.recipe.loading import parse_recipe
from pipeline.run.context import Context
from pipeline.run.preparation import LearningTask, prepare_task
from pipeline.run.result import SearchResult
from pipeline.run.searching import search_round
from pipeline.search.base import Score
from pipeline.search.evaluators.registry import EVALUATORS, UNTRAINED, EvaluatorKind
from pipeline.search.strategies.predictor import PredictorStrategy
from pipeline.spaces.base import Architecture
from pipeline.stages.inputs.data import DataSummary
from pipeline.stages.searching.candidates import Round, Searched
from pipeline.stages.searching.evaluation import Evaluation
from pipeline.stages.searching.ratings import affordable
from pipeline.work.canonical import StoredFile, canonical
from pipeline.work.folder import WorkFolder
from tests.pipeline.run.made_up_run import (
    PLAN,
    SPACE_PLAN,
    TARGET,
    ByMacs,
    Quiet,
    keep_everything,
    network_ns,
    predictors,
)

STAGE = {"widths": [8, 12], "depths": [1, 2], "kernels": [3], "expansions": [2, 3], "squeeze_excite": [0.0]}
CELLS = [{"depth": 1, "width": 8}, {"depth": 1, "width": 16}]
DNA_SPACE = {
    "stem_width": 8,
    "head_width": 16,
    "blocks": [
        {"cells": CELLS[:1], "stride": 1, "kernels": [3], "expansions": [2, 3]},
        {"cells": CELLS, "kernels": [3], "expansions": [2, 3]},
        {"cells": CELLS, "kernels": [3], "expansions": [2]},
    ],
}


@pytest.fixture(autouse=True, name="_threads")
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the teacher is trained once."""
    return tmp_path_factory.mktemp("methods")


@contextmanager
def prepared(
    folder: Path, method: str, budget_ms: float = 1000.0, **search: Any
) -> Iterator[tuple[Context, LearningTask]]:
    document = {
        "name": "methods",
        "method": method,
        "data": {"kind": "digits", "train_limit": 300},
        "teacher": [{"kind": "train", "width": 8, "depth": 1, "training": {"epochs": 6, "batch_size": 16}}],
        "space": PLAN | {"stages": [STAGE]},
        "target": [{"name": str(TARGET), "budget_ms": budget_ms}],
        "search": {"evaluations": 5, "training": {"epochs": 6, "batch_size": 16}, **search},
    }
    if method == "dna":
        document["dna"] = {"space": DNA_SPACE, "training": {"epochs": 1}}
    with WorkFolder(folder / "work").opened() as work, open_store(str(folder / "latency.db")) as store:
        context = Context(parse_recipe(document, Path()), "", work, store, Quiet())
        task = prepare_task(context)
        space = task.plan.space
        keep_everything(context, space, lambda each: network_ns(each, space))
        yield context, task


def first_round(context: Context, task: LearningTask) -> Round:
    return Round(predictors(context, task.plan), context.tries)


def searched(folder: Path, method: str, **search: Any) -> Searched:
    with prepared(folder, method, **search) as (context, task):
        return search_round(context, task, first_round(context, task))


def by_architecture(found: Searched) -> dict[Architecture, float | None]:
    return {candidate.architecture: candidate.score for candidate in found.candidates}


def test_akd_evaluates_the_best_again_by_other_weights(folder: Path) -> None:
    found = searched(folder, "akd", reevaluated=2)
    again = [candidate.reevaluation for candidate in found.candidates]
    assert [reevaluation is None for reevaluation in again] == [False, False, True, True, True]
    first, second, *rest = found.candidates
    assert first.reevaluation is not None
    assert second.reevaluation is not None
    assert first.reevaluation >= second.reevaluation
    assert min(first.score or 0, second.score or 0) >= max(each.score or 0 for each in rest)
    assert (first.score, second.score) != (first.reevaluation, second.reevaluation)
    assert found.order[:2] == (first.architecture, second.architecture)


def test_the_labels_twin_asks_for_the_same_first_candidates_and_scores_them_otherwise(folder: Path) -> None:
    distilled = by_architecture(searched(folder, "akd", reevaluated=0))
    labels = by_architecture(searched(folder, "akd", reevaluated=0, reward="labels"))
    assert distilled.keys() == labels.keys()
    assert distilled != labels


def test_scores_do_not_depend_on_who_proposes(folder: Path) -> None:
    policy = by_architecture(searched(folder, "akd", reevaluated=0))
    random = by_architecture(searched(folder, "search", strategy="random"))
    shared = policy.keys() & random.keys()
    assert shared
    assert all(policy[each] == random[each] for each in shared)


@pytest.mark.slow
def test_candidates_evaluated_in_processes_get_the_same_scores_in_the_same_order(folder: Path) -> None:
    settings = {"reevaluated": 2, "evaluations": 4, "ahead": 2}
    here = searched(folder, "search", **settings)
    made = max(
        (folder / "work" / "stages").glob("search-*/again.jsonl"), key=lambda path: path.stat().st_mtime
    )
    shutil.rmtree(made.parent)
    assert searched(folder, "search", executor="processes:2", **settings) == here
    assert made.exists(), "the executor is no part of the key"


def test_strategy_with_a_ranking_decides_the_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def by_name(self: PredictorStrategy, architectures: Sequence[Architecture]) -> list[Architecture]:
        return sorted(architectures, key=str)

    monkeypatch.setattr(PredictorStrategy, "ranking", by_name)
    found = searched(folder, "search", strategy="predictor", evaluations=4)
    asked = [candidate.architecture for candidate in found.candidates]
    assert asked == sorted(asked, key=str)
    assert list(found.order) == asked[: len(found.order)]


def test_ratings_are_asked_once_told_with_their_worth_and_survive_one_that_always_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def evaluate(self, architecture: Architecture) -> Score:
            raise RuntimeError("no such thing")

    asked: list[Architecture] = []

    class Counted(ByMacs):
        def evaluate(self, architecture: Architecture) -> Score:
            asked.append(architecture)
            return super().evaluate(architecture)

    monkeypatch.setitem(EVALUATORS, "by-macs", EvaluatorKind(lambda task: Counted()))
    monkeypatch.setitem(EVALUATORS, "broken", EvaluatorKind(lambda task: Broken()))
    settings: Any = {"strategy": "predictor", "ratings": ["by-macs", "broken", "naswot"]}
    with prepared(folder, "search", **settings) as (context, task):
        found = search_round(context, task, first_round(context, task))
        told = context.reporter.notes[-3:]  # type: ignore[attr-defined]
    assert len(asked) == len(set(asked)) >= len(found.candidates)
    macs, broken, naswot = found.ratings
    assert (macs.rated, macs.failed) == (len(asked), 0)
    assert broken.failed == broken.rated == naswot.rated
    assert "no such thing" in broken.why
    assert broken.trust > 0
    assert all(each.ratings.keys() == {"by-macs", "naswot"} for each in found.candidates)
    assert "rating broken" in told[1]
    assert "no such thing" in told[1]
    # What is rated stays rated, in other searches too.
    before = len(asked)
    searched(folder, "search", **settings, evaluations=4)
    assert len(asked) == before


def test_ratings_by_shared_weights_are_trained_once_and_told(folder: Path) -> None:
    settings: Any = {
        "ratings": ["blockwise", "one-shot"],
        "supernet": {"epochs": 1, "batch_size": 32, "train_limit": 64, "score_images": 32},
    }
    with prepared(folder, "search", **settings) as (context, task):
        found = search_round(context, task, first_round(context, task))
        told = [line for line in context.reporter.notes if line.startswith("supernet")]  # type: ignore[attr-defined]
    assert all(each.ratings.keys() == {"blockwise", "one-shot"} for each in found.candidates)
    assert [line.partition(";")[0].split()[-1] for line in told] == ["blockwise", "one-shot"]
    kept = set((folder / "work" / "stages").glob("supernet-*/supernet.safetensors"))
    assert len(kept) == 2
    times = {each: each.stat().st_mtime_ns for each in kept}
    assert searched(folder, "search", **settings, evaluations=4).candidates
    assert {each: each.stat().st_mtime_ns for each in kept} == times


def test_by_default_untrained_ratings_guide_a_predictor_and_each_search_tells_which(folder: Path) -> None:
    with prepared(folder, "search") as (context, task):
        found = search_round(context, task, first_round(context, task))
        told = context.reporter.notes[-4:]  # type: ignore[attr-defined]
    assert [each.name for each in found.ratings] == list(UNTRAINED)
    assert not found.left_out
    assert [line.split()[1] for line in told] == [f"{name}:" for name in UNTRAINED]
    assert context.recipe.search.strategy == "predictor"
    assert found.tau is not None
    assert all(each.tau_without is not None for each in found.ratings)
    closer = [each for each in found.candidates if each.reevaluation is not None]
    means = [each.posterior.mean for each in found.candidates[len(closer) :] if each.posterior is not None]
    assert means == sorted(means, reverse=True)
    assert len(means) + len(closer) == len(found.candidates)
    with prepared(folder, "search") as (context, task):
        feasible = SimpleNamespace(
            limits_ns={str(TARGET): 1e9}, soft=set(), models=predictors(context, task.plan).models
        )
        result = SearchResult(context.recipe, feasible, found, ())  # type: ignore[arg-type]
    shown, document, count = search_text(result), result.to_json(), len(found.candidates)
    assert shown.count("     posterior ") == len(found.candidates)
    assert (
        f"posterior: each score is predicted from the others with tau {found.tau:.2f} ({count} scores)"
        in shown
    )
    assert shown.count("without it") == len(UNTRAINED)
    assert document["tau"] == found.tau
    assert document["ratings"][0]["tau_without"] == found.ratings[0].tau_without
    assert all(each["posterior"].keys() == {"mean", "deviation"} for each in document["candidates"])


def test_ratings_that_cannot_look_at_the_teacher_are_left_out_and_named(folder: Path) -> None:
    with prepared(folder, "search", reward="labels") as (context, task):
        found = search_round(context, task, first_round(context, task))
        told = context.reporter.notes[-2:]  # type: ignore[attr-defined]
    assert [each.name for each in found.ratings] == ["naswot", "synflow"]
    assert found.left_out.keys() == {"relation", "readout"}
    assert "without it" in found.left_out["relation"]
    assert all("left out" in line for line in told)


def test_a_rating_that_finds_nothing_to_look_at_in_the_teacher_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blind:
        def evaluate(self, architecture: Architecture) -> Score:
            raise TeacherError("no maps", why="it is a graph")

    monkeypatch.setitem(EVALUATORS, "blind", EvaluatorKind(lambda task: Blind()))
    found = searched(folder, "search", ratings=["synflow", "blind"])
    assert [each.name for each in found.ratings] == ["synflow"]
    assert found.left_out == {"blind": "no maps: it is a graph"}
    assert all(each.ratings.keys() == {"synflow"} for each in found.candidates)


def test_a_time_too_short_for_the_first_rating_still_gives_a_candidate_and_is_told(folder: Path) -> None:
    with prepared(folder, "search", minutes=1e-9, reevaluated=1) as (context, task):
        found = search_round(context, task, first_round(context, task))
        told = context.reporter.notes  # type: ignore[attr-defined]
    (only,) = found.candidates
    assert only.reevaluation is None
    assert only.posterior is not None
    assert only.posterior.mean == only.score
    assert only.posterior.deviation is None, "one score tells of no spread"
    assert found.tau is None
    assert found.order == (only.architecture,)
    assert any(line.endswith("1e-09 minutes left no time for 4 of 5") for line in told)


def test_a_killed_search_goes_on_with_what_scores_and_ratings_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ByMacs] = []

    def make(lives: int | None) -> EvaluatorKind:
        made.append(ByMacs(lives))
        return EvaluatorKind(lambda task: made[-1])

    settings: Any = {"evaluator": "mortal", "ratings": ["naswot", "synflow"], "evaluations": 7}
    monkeypatch.setitem(EVALUATORS, "mortal", make(5))
    with pytest.raises(KeyboardInterrupt):
        searched(folder, "search", **settings)
    monkeypatch.setitem(EVALUATORS, "mortal", make(None))
    continued = searched(folder, "search", **settings)
    assert len(made[-1].evaluated) == 2
    stages = folder / "work" / "stages"
    shutil.rmtree(max(stages.glob("search-*"), key=lambda each: each.stat().st_mtime))
    shutil.rmtree(folder / "work" / "evaluated")
    assert searched(folder, "search", **settings) == continued
    assert len(made[-1].evaluated) == 2 + 7


def test_a_rating_that_failed_and_works_after_a_kill_changes_nothing_of_the_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OutOfMemory(ByMacs):
        def evaluate(self, architecture: Architecture) -> Score:
            if int(architecture.identity[0], 16) % 2:
                raise MemoryError("for a while")
            return super().evaluate(architecture)

    made: list[ByMacs] = []

    def make(lives: int | None) -> EvaluatorKind:
        made.append(ByMacs(lives))
        return EvaluatorKind(lambda task: made[-1])

    settings: Any = {"evaluator": "short-lived", "ratings": ["passing", "naswot"], "evaluations": 7}
    monkeypatch.setitem(EVALUATORS, "short-lived", make(5))
    monkeypatch.setitem(EVALUATORS, "passing", EvaluatorKind(lambda task: OutOfMemory()))
    with pytest.raises(KeyboardInterrupt):
        searched(folder, "search", **settings)
    monkeypatch.setitem(EVALUATORS, "short-lived", make(None))
    monkeypatch.setitem(EVALUATORS, "passing", EvaluatorKind(lambda task: ByMacs()))
    continued = searched(folder, "search", **settings)
    assert len(made[-1].evaluated) == 2
    failed = next(each for each in continued.ratings if each.name == "passing")
    assert 0 < failed.failed < failed.rated
    assert "for a while" in failed.why


def test_a_search_that_chooses_how_dearly_tells_what_each_training_was_and_goes_on_after_a_kill(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Any = {"fidelities": [0.25, 1.0], "evaluations": 4, "ratings": ["naswot"], "reevaluated": 0}
    with prepared(folder, "search", **settings) as (context, task):
        found = search_round(context, task, first_round(context, task))
        told = context.reporter.notes  # type: ignore[attr-defined]
        feasible = SimpleNamespace(
            limits_ns={str(TARGET): 1e9}, soft=set(), models=predictors(context, task.plan).models
        )
        result = SearchResult(context.recipe, feasible, found, ())  # type: ignore[arg-type]
    whole = [each for each in found.candidates if each.fidelity == 1]
    short = [each for each in found.candidates if each.fidelity == 0.25]
    assert found.candidates == (*whole, *short), "what was trained whole stands first"
    assert 4 <= 1.25 * len(whole) + 0.25 * len(short) < 5
    assert whole
    assert all(dict(each.cheaper).keys() == {0.25} for each in whole)
    assert not any(each.cheaper for each in short)
    assert canonical(found), "later stages have it in their keys"
    assert [each.name for each in found.ratings] == ["naswot", "0.25 of the training"]
    assert found.ratings[1].rated == len(found.candidates)
    assert any(f"{len(whole)} by the whole training" in line for line in told)
    shown, document = search_text(result), result.to_json()
    assert shown.count("after 0.25 of the training") == len(found.candidates)
    assert "rating 0.25 of the training: " in shown
    assert document["candidates"][0]["fidelity"] == 1
    assert document["candidates"][0]["cheaper"].keys() == {"0.25"}

    # A search that is killed in its middle ends alike.
    stages = folder / "work" / "stages"
    kept = max(stages.glob("search-*/journal.jsonl"), key=lambda each: each.stat().st_mtime)
    journal = kept.read_bytes()
    shutil.rmtree(folder / "work" / "evaluated")
    kept.with_name("result.json").unlink()
    kept.write_bytes(journal[: len(journal) // 2])
    assert searched(folder, "search", **settings) == found
    assert kept.read_bytes() == journal


@pytest.mark.parametrize(
    ("fidelity", "epochs", "limit"),
    [(1.0, 3, None), (1 / 3, 1, 300), (0.25, 1, 225), (0.5, 2, 225), (1e-6, 1, 2)],
)
def test_a_fidelity_is_whole_epochs_and_the_rest_in_images(
    folder: Path, fidelity: float, epochs: int, limit: int | None
) -> None:
    with prepared(folder, "search", training={"epochs": 3}) as (context, task):
        evaluation = Evaluation.of(context.recipe, task.plan, task.data, task.teacher)
    images = evaluation.data.counts[0]
    found = evaluation.at(fidelity)
    assert found.training.epochs == epochs
    assert found.train_limit == (limit if limit in {None, 2} else round(3 * fidelity * images / epochs))
    assert replace(found, training=evaluation.training, train_limit=evaluation.train_limit) == evaluation


@pytest.mark.parametrize(
    ("epochs", "limit", "names", "count"),
    [
        (4, None, UNTRAINED, 5),
        (4, 500, UNTRAINED, 2),
        (400, None, UNTRAINED, 596),
        (1, 2, ["by-macs"], 1),
    ],
)
def test_ratings_take_at_most_a_quarter_of_the_evaluations_but_for_the_candidate_itself(
    monkeypatch: pytest.MonkeyPatch, epochs: int, limit: int | None, names: Sequence[str], count: int
) -> None:
    monkeypatch.setitem(EVALUATORS, "by-macs", EvaluatorKind(lambda task: ByMacs()))
    training = DistillationSettings(epochs=epochs)
    scale, file = Preprocessing((0.5,), (0.5,)), StoredFile("data", "labels.npz", "ab" * 32)
    data = DataSummary("digits", "ab", ("0", "1"), (1, 8, 8), (1146, 200, 450), scale, file)
    evaluation = Evaluation("short-training", "", SPACE_PLAN, training, limit, 0, data, None)
    assert affordable([evaluation.by(each) for each in names], evaluation) == count
    assert affordable([], evaluation) is None
    assert affordable([evaluation.by("synflow")], evaluation.by("by-macs")) is None


@pytest.mark.parametrize(
    ("search", "why"),
    [
        ({"strategy": "evolution", "ratings": ["naswot"]}, "does not look at ratings"),
        ({"strategy": "predictor", "ratings": ["naswot", "naswot"]}, "counts once"),
        ({"strategy": "predictor", "ratings": ["short-training"]}, "'short-training' is no rating"),
        ({"ratings": ["naswot"], "evaluator": "naswot"}, "is the evaluator already"),
        ({"ratings": ["naswot", "relation"], "reward": "labels"}, "rates without the teacher"),
        ({"strategy": "predictor", "ratings": ["nas-wot"]}, "no rating 'nas-wot'; did you mean 'naswot'?"),
    ],
)
def test_ratings_that_mean_nothing_are_refused(search: dict[str, Any], why: str) -> None:
    document = {
        "name": "wrong",
        "data": {"kind": "digits"},
        "teacher": [{"kind": "train"}],
        "target": [{"name": str(TARGET), "budget": "0.5x"}],
        "search": search,
    }
    with pytest.raises(RecipeError) as caught:
        parse_recipe(document, Path())
    assert why in str(caught.value) + str(caught.value.why)


def test_number_that_only_ranks_is_not_shown_as_an_accuracy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EVALUATORS, "by-macs", EvaluatorKind(lambda task: ByMacs()))
    with prepared(folder, "search", evaluator="by-macs") as (context, task):
        found = search_round(context, task, first_round(context, task))
        told = context.reporter.notes[-1]  # type: ignore[attr-defined]
    assert found.evaluated_by == "number"
    assert "%" not in told
    scores = [candidate.score or 0.0 for candidate in found.candidates]
    assert scores == sorted(scores, reverse=True)


def test_dna_selects_the_smallest_losses_within_the_budget(folder: Path) -> None:
    with prepared(folder, "dna") as (context, task):
        latencies = sorted(network_ns(each, task.plan.space) for each in task.plan.space.members())
        everything = search_round(context, task, first_round(context, task))
    losses = [-(candidate.score or 0.0) for candidate in everything.candidates]
    assert losses == sorted(losses)
    assert everything.evaluated_by == "loss"
    assert everything.order[0] == everything.candidates[0].architecture
    limit_ns = latencies[len(latencies) // 2]
    with prepared(folder, "dna", budget_ms=limit_ns / 1e6) as (context, task):
        found = search_round(context, task, first_round(context, task))
        scores = [record for record in context.work.records if record.name == "scores"]
    # Other budgets need no other scores.
    assert [record.cached for record in scores] == [True]
    assert found.candidates
    for candidate in found.candidates:
        assert candidate.estimates[str(TARGET)].high_ns <= limit_ns


def test_dna_leaves_out_what_was_rejected(folder: Path) -> None:
    with prepared(folder, "dna") as (context, task):
        start = first_round(context, task)
        first = search_round(context, task, start)
        rejected = frozenset(each.identity for each in first.order)
        second = search_round(context, task, replace(start, number=2, rejected=rejected))
    assert second.order
    assert not rejected & {each.identity for each in second.order}
