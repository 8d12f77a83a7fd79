"""Arguments of ``lathe db``; what its commands do is in ``command``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.help import Commands
from pipeline.cli.options import Database, Json

db_app = Commands("Look into the latency database, and exchange its contents.")

FILTERS = "Filters"
PUBLISHED = "Published latencies"

Target = Annotated[
    str | None,
    typer.Option("--target", metavar="TARGET", help="Only this target.", rich_help_panel=FILTERS),
]
WorkloadText = Annotated[
    str | None,
    typer.Option(
        "--workload",
        metavar="TEXT",
        help="Only workloads whose description contains this text.",
        rich_help_panel=FILTERS,
    ),
]
VerdictName = Annotated[
    str | None,
    typer.Option(
        "--verdict",
        metavar="VERDICT",
        help="Only outcomes that are valid, degraded, invalid or failed.",
        rich_help_panel=FILTERS,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only outcomes from this time on, e.g. 2026-01-31 (UTC).",
        rich_help_panel=FILTERS,
    ),
]
Published = Annotated[
    bool,
    typer.Option(
        "--published",
        help="Published latencies instead of measurements and failures.",
        rich_help_panel=PUBLISHED,
    ),
]
DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="With --published: only this device.", rich_help_panel=PUBLISHED
    ),
]


@db_app.add("info")
def info(db: Database = None, json_output: Json = False) -> None:
    """Show where the database is and what it holds."""
    from pipeline.cli.db.command import show_info

    show_info(db, as_json=json_output)


@db_app.add(
    "query", "lathe db query --target host/litert:fp32@1 --since 2026-01-31", "lathe db query --json | jq"
)
def query(
    *,
    target: Target = None,
    workload: WorkloadText = None,
    verdict: VerdictName = None,
    since: Since = None,
    published: Published = False,
    device: DeviceName = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000_000, metavar="N", help="List at most N rows.")
    ] = 1000,
    db: Database = None,
    json_output: Json = False,
) -> None:
    """List measurements and failures, the oldest first.

    Outcomes of emulated devices are marked. With --published, the latencies of published tables are listed;
    they are not measurements of this database.
    """
    from pipeline.cli.db.command import Filters, list_rows

    list_rows(Filters(target, workload, verdict, since, published, device), limit, db, as_json=json_output)


@db_app.add("merge", "lathe db merge colleague.db")
def merge(
    other: Annotated[str, typer.Argument(metavar="OTHER", help="A database: a file or an SQLAlchemy URL.")],
    db: Database = None,
    json_output: Json = False,
) -> None:
    """Add what another database holds and this one lacks.

    The other database stays as it is. A second merge adds nothing. Damaged rows are left out, and the exit
    code is then 8.
    """
    from pipeline.cli.db.command import merge_database

    merge_database(other, db, as_json=json_output)


@db_app.add("export", "lathe db export rows.parquet --target host/litert:fp32@1")
def export(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="File to write; its suffix says how: .parquet, .csv or .json."),
    ],
    *,
    target: Target = None,
    workload: WorkloadText = None,
    verdict: VerdictName = None,
    since: Since = None,
    published: Published = False,
    device: DeviceName = None,
    db: Database = None,
    json_output: Json = False,
) -> None:
    """Write measurements and failures to a file.

    The file holds the raw samples too, and lathe db import reads it again. With --published, the latencies of
    published tables are written, for other tools; lathe db merge takes them to another database.
    """
    from pipeline.cli.db.command import Filters, export_rows

    export_rows(Filters(target, workload, verdict, since, published, device), file, db, as_json=json_output)


@db_app.add(
    "import",
    "lathe db import rows.parquet",
    "lathe db import table.csv --published --device 'Pixel 4' --unit ms",
)
def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file of lathe db export, or a published table.")
    ],
    *,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="FILE is a published table: .csv, .csv.gz, .yaml or .npz; see the docs.",
            rich_help_panel=PUBLISHED,
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="The device it was measured on, if the table does not say.",
            rich_help_panel=PUBLISHED,
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            "--unit",
            metavar="UNIT",
            help="The unit of its values, s, ms, us or ns, if the table does not say.",
            rich_help_panel=PUBLISHED,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="TEXT",
            help="A name for the table; by default its file name.",
            rich_help_panel=PUBLISHED,
        ),
    ] = None,
    db: Database = None,
    json_output: Json = False,
) -> None:
    """Add the rows of a file: measurements, or a published table.

    A file of measurements with anything wrong in it adds nothing. A published table is screened first, and
    what that finds is shown; its latencies never pass for measurements. The same import a second time adds
    nothing, or finishes one that was interrupted.
    """
    from pipeline.cli.db.command import import_rows

    import_rows(file, db, published=published, device=device, unit=unit, name=name, as_json=json_output)


@db_app.add("check")
def check(db: Database = None, json_output: Json = False) -> None:
    """Read every row and recompute every digest.

    When anything is wrong, the exit code is 8.
    """
    from pipeline.cli.db.command import check_database

    check_database(db, as_json=json_output)


@db_app.add("gc")
def gc(
    rehearse: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing; show what would be removed.")
    ] = False,
    db: Database = None,
    json_output: Json = False,
) -> None:
    """Remove what the database no longer needs.

    That is copies made before migrations, and parts of keys that no row uses. Measurements are kept for ever.
    """
    from pipeline.cli.db.command import clear_database

    clear_database(db, rehearse=rehearse, as_json=json_output)
