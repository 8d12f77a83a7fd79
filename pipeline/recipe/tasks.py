"""Which recipes can be run for which task."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.recipe.loading import Recipe

_METHODS = ("search", "akd", "subgraph")
_LOSSES = ("labels", "soft_targets", "fitnet", "blockwise", "attention_transfer", "similarity_preserving")


def require_served(recipe: Recipe) -> None:
    """Refuse what was made for one class for each image, where the task is another.

    Raises:
        ValueError: naming the key and what it may be.
    """
    task = recipe.data.task
    if task == "single-label":
        return
    if recipe.method not in _METHODS:
        raise ValueError(
            f"method '{recipe.method}' is for one class for each image; with data.task = "
            f"'{task}' use {_words(_METHODS)}"
        )
    losses = (*recipe.search.training.loss, *recipe.distil.loss)
    other = next((loss.kind for loss in losses if loss.kind not in _LOSSES), None)
    if other is not None:
        raise ValueError(
            f"the loss '{other}' is for one class for each image; with data.task = '{task}' use "
            f"{_words(_LOSSES)}"
        )
    if len(recipe.teacher) > 1 or recipe.teacher[0].members > 1:
        raise ValueError(f"data.task = '{task}' needs one teacher: what several say is not joined")
    if task == "multi-label" and any(
        isinstance(each, tuple) for each in (recipe.teacher[0].classes or {}).values()
    ):
        raise ValueError("teacher.classes: with data.task = 'multi-label', one output stands for each label")
    if task == "embedding":
        _require_imitation(recipe)


def _require_imitation(recipe: Recipe) -> None:
    teacher = recipe.teacher[0]
    if teacher.kind == "train" or teacher.training is not None:
        raise ValueError(
            "data.task = 'embedding' needs a teacher that is trained already: its vectors are "
            "imitated, and labels teach none"
        )
    losses = (*recipe.search.training.loss, *recipe.distil.loss)
    from_labels = "labels" in (recipe.search.reward, recipe.subgraph.selection.data_term)
    if from_labels or any(loss.kind == "labels" for loss in losses):
        raise ValueError(
            "with data.task = 'embedding' there is nothing to learn from labels: leave out the loss "
            "'labels', search.reward = 'labels' and subgraph.selection.data_term = 'labels'"
        )
    if teacher.classes is not None:
        raise ValueError("teacher.classes: an embedding has no classes; remove it")


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)
