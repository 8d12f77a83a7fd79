"""Arguments of ``lathe recipes``; what it does is in ``command``."""

from __future__ import annotations

from typing import Annotated

import typer


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Recipe to print; without it, the recipes are listed."),
    ] = None,
) -> None:
    """List the embedded recipes, or print one to start from."""
    from pipeline.cli.recipes.command import show_recipes

    show_recipes(name)
