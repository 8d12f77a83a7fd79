"""The command line. Heavy imports wait until a command needs them, so that help answers at once."""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer

from devices.errors import LatheError
from pipeline.cli.db.commands import db_app
from pipeline.cli.devices import devices_app
from pipeline.cli.output import print_error
from pipeline.cli.profile.arguments import compare, profile
from pipeline.cli.table.commands import table_app

app = typer.Typer(
    name="lathe",
    help="From a trained teacher to a compiled student that is proven to keep its latency budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lathe {version('lathe-deploy')}")
        raise typer.Exit


@app.callback()
def _root(
    shown: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before a command."""


RecipeFile = Annotated[
    str | None,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file, or an embedded recipe: quickstart (default), or another of lathe recipes.",
    ),
]
Work = Annotated[str, typer.Option("--work", metavar="DIR", help="Where stages and bundles are kept.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe key, e.g. target.*.budget=0.5x."),
]
Database = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="Latency database: a file or an SQLAlchemy URL."),
]
Anew = Annotated[
    bool,
    typer.Option("--anew", help="Give up a search that was interrupted, if the recipe has changed since."),
]


@app.command()
def run(
    recipe: RecipeFile = None,
    *,
    work: Work = "lathe-work",
    settings: Settings = None,
    db: Database = None,
    anew: Anew = False,
    json_output: Json = False,
) -> None:
    """Run a recipe: teacher, space, table, feasibility, search, distil, export, compile, verify, bundle.

    The same command continues a run that was stopped, and answers at once when everything is done.
    """
    from pipeline.cli.run.commands import run_recipe

    run_recipe(recipe, work, settings or [], db, anew=anew, as_json=json_output)


@app.command()
def search(
    recipe: RecipeFile = None,
    *,
    work: Work = "lathe-work",
    settings: Settings = None,
    db: Database = None,
    anew: Anew = False,
    json_output: Json = False,
) -> None:
    """Run a recipe up to its search: every candidate with its score, what was predicted, and measured.

    The same command continues a search that was stopped; lathe run with the same recipe and folder goes on
    from there.
    """
    from pipeline.cli.run.commands import search_recipe

    search_recipe(recipe, work, settings or [], db, anew=anew, as_json=json_output)


@app.command()
def verify(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")],
    json_output: Json = False,
) -> None:
    """Check every byte of a bundle, then repeat its accuracy and latency on the target."""
    from pipeline.cli.run.commands import verify_folder

    verify_folder(bundle, json_output)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe; without it, list them.")] = None,
) -> None:
    """List the embedded recipes, or print one as a start for your own."""
    from pipeline.cli.run.commands import show_recipes

    show_recipes(name)


app.command()(profile)
app.command()(compare)
app.add_typer(devices_app, name="devices")
app.add_typer(db_app, name="db")
app.add_typer(table_app, name="table")


def main() -> None:
    """Entry point of ``lathe``; every error ends with its documented exit code (docs/exit-codes/index.md)."""
    as_json = "--json" in sys.argv[1:]
    try:
        app()
    except LatheError as error:
        print_error(error, as_json=as_json)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; what was finished is kept\n")
        sys.exit(130)
    except Exception as error:
        traceback.print_exc()
        unexpected = LatheError(
            f"unexpected {type(error).__name__}: {error}",
            why="this is a fault of Lathe, the lines above say where",
            fix="run the same command again, it goes on where it was; report the fault if it comes back",
        )
        print_error(unexpected, as_json=as_json)
        sys.exit(unexpected.exit_code)
