"""Arguments of ``lathe run`` and ``lathe search``; what they do is in ``command``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import Database, Json

RecipeFile = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or the name of an embedded recipe; see lathe recipes. [default: quickstart]",
    ),
]
Work = Annotated[
    str, typer.Option("--work", metavar="DIR", help="Folder that keeps finished stages and the bundles.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the recipe, e.g. target.*.budget=0.5x; may be repeated.",
    ),
]
Anew = Annotated[
    bool,
    typer.Option("--anew", help="Begin the search again if the recipe has changed since it was interrupted."),
]

DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Only estimate what is left to do and how long it takes; train and measure nothing."
    ),
]


def run(
    recipe: RecipeFile = None,
    *,
    work: Work = "lathe-work",
    settings: Settings = None,
    db: Database = None,
    anew: Anew = False,
    dry_run: DryRun = False,
    json_output: Json = False,
) -> None:
    """Run a recipe, from the teacher to the bundle.

    The stages are data, teacher, space, table, feasibility, search, rehearse, distil, export, compile,
    verify, report and bundle. To continue a run that was stopped, give the same command again; a finished one
    answers at once.
    """
    from pipeline.cli.run.command import estimate_run, run_recipe

    if dry_run:
        estimate_run(recipe, work, settings or [], db, as_json=json_output)
        return
    run_recipe(recipe, work, settings or [], db, anew=anew, as_json=json_output)


def search(
    recipe: RecipeFile = None,
    *,
    work: Work = "lathe-work",
    settings: Settings = None,
    db: Database = None,
    anew: Anew = False,
    json_output: Json = False,
) -> None:
    """Run a recipe up to its search, and list the candidates.

    Each candidate is shown with its score, its posterior and ratings, and its latency, predicted and
    measured. A search that was stopped continues when you give the same command again; lathe run with the
    same recipe and folder continues from the result.
    """
    from pipeline.cli.run.command import search_recipe

    search_recipe(recipe, work, settings or [], db, anew=anew, as_json=json_output)
