"""Options that commands of several rooms share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on standard output; an error is one too."),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        help="Latency database: a file or an SQLAlchemy URL. [default: $LATHE_DB, else in your data folder]",
    ),
]
