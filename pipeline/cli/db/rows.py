"""``lathe db query``, ``export`` and ``import``: rows on the screen, into files and out of them."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import Database as Db
from pipeline.cli.options import Json
from pipeline.cli.output import print_json

if TYPE_CHECKING:
    from pathlib import Path

    from latency_db.store import Filter, Record, Store

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
PublishedOnly = Annotated[
    bool, typer.Option("--published", help="Published latencies in place of measurements and failures.")
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="With --published: only this device.")
]


def query(
    *,
    target: Target = None,
    workload: Workload = None,
    verdict: Verdict = None,
    since: Since = None,
    published: PublishedOnly = False,
    device: Device = None,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="At most so many rows.")] = 1000,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """List measurements and failures in the order they were stored; emulated devices are marked.

    With --published list the latencies of published tables, which are no measurements of this database.
    """
    from latency_db.store import open_store, published_rows, records

    wanted = _filter(target, workload, verdict, since)
    _require_options_that_fit(published, device, target, verdict, since)
    with open_store(db, must_exist=True) as store:
        if published:
            found = published_rows(store, device=device, workload=workload)
            rows = list(islice((row for batch in found for row in batch), limit + 1))
        else:
            listed = (_row_json(record) for batch in records(store, wanted) for record in batch)
            rows = list(islice(listed, limit + 1))
    cut = len(rows) > limit
    rows = rows[:limit]
    if json_output:
        print_json({"published" if published else "rows": rows, "more": cut})
        return
    for row in rows:
        typer.echo(_published_text(row) if published else _row_text(row))
    if cut:
        sys.stderr.write(f"there are more than these {limit}; see --limit\n")
    if not rows:
        sys.stderr.write(f"no {'published latency' if published else 'stored outcome'} is like that\n")


def export(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Its suffix says the format: .parquet, .csv or .json.")
    ],
    *,
    target: Target = None,
    workload: Workload = None,
    verdict: Verdict = None,
    since: Since = None,
    published: PublishedOnly = False,
    device: Device = None,
    db: Db = None,
    json_output: Json = False,
) -> None:
    """Write measurements and failures, with their raw samples, to a file that import takes in again.

    With --published write the latencies of published tables, for other tools; merge takes them elsewhere.
    """
    from pathlib import Path

    from latency_db.store import export_file, export_published, open_store

    wanted = _filter(target, workload, verdict, since)
    _require_options_that_fit(published, device, target, verdict, since)
    with open_store(db, must_exist=True) as store:
        if published:
            rows = export_published(store, Path(file), device=device, workload=workload)
        else:
            rows = export_file(store, Path(file), wanted)
    if json_output:
        print_json({"file": file, "rows": rows})
    else:
        typer.echo(f"{rows} {'published latencies' if published else 'outcomes'} are in {file}")


def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file of lathe db export, or see --published.")
    ],
    *,
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="FILE is a published table: .csv, .csv.gz, .yaml or .npz; see the docs."
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
    """Add the measurements of an exported file, or a published table.

    A published table is screened first, and what that finds is shown; its latencies never pass for
    measurements. A file of measurements with anything wrong in it adds nothing. Importing again adds nothing,
    and goes on with an import of a published table that was ended.
    """
    from dataclasses import asdict
    from pathlib import Path

    from latency_db.store import import_file, open_store

    if not published and (device or unit or name):
        raise typer.BadParameter("--device, --unit and --name are of --published")
    with open_store(db) as store:
        if published:
            _import_published(store, Path(file), device, unit, name, json_output=json_output)
            return
        done = import_file(store, Path(file))
    if json_output:
        print_json(asdict(done))
    else:
        typer.echo(f"{done.added} of {done.rows} outcomes were new")


def _import_published(
    store: Store, file: Path, device: str | None, unit: str | None, name: str | None, *, json_output: bool
) -> None:
    from dataclasses import asdict
    from math import ceil

    from latency_db.published import import_table
    from pipeline.progress import ConsoleReporter

    with ConsoleReporter().task(f"importing {file.name}", "MB") as advance:
        table = import_table(
            store,
            file,
            device=device,
            unit=unit,
            name=name,
            on_progress=lambda done, total: advance(ceil(done / 1e6), ceil(total / 1e6)),
        )
    if json_output:
        print_json(asdict(table))
        return
    for finding in table.findings:
        typer.echo(f"{finding.device}: {finding.detail}")
    typer.echo(f"{table.added} of {table.cells} published latencies were new ({table.source})")


def _require_options_that_fit(published: bool, device: str | None, *of_measurements: str | None) -> None:
    if published and any(of_measurements):
        raise typer.BadParameter("--target, --verdict and --since are of measurements, not of --published")
    if device is not None and not published:
        raise typer.BadParameter("--device is of --published")


def _filter(target: str | None, workload: str | None, verdict: str | None, since: str | None) -> Filter:
    from datetime import UTC, datetime

    from latency_db.store import Filter

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


def _published_text(row: dict[str, Any]) -> str:
    value = row["latency_ns"]
    time = "-" if value is None else f"{value / 1e6:.4f} ms"
    flag = f"  {row['flag']}" if row["flag"] else ""
    return f"published in {row['source']}  {row['device']}  {time}{flag}  {row['workload']}"
