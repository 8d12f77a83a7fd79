"""What ``lathe run`` and ``lathe search`` do; imported only when one of them runs."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.cli.libraries import quiet_libraries
from pipeline.cli.output import print_json
from pipeline.cli.run.text import result_text, search_text
from pipeline.progress import ConsoleReporter
from pipeline.recipe.loading import load_recipe
from pipeline.run import run, search
from pipeline.work.folder import WorkFolder


def run_recipe(
    recipe: str | None, work: str, settings: list[str], db: str | None, *, anew: bool, as_json: bool
) -> None:
    """``lathe run``."""
    quiet_libraries()
    loaded, text = load_recipe(recipe, settings)
    with ConsoleReporter() as reporter:
        result = run(loaded, text, WorkFolder(Path(work), anew=anew), db, reporter)
    if as_json:
        print_json(result.to_json())
    else:
        sys.stdout.write(result_text(result))


def search_recipe(
    recipe: str | None, work: str, settings: list[str], db: str | None, *, anew: bool, as_json: bool
) -> None:
    """``lathe search``."""
    quiet_libraries()
    loaded, text = load_recipe(recipe, settings)
    with ConsoleReporter() as reporter:
        result = search(loaded, text, WorkFolder(Path(work), anew=anew), db, reporter)
    if as_json:
        print_json(result.to_json())
    else:
        sys.stdout.write(search_text(result))
