"""Another budget selects from what was evaluated under others, and evaluates more where that is needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.run.searching import search_by_evaluation
from pipeline.search.base import Evaluator
from pipeline.stages.searching.candidates import Round, Searched
from pipeline.stages.searching.strategy import StrategySettings
from pipeline.work.canonical import without_influence
from pipeline.work.stage import StageFolder
from tests.pipeline.run.made_up_run import (
    ByMacs,
    Quiet,
    made_up_context,
    network_ns,
    predictors,
    recipe_of,
    share_ns,
)


@dataclass(frozen=True)
class Evaluation:
    maker: ByMacs = without_influence()
    seed: int = 0
    score: str = "number"

    def at(self, fidelity: float) -> Evaluation:
        return self

    def evaluator(self, folder: StageFolder, level: int) -> Evaluator:
        return self.maker


def searched(folder: Path, share: float, seed: int = 0, **search: object) -> tuple[Searched, int, bool]:
    """What a search found, how many candidates it evaluated, and whether it was done before."""
    evaluator = ByMacs()
    recipe = recipe_of(f"{share_ns(share) / 1e6}ms", **search)
    with made_up_context(folder, recipe) as context:
        this = Round(predictors(context), context.tries)
        strategy = StrategySettings.of(recipe)
        found = search_by_evaluation(context, this, Evaluation(evaluator, seed), strategy)
        return found, len(evaluator.evaluated), context.work.records[-1].cached


def test_a_tighter_budget_counts_those_within_it_and_evaluates_the_rest(tmp_path: Path) -> None:
    wide, evaluated, _ = searched(tmp_path, 0.6)
    assert evaluated == 12
    inside = [c for c in wide.candidates if network_ns(c.architecture) <= 0.98 * share_ns(0.4)]
    assert inside
    found, more, _ = searched(tmp_path, 0.4)
    assert more <= 12 - len(inside) < 12
    assert {c.architecture for c in inside} <= {c.architecture for c in found.candidates}
    assert all(network_ns(each) <= share_ns(0.4) for each in found.order)


def test_counts_of_what_is_known_and_of_what_is_evaluated_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(tmp_path, 0.6)
    said: list[str] = []
    monkeypatch.setattr(Quiet, "note", lambda self, text: said.append(text))
    found, _, _ = searched(tmp_path, 0.4)
    before, *_ = (line for line in said if line.startswith("known "))
    line, *_ = (line for line in said if line.startswith("search "))
    known, free, left, wanted = map(int, re.findall(r"\d+", before))
    evaluated, failed, known_too = map(int, re.findall(r"\d+", line.partition(";")[0]))
    assert (wanted, failed) == (12, 0)
    assert evaluated == left == wanted - free > 0
    assert known_too == known
    assert evaluated + known == len(found.candidates)


def test_hardly_another_budget_selects_without_any_evaluation(tmp_path: Path) -> None:
    wide, _, _ = searched(tmp_path, 0.6)
    slowest = max(candidate.estimates.popitem()[1].high_ns for candidate in wide.candidates)
    limit_ns = (slowest + share_ns(0.6)) / 2
    share = (limit_ns - share_ns(0)) / (share_ns(1) - share_ns(0))
    found, more, _ = searched(tmp_path, share)
    assert more == 0
    assert {c.architecture for c in found.candidates} == {c.architecture for c in wide.candidates}


def test_a_looser_budget_is_searched_in_full_beside_what_is_known(tmp_path: Path) -> None:
    tight, _, _ = searched(tmp_path, 0.3)
    found, _, _ = searched(tmp_path, 0.8)
    assert {c.architecture for c in tight.candidates} <= {c.architecture for c in found.candidates}
    assert len(found.candidates) >= 12
    assert max(network_ns(each.architecture) for each in found.candidates) > share_ns(0.4)


def test_the_same_search_is_not_done_again_whatever_others_have_evaluated_since(tmp_path: Path) -> None:
    first, _, _ = searched(tmp_path, 0.5)
    searched(tmp_path, 0.7)
    again, evaluated, cached = searched(tmp_path, 0.5)
    assert (again, evaluated, cached) == (first, 0, True)


def test_another_strategy_draws_its_own_candidates_but_no_score_is_made_twice(tmp_path: Path) -> None:
    first, _, _ = searched(tmp_path, 0.5)
    other, evaluated, _ = searched(tmp_path, 0.5, strategy="random")
    shared = {c.architecture for c in first.candidates} & {c.architecture for c in other.candidates}
    assert len(other.candidates) == 12
    assert evaluated == 12 - len(shared)


def test_another_evaluation_knows_nothing_of_the_first(tmp_path: Path) -> None:
    searched(tmp_path, 0.5)
    assert searched(tmp_path, 0.5, seed=1)[1] == 12


@pytest.mark.parametrize("cut_off", [b"", b'{"candidate": {"arch'])
def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path, cut_off: bytes) -> None:
    searched(tmp_path, 0.5)
    (file,) = (tmp_path / "work" / "evaluated").glob("*.jsonl")
    with file.open("ab") as stream:
        stream.write(cut_off)
    assert searched(tmp_path, 0.5, strategy="random")[0].candidates
    assert searched(tmp_path, 0.5, strategy="random", evaluations=13)[1] <= 1
