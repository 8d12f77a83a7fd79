"""What ``lathe recipes`` does; imported only when it runs."""

from __future__ import annotations

import sys

from pipeline.errors import RecipeError
from pipeline.recipe.loading import EMBEDDED, embedded_text


def show_recipes(name: str | None) -> None:
    """``lathe recipes``."""
    if name is None:
        width = max(map(len, EMBEDDED))
        for each in EMBEDDED:
            first = embedded_text(each).splitlines()[0].lstrip("# ")
            sys.stdout.write(f"{each:{width}}  {first}\n")
        return
    if name not in EMBEDDED:
        raise RecipeError(f"no embedded recipe is called '{name}'", fix=f"choose from {', '.join(EMBEDDED)}")
    sys.stdout.write(embedded_text(name))
