"""The stage ``mixtures`` on real data and networks, and the student that is trained with what it found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.distill.settings import DistillationSettings
from pipeline.errors import TeacherError, VerificationError
from pipeline.recipe.loading import Recipe, parse_recipe
from pipeline.run.preparation import LearningTask, prepare_task
from pipeline.stages.student.distil import DistilInput, distil_student
from pipeline.stages.student.mixtures import Mixtures, MixturesInput, find_mixtures
from tests.pipeline.run.made_up_run import Quiet, made_up_context

TEACHER = {"kind": "train", "width": 4, "depth": 2, "training": {"epochs": 1}}
STAGES = [{"widths": [8], "depths": [1], "kernels": [3], "expansions": [2], "squeeze_excite": [0.0]}]


def _recipe(**loss: Any) -> Recipe:
    document = {
        "name": "tiny",
        "allow_chance": True,
        "data": {"kind": "digits", "train_limit": 200},
        "teacher": [TEACHER, TEACHER | {"depth": 1}],
        "space": {"stem_width": 8, "head_width": 16, "stages": STAGES},
        "target": [{"name": "host/onnxruntime:fp32@1", "budget_ms": 1000}],
        "distil": {
            "epochs": 1,
            "loss": [{"kind": "labels"}, {"kind": "feature_aggregation", **loss}],
        },
    }
    return parse_recipe(document, Path())


def _given(recipe: Recipe, task: LearningTask) -> MixturesInput:
    (loss,) = recipe.distil.searched
    architecture = task.plan.space.reference()
    training = recipe.distil.without_schedule()
    return MixturesInput(task.plan, architecture, loss.search, training, 0, task.data, task.teacher)


@pytest.mark.slow
def test_a_killed_search_goes_on_and_the_student_is_trained_with_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(search={"epochs": 2, "warmup_epochs": 1, "mixture_learning_rate": 0.1})

    class Killed(Exception):
        pass

    class Killing(Quiet):
        def __init__(self, epochs: int) -> None:
            super().__init__()
            self.left = epochs

        def task(self, what: str, unit: str) -> Any:  # type: ignore[override]
            return self

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *raised: object) -> None:
            return None

        def __call__(self, done: int, total: int) -> None:
            self.seen = done
            self.left -= 1
            if not self.left:
                raise Killed

    with made_up_context(tmp_path, recipe) as context:
        task = prepare_task(context)
        given = _given(recipe, task)
        for reporter in (Killing(1), Killing(2)):
            with pytest.raises(Killed):
                context.work.run(find_mixtures, given, replace(context.services, reporter=reporter))
        assert reporter.seen == 3
        found = context.do(find_mixtures, given)
        assert [group.size for group in found.groups] == [(8, 8), (4, 4)]
        # Both members of the teacher: the stem and two blocks, the stem and one.
        assert [name.partition(".network.")[0] for name in found.groups[0].teacher_layers] == (
            ["networks.0"] * 3 + ["networks.1"] * 2
        )
        assert all(sum(shares) == pytest.approx(1) for shares in found.shares)
        with made_up_context(tmp_path / "other", recipe) as fresh:
            assert fresh.do(find_mixtures, _given(recipe, prepare_task(fresh))) == found
        trained = {
            name: context.do(distil_student, _training(task, recipe.distil, mixtures))
            for name, mixtures in {"searched": (found,), "average": (_average(found),)}.items()
        }
        assert trained["searched"].mixtures == (found,)
        assert trained["searched"].weights.digest != trained["average"].weights.digest
    assert any(line.startswith("mixtures     8x8: networks.0.") for line in context.reporter.notes)  # type: ignore[attr-defined]


def test_a_search_that_diverges_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    recipe = _recipe(search={"epochs": 2, "warmup_epochs": 1, "learning_rate": 100})
    with made_up_context(tmp_path, recipe) as context:
        given = replace(_given(recipe, prepare_task(context)))
        settings = given.search.model_copy(update={"learning_rate": 1e30})
        with pytest.raises(VerificationError, match="search for mixtures") as caught:
            context.do(find_mixtures, replace(given, search=settings))
    assert "learning_rate" in caught.value.fix


def test_shares_of_another_teacher_are_refused_when_the_student_is_trained(tmp_path: Path) -> None:
    recipe = _recipe(mixture="fixed", shares=[[0.5, 0.5]])
    with made_up_context(tmp_path, recipe) as context:
        task = prepare_task(context)
        with pytest.raises(TeacherError, match="the shares are of groups of 2 maps"):
            context.do(distil_student, _training(task, recipe.distil, ()))


def _training(
    task: LearningTask, settings: DistillationSettings, mixtures: tuple[Mixtures, ...]
) -> DistilInput:
    return DistilInput(task.plan, task.plan.space.reference(), settings, 0, task.data, task.teacher, mixtures)


def _average(found: Mixtures) -> Mixtures:
    return Mixtures(tuple(replace(g, shares=(1 / len(g.shares),) * len(g.shares)) for g in found.groups))
