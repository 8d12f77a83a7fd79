"""What ``lathe db`` does; imported only when one of its commands runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from math import ceil
from pathlib import Path

import typer

from devices.target import Target
from devices.untrusted import regular_size
from devices.words import cause_of, count_of, listed
from latency_db.errors import StoreError
from latency_db.published import import_table
from latency_db.store import (
    Filter,
    Record,
    Store,
    check,
    clear,
    export_file,
    export_published,
    import_file,
    info,
    merge,
    open_store,
    published_rows,
    records,
)
from pipeline.cli.db.documents import row_json
from pipeline.cli.db.text import info_text, published_text, row_text
from pipeline.cli.output import print_json
from pipeline.progress import ConsoleReporter

VERDICTS = ("valid", "degraded", "invalid", "failed")


@dataclass(frozen=True)
class Filters:
    """Which rows are wanted, as the options say it."""

    target: str | None
    workload: str | None
    verdict: str | None
    since: str | None
    published: bool
    device: str | None

    def checked(self) -> Filter:
        """The filter of measurements and failures.

        Raises:
            typer.BadParameter: options that do not fit together, or an unknown verdict or time.
            TargetError: the target is written in a way that none is.
        """
        if self.published and (self.target or self.verdict or self.since):
            raise typer.BadParameter(
                "--target, --verdict and --since choose measurements; leave them out with --published"
            )
        if self.device is not None and not self.published:
            raise typer.BadParameter("--device needs --published")
        if self.verdict not in (None, *VERDICTS):
            raise typer.BadParameter(f"{self.verdict} is none of {', '.join(VERDICTS)}")
        target = None if self.target is None else str(Target.parse(self.target))
        since = None if self.since is None else _moment(self.since).isoformat(timespec="seconds")
        return Filter(target, self.workload, self.verdict, since)


def show_info(db: str | None, *, as_json: bool) -> None:
    """``lathe db info``."""
    with open_store(db, must_exist=True) as store:
        found = info(store)
    if as_json:
        print_json(asdict(found))
    else:
        typer.echo(info_text(found))


def list_rows(filters: Filters, limit: int, db: str | None, *, as_json: bool) -> None:
    """``lathe db query``."""
    wanted, published, damaged = filters.checked(), filters.published, list[Record]()
    with open_store(db, must_exist=True) as store:
        if published:
            batches = published_rows(store, device=filters.device, workload=filters.workload)
            rows = list(islice((row for batch in batches for row in batch), limit + 1))
        else:
            rows = list(islice(map(row_json, _sound(records(store, wanted), damaged)), limit + 1))
        measured_on = () if rows or published or wanted.target is None else info(store).outcomes
    cut = len(rows) > limit
    rows = rows[:limit]
    if as_json:
        print_json(
            {"published" if published else "rows": rows, "more": cut}
            | ({} if published else {"damaged": len(damaged)})
        )
        return
    for row in rows:
        typer.echo(published_text(row) if published else row_text(row))
    if cut:
        sys.stderr.write(f"there are more than these {limit}; see --limit\n")
    if damaged:
        sys.stderr.write(f"left out: {count_of(len(damaged), 'damaged row')}; see lathe db check\n")
    if not rows:
        sys.stderr.write(f"no {'published latency' if published else 'stored outcome'} is like that\n")
    if measured_on and wanted.target not in measured_on:
        sys.stderr.write(f"nothing was measured on {wanted.target}, but on {listed(measured_on)}\n")


def _sound(batches: Iterable[Sequence[Record]], damaged: list[Record]) -> Iterator[Record]:
    """The rows that can be shown; the others are put aside."""
    for record in chain.from_iterable(batches):
        if record.damage is None:
            yield record
        else:
            damaged.append(record)


def _require_file(path: str) -> None:
    """Ask before a database is made for what is not there."""
    try:
        regular_size(Path(path))
    except (OSError, ValueError) as error:
        raise StoreError(f"there is no file {path}", why=cause_of(error), fix="check the name") from error


def merge_database(other: str, db: str | None, *, as_json: bool) -> None:
    """``lathe db merge``; ends with 8 when rows were damaged."""
    if "://" not in other:
        _require_file(other)
    with open_store(db) as store:
        merged = merge(store, other)
    if as_json:
        print_json(asdict(merged))
    else:
        typer.echo(f"{merged.added} of {merged.rows} outcomes were new")
        if merged.published_rows:
            typer.echo(f"{merged.published_added} of {merged.published_rows} published latencies were new")
        if merged.damaged:
            typer.echo(f"{merged.damaged} damaged rows were left out; see lathe db check --db {other}")
    if merged.damaged:
        raise typer.Exit(StoreError.exit_code)


def export_rows(filters: Filters, file: str, db: str | None, *, as_json: bool) -> None:
    """``lathe db export``; ends with 8 when rows were damaged."""
    wanted, published, damaged = filters.checked(), filters.published, 0
    with open_store(db, must_exist=True) as store:
        if published:
            rows = export_published(store, Path(file), device=filters.device, workload=filters.workload)
        else:
            exported = export_file(store, Path(file), wanted)
            rows, damaged = exported.rows, exported.damaged
    if as_json:
        print_json({"file": file, "rows": rows} | ({} if published else {"damaged": damaged}))
    else:
        typer.echo(f"{rows} {'published latencies' if published else 'outcomes'} are in {file}")
        if damaged:
            typer.echo(f"{count_of(damaged, 'damaged row')} left out; see lathe db check")
    if damaged:
        raise typer.Exit(StoreError.exit_code)


def import_rows(
    file: str,
    db: str | None,
    *,
    published: bool,
    device: str | None,
    unit: str | None,
    name: str | None,
    as_json: bool,
) -> None:
    """``lathe db import``."""
    if not published and (device or unit or name):
        raise typer.BadParameter("--device, --unit and --name need --published")
    _require_file(file)
    with open_store(db) as store:
        if published:
            _import_published(store, Path(file), device, unit, name, as_json=as_json)
            return
        done = import_file(store, Path(file))
    if as_json:
        print_json(asdict(done))
    else:
        typer.echo(f"{done.added} of {done.rows} outcomes were new")


def check_database(db: str | None, *, as_json: bool) -> None:
    """``lathe db check``; ends with 8 when anything is wrong."""
    with open_store(db, must_exist=True) as store:
        found = check(store)
    if as_json:
        print_json(asdict(found))
    else:
        for problem in found.problems:
            typer.echo(f"problem: {problem}")
        if found.count > len(found.problems):
            typer.echo(f"and {count_of(found.count - len(found.problems), 'more problem')}")
        typer.echo(
            f"{count_of(found.rows, 'outcome')} read, "
            + (count_of(found.count, "problem") if found.count else "all is well")
        )
    if found.count:
        raise typer.Exit(StoreError.exit_code)


def clear_database(db: str | None, *, rehearse: bool, as_json: bool) -> None:
    """``lathe db gc``."""
    with open_store(db, must_exist=True) as store:
        cleared = clear(store, rehearse=rehearse)
    if as_json:
        print_json({**asdict(cleared), "dry_run": rehearse})
        return
    copies = f"{count_of(len(cleared.backups), 'copy')} ({cleared.freed_bytes / 1e6:.1f} MB)"
    verb = "would be removed" if rehearse else "removed"
    typer.echo(f"{verb}: {copies}, {cleared.parts} unused parts of keys")


def _import_published(
    store: Store, file: Path, device: str | None, unit: str | None, name: str | None, *, as_json: bool
) -> None:
    with ConsoleReporter().task(f"importing {file.name}", "MB") as advance:
        table = import_table(
            store,
            file,
            device=device,
            unit=unit,
            name=name,
            on_progress=lambda done, total: advance(ceil(done / 1e6), ceil(total / 1e6)),
        )
    if as_json:
        print_json(asdict(table))
        return
    for finding in table.findings:
        typer.echo(f"{finding.device}: {finding.detail}")
    typer.echo(f"{table.added} of {table.cells} published latencies were new ({table.source})")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text} is no date or time such as 2026-01-31T12:00") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
