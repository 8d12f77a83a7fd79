"""Arguments of ``lathe verify``; what it does is in ``command``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import Database, Json


def verify(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")],
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="FILE", help="Public Ed25519 key of whoever must have signed it."),
    ] = None,
    db: Database = None,
    json_output: Json = False,
) -> None:
    """Check a bundle's files, then its accuracy and latency again.

    Every file must be unchanged; then each artifact runs on its target, over the test split and on the clock.
    A budget in milliseconds is judged by the interval on this machine: by what your latency database, or else
    the bundle, knows of the device. When anything does not hold, the exit code is 11. With --key, nothing of
    the bundle runs unless it was signed with the private key: the exit code is 14 without a signature, and 15
    with that of another key.
    """
    from pipeline.cli.verify.command import verify_folder

    verify_folder(bundle, key, db=db, as_json=json_output)
