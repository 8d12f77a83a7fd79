"""The main job: ``search`` looks at candidates, ``run`` goes on to a verified bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.words import count_of
from lathe.result import Result, Rows, reporter

if TYPE_CHECKING:
    from pipeline.recipe.loading import Recipe
    from pipeline.work.folder import WorkFolder

_SHOWN = 10


@dataclass(frozen=True, repr=False)
class Search(Result):
    """The candidates of a search.

    Attributes:
        name: of the recipe.
        candidates: best first; each has ``architecture``, ``score``, ``predicted_ms`` and ``measured_ms`` by
            target, and others, as ``lathe search --json`` has them.
        within_budget: those that keep every budget when measured whole, best first.
    """

    name: str
    candidates: tuple[Mapping[str, Any], ...]
    within_budget: tuple[Mapping[str, Any], ...]

    def _title(self) -> str:
        kept = len(self.within_budget)
        return f"{self.name}: {count_of(len(self.candidates), 'candidate')}, {kept} measured within budget"

    def _rows(self) -> Rows:
        rows = []
        for each in self.candidates[:_SHOWN]:
            score = "failed" if each["score"] is None else f"{each['score']:.4f}"
            predicted = ", ".join(f"~{ms:.4f} ms on {name}" for name, ms in each["predicted_ms"].items())
            rows.append((score, predicted, " ".join(f"{k}={v}" for k, v in each["architecture"].items())))
        return rows


@dataclass(frozen=True)
class RunTarget:
    """The shipped artifact on one target, as it was measured there.

    Attributes:
        target: where.
        low_ms: lower end of the measured interval.
        latency_ms: measured latency.
        high_ms: upper end of the measured interval.
        budget: in words.
        kept: the upper end of the interval is within the budget.
        accuracy: of the artifact, by the task's metric on the test split.
    """

    target: str
    low_ms: float
    latency_ms: float
    high_ms: float
    budget: str
    kept: bool
    accuracy: float


@dataclass(frozen=True, repr=False)
class Run(Result):
    """A finished run.

    Attributes:
        name: of the recipe.
        bundle: folder that is shipped.
        report: HTML file.
        network: choices of the student.
        teacher_accuracy: the metric on the test split.
        targets: one for each target of the recipe.
    """

    name: str
    bundle: Path
    report: Path
    network: Mapping[str, Any]
    teacher_accuracy: float
    targets: tuple[RunTarget, ...]

    def _title(self) -> str:
        return f"{self.name}: {self.bundle}"

    def _rows(self) -> Rows:
        return [
            (
                each.target,
                f"{each.latency_ms:.4f} ms [{each.low_ms:.4f}, {each.high_ms:.4f}] measured",
                f"{'keeps' if each.kept else 'breaks'} the budget of {each.budget}",
                f"{each.accuracy:.2%}, teacher {self.teacher_accuracy:.2%}",
            )
            for each in self.targets
        ]


def search(
    recipe: str | PathLike[str] = "quickstart",
    *,
    settings: Mapping[str, Any] | None = None,
    work: str | PathLike[str] = "lathe-work",
    db: str | None = None,
    progress: bool = False,
) -> Search:
    """Run a recipe up to its search, with the arguments and errors of ``run``, which goes on from there."""
    import pipeline.run

    loaded, text, folder = _prepared(recipe, settings, work)
    document = pipeline.run.search(loaded, text, folder, db, reporter(progress)).to_json()
    return Search(
        loaded.name, tuple(document["candidates"]), tuple(document["within_budget"]), _document=document
    )


def run(
    recipe: str | PathLike[str] = "quickstart",
    *,
    settings: Mapping[str, Any] | None = None,
    work: str | PathLike[str] = "lathe-work",
    db: str | None = None,
    progress: bool = False,
) -> Run:
    """Run a recipe to a verified bundle; what an earlier call finished with the same inputs is kept.

    Args:
        recipe: path of a TOML file, or the name of an embedded recipe.
        settings: values that replace those of the recipe, by dotted key, as ``{"search.evaluations": 8}``.
        work: folder in which stages are kept.
        db: URL or file of the latency database; your own by default.
        progress: show it on standard error.

    Raises:
        LatheError: of the kind that says what went wrong; what was finished before stays finished.
    """
    import pipeline.run

    loaded, text, folder = _prepared(recipe, settings, work)
    result = pipeline.run.run(loaded, text, folder, db, reporter(progress))
    document = result.to_json()
    winner = document["winner"]
    return Run(
        loaded.name,
        Path(document["bundle"]),
        Path(document["report"]),
        winner["architecture"],
        document["teacher"]["test_accuracy"],
        tuple(
            RunTarget(
                each["target"],
                each["measured_ms"]["low"],
                each["measured_ms"]["value"],
                each["measured_ms"]["high"],
                each["budget"]["words"],
                each["feasible"],
                each["test_accuracy"],
            )
            for each in winner["targets"]
        ),
        _document=document,
    )


def _prepared(
    recipe: str | PathLike[str], settings: Mapping[str, Any] | None, work: str | PathLike[str]
) -> tuple[Recipe, str, WorkFolder]:
    import tomlkit

    from pipeline.recipe.loading import load_recipe
    from pipeline.work.folder import WorkFolder

    overrides = [f"{key}={tomlkit.item(value).as_string()}" for key, value in (settings or {}).items()]
    loaded, text = load_recipe(str(recipe), overrides)
    return loaded, text, WorkFolder(Path(work), anew=False)
