"""How students are found: the methods, what is mistaken for one, and tables of others than the recipe's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from pipeline.distill.losses.settings import KINDS

if TYPE_CHECKING:
    from pipeline.recipe.loading import Recipe

Method = Literal["search", "akd", "dna", "subgraph", "oracle"]

_LOSSES = dict.fromkeys(KINDS) | {
    "dfa": "feature_aggregation",
    "kd": "soft_targets",
    "dkd": "decoupled_kd",
    "at": "attention_transfer",
}
_OF_ONE = ("dna", "subgraph", "oracle")
"""Methods with a table of their own, which has their name."""


def refuse_losses(method: Any) -> Any:
    """The method as it is, unless it is a loss or the short name that papers give it.

    Raises:
        ValueError: it is a loss; says how a recipe names that.
    """
    name = str(method).lower().replace("-", "_")
    if name in _LOSSES and name not in get_args(Method):
        kind = _LOSSES[name] or name
        raise ValueError(
            f"{kind} is a loss, which trains the student of any method: leave method out or name one of "
            f'{_words(get_args(Method))}, and write a table [[distil.loss]] with kind = "{kind}"'
        )
    return method


def require_used(recipe: Recipe) -> None:
    """Refuse tables of a method that is not the recipe's, which would do nothing.

    Raises:
        ValueError: naming table and method.
    """
    unused = [name for name in _OF_ONE if name in recipe.model_fields_set and name != recipe.method]
    if unused:
        raise ValueError(
            " ".join(
                f'[{name}] is for method = "{name}", and the method is "{recipe.method}": set '
                f'method = "{name}", or remove [{name}].'
                for name in unused
            ).removesuffix(".")
        )


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)
