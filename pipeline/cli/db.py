"""``lathe db``: what the latency database holds, and taking it in and out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.output import print_json

if TYPE_CHECKING:
    from latency_db.records import Filter, Record
    from latency_db.screening import Finding

db_app = typer.Typer(
    help="The latency database: what it holds, exchange with others, care.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Db = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="Latency database: a file or an SQLAlchemy URL."),
]
Target = Annotated[str | None, typer.Option("--target", metavar="TARGET", help="Only this target.")]
Workload = Annotated[
    str | None,
    typer.Option("--workload", metavar="TEXT", help="Only workloads whose description has this text."),
]
Verdict = Annotated[
    str | None,
    typer.Option("--verdict", metavar="VERDICT", help="Only valid, degraded, invalid or failed outcomes."),
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only from then on, e.g. 2026-01-31 (UTC).")
]


@db_app.command("info")
def show_info(db: Db = None, json_output: Json = False) -> None:
    """Show where the database is, and how much of what is in it."""
    from dataclasses import asdict

    from latency_db.maintenance import info
    from latency_db.store import open_store

    with open_store(db) as store:
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
    for name, number in found.evidence.items():
        typer.echo(f"  evidence {name}: {number} published latencies")
    for name in found.backups:
        typer.echo(f"  copy made before a migration: {name}")


@db_app.command("query")
def query(
    *,
    target: Target = None,
    workload: Workload = None,
    verdict: Verdict = None,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="At most so many rows.")] = 1000,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """List measurements and failures in the order they were stored; emulated devices are marked."""
    from itertools import islice

    from latency_db.records import records
    from latency_db.store import open_store

    wanted = _filter(target, workload, verdict, since)
    with open_store(db) as store:
        found = (record for batch in records(store, wanted) for record in batch)
        rows = [_row_json(record) for record in islice(found, limit + 1)]
    cut = len(rows) > limit
    rows = rows[:limit]
    if json_output:
        print_json({"rows": rows, "more": cut})
        return
    for row in rows:
        typer.echo(_row_text(row))
    if cut:
        sys.stderr.write(f"there are more than these {limit}; see --limit\n")
    if not rows:
        sys.stderr.write("no stored outcome is like that\n")


@db_app.command("merge")
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
    from latency_db.maintenance import merge
    from latency_db.store import open_store

    with open_store(db) as store:
        merged = merge(store, other)
    if json_output:
        print_json(asdict(merged))
    else:
        typer.echo(f"{merged.added} of {merged.rows} outcomes were new")
        if merged.evidence_rows:
            typer.echo(f"{merged.evidence_added} of {merged.evidence_rows} published latencies were new")
        if merged.damaged:
            typer.echo(f"{merged.damaged} damaged rows were left out; see lathe db check --db {other}")
    if merged.damaged:
        raise typer.Exit(StoreError.exit_code)


@db_app.command("export")
def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Its suffix says the format: .parquet, .csv or .json.")
    ],
    *,
    target: Target = None,
    workload: Workload = None,
    verdict: Verdict = None,
    since: Since = None,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """Write measurements and failures, with their raw samples, to a file that import takes in again."""
    from pathlib import Path

    from latency_db.exchange import export_file
    from latency_db.store import open_store

    wanted = _filter(target, workload, verdict, since)
    with open_store(db) as store:
        rows = export_file(store, Path(file), wanted)
    if json_output:
        print_json({"file": file, "rows": rows})
    else:
        typer.echo(f"{rows} outcomes are in {file}")


@db_app.command("import")
def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file of lathe db export, or see --evidence.")
    ],
    *,
    evidence: Annotated[
        bool,
        typer.Option(
            "--evidence", help="FILE is a published table: .csv, .csv.gz, .yaml or .npz; see the docs."
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="What the table was measured on, if it does not say."),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option("--unit", metavar="UNIT", help="Its unit, s, ms, us or ns, if it does not say."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="TEXT", help="What to call the table; its file name if not given."),
    ] = None,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """Add the measurements of an exported file, or a published table as evidence.

    Evidence is screened first, and what that finds is shown; it never passes for a measurement. A file of
    measurements with anything wrong in it adds nothing. Importing again adds nothing.
    """
    from dataclasses import asdict
    from pathlib import Path

    from latency_db.exchange import import_file
    from latency_db.store import open_store

    if not evidence and (device or unit or name):
        raise typer.BadParameter("--device, --unit and --name are of --evidence")
    with open_store(db) as store:
        if not evidence:
            done = import_file(store, Path(file))
            if json_output:
                print_json(asdict(done))
            else:
                typer.echo(f"{done.added} of {done.rows} outcomes were new")
            return
        from latency_db.importers import import_table

        table = import_table(store, Path(file), device=device, unit=unit, name=name)
    if json_output:
        print_json(asdict(table))
        return
    for finding in table.findings:
        typer.echo(_finding_text(finding))
    typer.echo(f"{table.added} of {table.cells} published latencies were new ({table.source})")


@db_app.command("check")
def check(db: Db = None, json_output: Json = False) -> None:
    """Read everything again and recompute every digest; when anything is wrong, the exit code is 8."""
    from dataclasses import asdict

    from latency_db.errors import StoreError
    from latency_db.maintenance import check
    from latency_db.store import open_store

    with open_store(db) as store:
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


@db_app.command("gc")
def gc(
    rehearse: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing, and show what would be removed.")
    ] = False,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """Remove copies made before migrations and unused contents of keys; measurements are kept for ever."""
    from dataclasses import asdict

    from latency_db.maintenance import clear
    from latency_db.store import open_store

    with open_store(db) as store:
        cleared = clear(store, rehearse=rehearse)
    if json_output:
        print_json({**asdict(cleared), "dry_run": rehearse})
        return
    copies = f"{len(cleared.backups)} copies ({cleared.freed_bytes / 1e6:.1f} MB)"
    verb = "would be removed" if rehearse else "removed"
    typer.echo(f"{verb}: {copies}, {cleared.parts} unused parts of keys")


def _filter(target: str | None, workload: str | None, verdict: str | None, since: str | None) -> Filter:
    from datetime import UTC, datetime

    from latency_db.records import Filter

    if verdict not in (None, "valid", "degraded", "invalid", "failed"):
        raise typer.BadParameter(f"{verdict} is none of valid, degraded, invalid and failed")
    if since is not None:
        try:
            moment = datetime.fromisoformat(since)
        except ValueError as error:
            raise typer.BadParameter(f"{since} is no date or time such as 2026-01-31T12:00") from error
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        since = moment.isoformat(timespec="seconds")
    return Filter(target, workload, verdict, since)


def _row_json(record: Record) -> dict[str, Any]:
    low, value, high = record.latency_ns or (None, None, None)
    columns = record.columns
    return {
        "id": record.id,
        "started_at": columns["started_at"],
        "target": columns["target"],
        "emulated": record.emulated,
        "workload": record.parts["workload"].get("description", ""),
        "verdict": columns["verdict"],
        "latency_ns": value,
        "latency_low_ns": low,
        "latency_high_ns": high,
        "reasons": columns["reasons"],
        "runtime": record.parts["runtime"],
        "device": record.parts["device"],
        "instance": columns["instance"],
        "digest": columns["digest"],
    }


def _row_text(row: dict[str, Any]) -> str:
    value = row["latency_ns"]
    time = "-" if value is None else f"{value / 1e6:.4f} ms"
    if value is not None:
        time += f" [{row['latency_low_ns'] / 1e6:.4f}, {row['latency_high_ns'] / 1e6:.4f}]"
    target = row["target"] + (" (emulated)" if row["emulated"] else "")
    codes = ", ".join(reason["code"] for reason in row["reasons"])
    verdict = row["verdict"] + (f" ({codes})" if codes else "")
    return f"{row['started_at'][:19]}  {target}  {time}  {verdict}  {row['workload']}"


def _finding_text(finding: Finding) -> str:
    return f"{finding.device}: {finding.detail}"
