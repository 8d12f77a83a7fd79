"""What of a recipe decides what stages leave while they work; the rest may change meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.recipe.loading import Recipe

_DECIDES_NONE: dict[str, Any] = {
    "allow_chance": True,
    "search": {"minutes", "reevaluated", "finalists", "rounds", "cpus", "gpus"},
    "dna": {"workers"},
    "distil": True,
    "export": True,
    "compile": True,
    "verify": True,
}
"""Keys that say only when candidates are enough, who works, and what is done with the best of them."""


def deciding(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON, with its name, without the keys that decide nothing of what a search, or a training
    before it, leaves in its folder while it works."""
    return recipe.model_dump(mode="json", exclude=_DECIDES_NONE)
