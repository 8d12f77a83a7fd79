"""Which cheap ratings a search looks at, beside the scores of its evaluator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.search.evaluators.registry import SHORT_TRAINING, UNTRAINED, find_evaluator

if TYPE_CHECKING:
    from pipeline.recipe.loading import Recipe


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
