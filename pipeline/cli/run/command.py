"""What ``lathe run`` and ``lathe search`` do; imported only when one of them runs."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.cli.libraries import let_waiting_threads_sleep, quiet_libraries
from pipeline.cli.output import print_json
from pipeline.cli.run.text import forecast_text, result_text, search_text
from pipeline.progress import ConsoleReporter
from pipeline.recipe.loading import load_recipe
from pipeline.run import foresee, run, search
from pipeline.work.folder import WorkFolder


def run_recipe(
    recipe: str | None, work: str, settings: list[str], db: str | None, *, anew: bool, as_json: bool
) -> None:
    """``lathe run``."""
    quiet_libraries()
    let_waiting_threads_sleep()
    loaded, text = load_recipe(recipe, settings)
    with ConsoleReporter() as reporter:
        result = run(loaded, text, WorkFolder(Path(work), anew=anew), db, reporter)
    if as_json:
        print_json(result.to_json())
    else:
        sys.stdout.write(result_text(result))


def estimate_run(
    recipe: str | None, work: str, settings: list[str], db: str | None, *, as_json: bool
) -> None:
    """``lathe run --dry-run``."""
    quiet_libraries()
    loaded, text = load_recipe(recipe, settings)
    with ConsoleReporter() as reporter:
        found = foresee(loaded, text, WorkFolder(Path(work)), db, reporter)
    if as_json:
        print_json({"recipe": loaded.model_dump(mode="json"), **found.to_json()})
    else:
        sys.stdout.write(forecast_text(loaded.name, found))


def search_recipe(
    recipe: str | None, work: str, settings: list[str], db: str | None, *, anew: bool, as_json: bool
) -> None:
    """``lathe search``."""
    quiet_libraries()
    let_waiting_threads_sleep()
    loaded, text = load_recipe(recipe, settings)
    with ConsoleReporter() as reporter:
        result = search(loaded, text, WorkFolder(Path(work), anew=anew), db, reporter)
    if as_json:
        print_json(result.to_json())
    else:
        sys.stdout.write(search_text(result))
