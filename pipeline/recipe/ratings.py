"""Which cheap ratings a search looks at, beside the scores of its evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.search.evaluators.registry import SHORT_TRAINING, UNTRAINED, find_evaluator

if TYPE_CHECKING:
    from pipeline.recipe.loading import Recipe


SHARE = 0.25
"""Of the time of evaluations, that ratings may take."""


def ratings_of(recipe: Recipe) -> tuple[str, ...]:
    """The ratings that a search begins with; those that cannot look at the teacher, it leaves out.

    By default all of untrained networks, where candidates are trained from fresh weights: of inherited
    weights (``subgraph``) they see nothing, and shared weights (``oracle``) or an evaluator of others may be
    as cheap as they are.
    """
    search = recipe.search
    if search.ratings != "auto":
        return search.ratings
    inherits = recipe.method == "subgraph" and recipe.subgraph.weights == "inherited"
    trained = recipe.method != "dna" and search.evaluator == SHORT_TRAINING and not inherits
    return UNTRAINED if trained and search.strategy == "predictor" else ()


def rated_for_each(ratings: Sequence[str], images: int) -> int:
    """For how many new candidates ratings may be asked for each that is evaluated, at least one.

    They may take ``SHARE`` of the time of evaluations. Both are counted in images of training and not in
    seconds, so that the same recipe searches alike everywhere.

    Args:
        ratings: names of one or more.
        images: that an evaluation trains with, those of all epochs.
    """
    return max(1, int(SHARE * images / images_of(ratings)))


def images_of(ratings: Sequence[str]) -> int:
    """How many images' training steps these ratings of one candidate take about."""
    return sum(find_evaluator(each).images for each in ratings)


def require_seen(recipe: Recipe) -> None:
    """Refuse ratings that a recipe names, and that cannot look at its teacher.

    Raises:
        ValueError: naming the rating, and why.
    """
    if recipe.search.ratings == "auto":
        return
    blind = next((each for each in recipe.search.ratings if find_evaluator(each).sees_maps), None)
    if blind is None:
        return
    looks = f"the rating '{blind}' looks at the teacher's feature maps"
    if recipe.search.reward == "labels":
        raise ValueError(f"{looks}, and search.reward = 'labels' rates without the teacher")
    if all(each.kind == "pt2" for each in recipe.teacher):
        raise ValueError(
            f"{looks}, and none can be seen in an exported graph (kind 'pt2'): leave it out, or give the "
            "teacher as kind 'factory' with weights"
        )
