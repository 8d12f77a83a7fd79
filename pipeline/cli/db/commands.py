"""``lathe db``: what the latency database holds, and taking it in and out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.db.rows import export, import_, query
from pipeline.cli.help import Commands
from pipeline.cli.options import Database as Db
from pipeline.cli.options import Json
from pipeline.cli.output import print_json

if TYPE_CHECKING:
    from latency_db.store import PublishedTable

db_app = Commands("The latency database: what it holds, exchange with others, care.")


@db_app.add("info")
def show_info(db: Db = None, json_output: Json = False) -> None:
    """Show where the database is, and how much of what is in it."""
    from dataclasses import asdict

    from latency_db.store import info, open_store

    with open_store(db, must_exist=True) as store:
        found = info(store)
    if json_output:
        print_json(asdict(found))
        return
    size = "" if found.size_bytes is None else f", {found.size_bytes / 1e6:.1f} MB"
    typer.echo(f"{found.place} (schema {found.schema}{size})")
    typer.echo("  " + ", ".join(f"{number} {part}s" for part, number in found.parts.items()))
    for target, verdicts in found.outcomes.items():
        counts = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
        typer.echo(f"  {target}{' (emulated)' if target in found.emulated else ''}: {counts}")
    for table in found.published:
        for line in _published_lines(table):
            typer.echo(f"  {line}")
    for name in found.backups:
        typer.echo(f"  copy made before a migration: {name}")


db_app.add("query")(query)


@db_app.add("merge")
def merge(
    other: Annotated[str, typer.Argument(metavar="OTHER", help="A database: a file or an SQLAlchemy URL.")],
    db: Db = None,
    json_output: Json = False,
) -> None:
    """Add everything of another database that this one lacks; the other stays as it is.

    A second merge adds nothing. Rows that are damaged are left out, and make the exit code 8.
    """
    from dataclasses import asdict

    from latency_db.errors import StoreError
    from latency_db.store import merge, open_store

    with open_store(db) as store:
        merged = merge(store, other)
    if json_output:
        print_json(asdict(merged))
    else:
        typer.echo(f"{merged.added} of {merged.rows} outcomes were new")
        if merged.published_rows:
            typer.echo(f"{merged.published_added} of {merged.published_rows} published latencies were new")
        if merged.damaged:
            typer.echo(f"{merged.damaged} damaged rows were left out; see lathe db check --db {other}")
    if merged.damaged:
        raise typer.Exit(StoreError.exit_code)


db_app.add("export")(export)
db_app.add("import")(import_)


@db_app.add("check")
def check(db: Db = None, json_output: Json = False) -> None:
    """Read everything again and recompute every digest; when anything is wrong, the exit code is 8."""
    from dataclasses import asdict

    from latency_db.errors import StoreError
    from latency_db.store import check, open_store

    with open_store(db, must_exist=True) as store:
        found = check(store)
    if json_output:
        print_json(asdict(found))
    else:
        for problem in found.problems:
            typer.echo(f"problem: {problem}")
        if found.count > len(found.problems):
            typer.echo(f"and {found.count - len(found.problems)} more problems")
        typer.echo(
            f"{found.rows} outcomes read, " + (f"{found.count} problems" if found.count else "all is well")
        )
    if found.count:
        raise typer.Exit(StoreError.exit_code)


@db_app.add("gc")
def gc(
    rehearse: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing, and show what would be removed.")
    ] = False,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """Remove copies made before migrations and unused contents of keys; measurements are kept for ever."""
    from dataclasses import asdict

    from latency_db.store import clear, open_store

    with open_store(db, must_exist=True) as store:
        cleared = clear(store, rehearse=rehearse)
    if json_output:
        print_json({**asdict(cleared), "dry_run": rehearse})
        return
    copies = f"{len(cleared.backups)} copies ({cleared.freed_bytes / 1e6:.1f} MB)"
    verb = "would be removed" if rehearse else "removed"
    typer.echo(f"{verb}: {copies}, {cleared.parts} unused parts of keys")


def _published_lines(table: PublishedTable) -> Iterator[str]:
    stored = sum(table.devices.values())
    cut = "" if stored == table.cells else f" of {table.cells}: import its file again"
    yield f"published table {table.name}: {stored} published latencies{cut}"
    for device, number in table.devices.items():
        said = [finding["detail"] for finding in table.findings if finding["device"] == device]
        yield f"  {device}: {'; '.join([str(number), *said])}"
