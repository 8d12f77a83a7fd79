"""The stage ``proposals`` of method ``subgraph``: real data, a real teacher; only latencies are made up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from latency_db.estimate import Estimate
from pipeline.errors import BudgetError, VerificationError
from pipeline.methods.subgraph.costs import least_counts
from pipeline.methods.subgraph.settings import PROPOSALS, SubgraphSettings
from pipeline.recipe.loading import parse_recipe
from pipeline.run.preparation import prepare_task
from pipeline.spaces.base import Architecture
from pipeline.spaces.teacher.space import TeacherSpace
from pipeline.stages.searching.proposals import Proposals, ProposalsInput, costs_of, propose_subgraphs
from pipeline.work.stage import StageFolder
from tests.pipeline.run.made_up_run import made_up_context

DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "method": "subgraph",
    "allow_chance": True,
    "data": {"kind": "digits", "train_limit": 100},
    "teacher": [{"kind": "train", "width": 4, "depth": 1, "training": {"epochs": 1}}],
    "target": [{"name": "host/onnxruntime:fp32@1", "budget": "0.5x teacher"}],
    "subgraph": {"most_blocks": 12},
}
ONE_EPOCH = SubgraphSettings(epochs=1)


@dataclass
class MadeUp:
    """Latencies by multiply-accumulates; limits on two targets."""

    space: TeacherSpace
    limits_ns: dict[str, float]
    soft: frozenset[str] = frozenset()
    factors: Any = None

    def __post_init__(self) -> None:
        self.factors = self.factors or {}
        self.latency_models = {
            name: SimpleNamespace(block_cost_ns=lambda block: float(self.space.cost(block).macs))
            for name in self.limits_ns
        }

    def estimates(self, architecture: Architecture) -> dict[str, Estimate]:
        macs = float(sum(self.space.cost(block).macs for block in self.space.blocks(architecture)))
        return dict.fromkeys(self.limits_ns, Estimate(macs, macs, 1.1 * macs, 0.9))


def test_budgets_count_by_the_upper_end_and_preferences_only_where_there_is_nothing_else(
    tmp_path: Path,
) -> None:
    with made_up_context(tmp_path, parse_recipe(DOCUMENT, tmp_path)) as context:
        space = prepare_task(context).plan.space
    assert isinstance(space, TeacherSpace)
    whole = {each.name: each.count for each in space.config.structures}
    macs = sum(space.cost(block).macs for block in space.blocks(space.reference()))

    def excess(**given: Any) -> float:
        made_up: Any = MadeUp(space, {"a": macs, "b": 0.5 * macs}, **given)
        return costs_of(space, made_up, "latency").excess(whole)

    assert excess() == pytest.approx(2.2)
    assert excess(soft=frozenset("b")) == pytest.approx(1.1)
    assert excess(soft=frozenset("ab")) == pytest.approx(2.2)
    # Where not even the smallest keeps them, it is what is aimed at.
    tiny: Any = MadeUp(space, {"a": 1.0}, soft=frozenset("a"))
    assert costs_of(space, tiny, "latency").excess(least_counts(space)) == pytest.approx(1.0)
    assert costs_of(space, tiny, "latency").excess(least_counts(space)) <= 1
    # A round after a missed budget is below a tighter limit.
    assert excess(factors={"b": 1.25}) == pytest.approx(2.75)


def test_a_selection_that_diverges_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    settings = ONE_EPOCH.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(VerificationError, match="selection of a subgraph diverged") as caught:
        proposed(tmp_path, 0.5, kinds=("gates",), settings=settings)
    assert "subgraph.selection.learning_rate" in caught.value.fix


def proposed(
    folder: Path,
    share: float,
    kinds: tuple[Any, ...] = PROPOSALS,
    settings: SubgraphSettings = ONE_EPOCH,
) -> tuple[TeacherSpace, Proposals, list[str]]:
    """The space, what is proposed within a share of the teacher's multiply-accumulates, and what is told."""
    with made_up_context(folder, parse_recipe(DOCUMENT, folder)) as context:
        task = prepare_task(context)
        space = task.plan.space
        assert isinstance(space, TeacherSpace)
        assert task.importance is not None
        limit = 1.1 * share * sum(space.cost(block).macs for block in space.blocks(space.reference()))
        predictors: Any = MadeUp(space, {"a": limit})
        given = ProposalsInput(predictors, kinds, settings, task.importance, 0, task.data, task.teacher)
        place = StageFolder(context.work.find(task.data.arrays).parent.parent / "proposals-made-up")
        place.path.mkdir(exist_ok=True)
        found = propose_subgraphs.function(given, place, context.services)
        return space, found, list(propose_subgraphs.tell(given, found))


def test_every_proposal_keeps_the_budgets_and_none_is_proposed_twice(tmp_path: Path) -> None:
    _, proposals, told = proposed(tmp_path, 0.5)
    architectures = [each.architecture for each in proposals.found]
    assert len(set(architectures)) == len(architectures) >= 2
    assert all(0.3 < each.share <= 1 for each in proposals.found)
    kinds = [each.kind for each in proposals.found]
    assert kinds == [kind for kind in PROPOSALS if kind in kinds]
    assert "gates (" in told[0]


def test_where_the_whole_teacher_keeps_the_budgets_it_is_all_that_is_proposed(tmp_path: Path) -> None:
    space, proposals, told = proposed(tmp_path, 1.5, kinds=("importance", "shallower"))
    assert [each.architecture for each in proposals.found] == [space.reference()]
    assert "equal to one of these: shallower" in told[1]


def test_budgets_below_the_smallest_subgraph_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="no subgraph of the teacher keeps the budgets"):
        proposed(tmp_path, 0.001, kinds=("importance",))
